"""The command `run`: it reads what is asked for, has it planned and done, and prints the tables of what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands import launching
from benchmarks.commands.console import load_plugins, out
from benchmarks.commands.options import OnExisting, Plugins, Results, Wanted, spread
from benchmarks.commands.reporting import show_failures, show_report
from benchmarks.running.choices import How
from benchmarks.training import stopping

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench


@spread
def run(
    context: typer.Context,
    *,
    suite: Annotated[str, typer.Option(help="A named set of runs; the other options change it.")] = "quick",
    wanted: Wanted,
    how: How,
    on_existing: Annotated[OnExisting, typer.Option(help="About runs that are there.")] = OnExisting.resume,
    results: Results = Path("results"),
    plugin: Plugins = None,
    launch: launching.Launch,
) -> None:
    """Train and evaluate methods; without options: seven methods on icon_states, one seed."""
    load_plugins(plugin)
    launcher = launching.launcher_of(launch, plugin)
    requests = wanted.requests(suite)  # names are checked before torch is imported
    if not launch.dry_run:
        launching.on_devices(launch.devices, launcher, how.device, wanted.precision)

    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench

    choices = wanted.choices(results)
    choices = replace(choices, on_existing=on_existing.value, plugins=tuple(plugin or ()), how=how)
    if launch.spec is not None:
        planned, workbench = launching.spec_run(context, launch.spec, choices, launcher)
    else:
        workbench = Workbench(launcher.choices(choices))
        planned = plan_runs(requests, workbench)
        launcher = launching.fastest_here(launch, launcher, planned, workbench)
    for note in workbench.notes:
        out.print(note, soft_wrap=True)
    if launch.dry_run:
        show_plan(planned, workbench)
        launching.show_launch(planned, workbench, launcher)
        return
    code = launching.do_runs(planned, workbench, launcher)
    if code < 128 and launch.spec is None:
        stopping.check()  # what was asked for in a run's last moments, or could not be saved
    if launcher.waits and launch.spec is None and code < 128 and workbench.group.leads:
        code = show_failures(show_report(results, {item.spec.run_id for item in planned})) or code
    if code:
        raise typer.Exit(code)


def show_plan(planned: Sequence[PlannedRun], workbench: Workbench) -> None:
    """Print the runs with what would be done about each, where their settings come from, and what memory they take."""
    from benchmarks.running.joint import together
    from benchmarks.running.memory_estimate import memory_table

    table = RichTable(title=f"Planned runs on {workbench.device} in {workbench.precision}", title_justify="left")
    for head in ("run", "there", "would"):
        table.add_column(head, overflow="fold")
    for item in planned:
        table.add_row(item.spec.run_id, item.status, item.action)
    out.print(table)
    for runs in together(planned):
        if len(runs) > 1:
            names = ", ".join(item.spec.run_id for item in runs)
            out.print(f"One training for {len(runs)} runs, each judged after every epoch: {names}.", soft_wrap=True)
    first: dict[str, dict[str, str]] = {}
    for item in planned:
        spec = item.spec
        texts = {
            key: f"{key}={spec.settings[key]} ({note['origin']})"
            for key, note in sorted(item.provenance.items())
            if key in spec.settings
        }
        name = ", ".join(filter(None, (spec.method, spec.ablation, f"seed {spec.seed}")))
        if (before := first.setdefault(spec.method, texts)) is texts:
            said = ", ".join(texts.values())
        else:  # one switch among fifty settings would be looked for in vain
            changed = [text for key, text in texts.items() if before.get(key) != text]
            said = f"{', '.join(changed)}; the rest as in the first" if changed else "as the first"
        out.print(f"{name}: {said}", soft_wrap=True)
    if rows := memory_table(planned, workbench):
        title = "Memory in GB, estimated; the process and the data come on top"
        table = RichTable(title=title, title_justify="left")
        for head in ("method", "data set, world", "backbone"):
            table.add_column(head, overflow="fold")
        for head in ("weights", "step", "evaluation", "in all"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        out.print(table)
