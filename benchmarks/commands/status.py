"""The command `status`: which runs are planned, queued, running, done or failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import load_plugins, out
from benchmarks.commands.options import AsJson, Plugins, Results, Wanted, spread
from errors import UserError, counted

if TYPE_CHECKING:
    from benchmarks.launchers.states import RunState
    from benchmarks.running.plan import PlannedRun


@spread
def status(
    *,
    suite: Annotated[str | None, typer.Option(help="A named set of runs; without it: every record there is.")] = None,
    wanted: Wanted,
    as_json: AsJson = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Show which runs of a suite are planned, running, done or failed; without a suite, of all records."""
    load_plugins(plugin)
    from benchmarks.launchers.states import states

    if results.is_file():
        raise UserError(
            f"There are no runs in '{results}'.",
            "It is a file; states are read from folders of runs.",
            f"Pass a folder; runs of a packed file are laid out by: python bench.py unpack {results} FOLDER",
        )
    if suite is None and wanted != Wanted():
        suite = "quick"
    found = states(results, None if suite is None else planned_runs(suite, wanted, results))
    if not found:
        raise UserError(
            f"There are no runs in '{results}'.", "It holds no records.", "Pass --suite to see what it would run."
        )
    if as_json:
        rows = [vars(one) | {"changed": None if one.changed is None else one.changed.isoformat()} for one in found]
        print(json.dumps(rows, indent=1))
        return
    show_states(found)


def planned_runs(suite: str, wanted: Wanted, results: Path) -> list[PlannedRun]:
    """Return the runs of a suite as `run` would plan them."""
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench

    return plan_runs(wanted.requests(suite), Workbench(wanted.choices(results)))


def show_states(found: Sequence[RunState]) -> None:
    """Print runs and their states, and how many there are of each."""
    table = RichTable()
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("last written (UTC)", no_wrap=True)
    colours = {
        "done": "green",
        "failed": "red",
        "dead": "red",
        "unreadable": "red",
        "running": "cyan",
        "queued": "cyan",
    }
    for one in found:
        written = "" if one.changed is None else f"{one.changed:%Y-%m-%d %H:%M:%S}"
        table.add_row(one.run_id, one.state, "{}/{}".format(*one.epochs), written, style=colours.get(one.state))
    out.print(table)
    for one in found:
        if one.note:
            out.print(f"{one.run_id} is {one.state}: {one.note}", soft_wrap=True)
    counts = Counter(one.state for one in found)
    out.print(f"{counted(len(found), 'run')}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
