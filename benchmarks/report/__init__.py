"""Reports from run records: tables in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import RunRecord, find_runs
from benchmarks.report.render import terminal, write_markdown
from benchmarks.report.tables import Table, tables

__all__ = ["Table", "tables", "terminal", "write_report"]

REPORT = "report.md"


def write_report(root: Path) -> tuple[list[RunRecord], list[Table], Path, list[str]]:
    """Write the report of every record below `root`; return records, tables, the report's path and the problems."""
    runs, problems = find_runs(root)
    found = tables(runs)
    path = root / REPORT
    if runs or problems:
        write_markdown(path, found, problems)
    return runs, found, path, [f"{problem.path}: {problem.message}" for problem in problems]


def of_runs(all_runs: Sequence[RunRecord], run_ids: set[str]) -> list[Table]:
    """Return the tables of some of the runs."""
    return tables(run for run in all_runs if run.run_id in run_ids)
