"""The command `report`, and the tables that `run` prints when its runs are done."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.console import err, load_plugins, out
from benchmarks.commands.options import Plugins
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.report.evidence import Question
    from benchmarks.report.sources import Source
    from benchmarks.report.writing import Report


def show_report(
    results: Path,
    run_ids: set[str] | None = None,
    question: Question | None = None,
    sources: Sequence[Source] | None = None,
) -> Report:
    """Print the main tables of the runs asked for (None: of all), write the report of all records and return it.

    results: folder of the report. sources: of the records, by default that folder.
    """
    from benchmarks.report.render import terminal
    from benchmarks.report.writing import read_report

    found = read_report(results, question, sources)
    tables = found.tables if run_ids is None else found.tables_of(run_ids)
    for table in tables:
        if run_ids is None or table.title.startswith(("Results", "Differences", "Ablations", "Across")):
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
    results: Annotated[
        list[Path] | None, typer.Option(help="Folders of run records, and files that 'pack' wrote. results.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; csp where it was run.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: no intervals and tests.")] = 10_000,
    top_k: Annotated[list[int] | None, typer.Option(help="Also top-k numbers, e.g. --top-k 3 5.")] = None,
    plugin: Plugins = None,
) -> None:
    """Make the tables (Markdown, LaTeX, CSV), figures and the HTML page of all run records."""
    from benchmarks.report.evidence import Question
    from benchmarks.report.sources import opened
    from benchmarks.report.topk_table import check_topk

    load_plugins(plugin)
    topk = tuple(dict.fromkeys(top_k or ()))
    check_topk(topk)
    places = results or [Path("results")]
    with opened(places) as sources:
        _report(sources, Question(baseline, resamples, topk=topk))


def _report(sources: Sequence[Source], question: Question) -> None:
    """Print and write the report of some sources."""
    from benchmarks.report.sources import home_of
    from benchmarks.report.writing import write_files

    found = show_report(home_of(sources), None, question, sources)
    if not found.runs and not found.problems:
        raise UserError(
            f"There is nothing to report in '{', '.join(str(source.named) for source in sources)}'.",
            "It holds no run records.",
            "Run 'python bench.py run' first, or pass --results with another folder.",
        )
    written = write_files(found)
    for folder in sorted({path.parent for path in written}):
        names = sorted(path.name for path in written if path.parent == folder)
        out.print(f"{folder}: {', '.join(names)}", soft_wrap=True)
    if code := show_failures(found):
        raise typer.Exit(code)
