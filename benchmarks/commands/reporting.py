"""The command `report`, and the tables that `run` prints when its runs are done."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.console import err, load_plugins, out
from benchmarks.commands.options import Plugins, Results
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.report.evidence import Question
    from benchmarks.report.writing import Report


def show_report(results: Path, run_ids: set[str] | None = None, question: Question | None = None) -> Report:
    """Print the main tables of the runs asked for (None: of all), write the report of all records and return it."""
    from benchmarks.report.render import terminal
    from benchmarks.report.writing import read_report

    found = read_report(results, question)
    tables = found.tables if run_ids is None else found.tables_of(run_ids)
    for table in tables:
        if run_ids is None or table.title.startswith(("Results", "Differences", "Ablations")):
            out.print()
            shown = found.failures.within("In the terminal").attempt(table.title, partial(terminal, table))
            if shown is None:
                continue
            out.print(shown)
            for note in table.notes:
                out.print(note, style="yellow", soft_wrap=True)
    for problem in found.problems:
        err.print(f"Not read: {problem}", style="yellow", soft_wrap=True)
    found.write()  # after the tables are shown: the disk may be full
    if found.runs or found.problems:
        out.print(f"Report: {found.path}", soft_wrap=True)
    return found


def show_failures(found: Report) -> int:
    """Print what of a report could not be made and what its reader must know; return the exit code, 1 for a failure."""
    from benchmarks.report.failures import LOG

    for notice in found.notices:
        err.print(notice, style="yellow", soft_wrap=True)
    for failure in found.failures.found:
        err.print(f"{failure.where}: {failure}", style="red", soft_wrap=True)
    if any(failure.trace for failure in found.failures.found):
        err.print(f"Tracebacks: {found.root / LOG}", soft_wrap=True)
    return 1 if found.failures.found else 0


def report(
    results: Results = Path("results"),
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; csp where it was run.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: no intervals and tests.")] = 10_000,
    plugin: Plugins = None,
) -> None:
    """Make the tables (Markdown, LaTeX, CSV), figures and the HTML page of all run records."""
    from benchmarks.report.evidence import Question
    from benchmarks.report.writing import write_files

    load_plugins(plugin)
    found = show_report(results, question=Question(baseline, resamples))
    if not found.runs and not found.problems:
        raise UserError(
            f"There is nothing to report in '{results}'.",
            "It holds no run records.",
            "Run 'python bench.py run' first, or pass --results with another folder.",
        )
    written = write_files(found)
    for folder in sorted({path.parent for path in written}):
        names = sorted(path.name for path in written if path.parent == folder)
        out.print(f"{folder}: {', '.join(names)}", soft_wrap=True)
    if code := show_failures(found):
        raise typer.Exit(code)
