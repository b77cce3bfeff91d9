"""Reports from run records: tables and figures for a paper, and one page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO

from benchmarks import files
from benchmarks.records import Problem, RunRecord, find_runs
from benchmarks.report.evidence import check_baseline
from benchmarks.report.formats import csv_text, latex, slug
from benchmarks.report.render import markdown, terminal, write_markdown
from benchmarks.report.tables import Group, Question, Table, group_tables, groups, tables

__all__ = [
    "Question",
    "Report",
    "Table",
    "of_runs",
    "read_report",
    "tables",
    "terminal",
    "write_files",
    "write_report",
]

REPORT, FOLDER, PAGE = "report.md", "report", "report.html"


@dataclass(frozen=True)
class Report:
    """What was found below a results folder. groups: the runs that may be compared. unread: other records."""

    root: Path
    runs: Sequence[RunRecord]
    groups: Sequence[Group]
    unread: Sequence[Problem]
    question: Question = field(default_factory=Question)

    @property
    def path(self) -> Path:
        """Where the Markdown page is written."""
        return self.root / REPORT

    @cached_property
    def by_group(self) -> list[list[Table]]:
        """The tables of each group; made once, for they resample."""
        return [group_tables(group, self.question) for group in self.groups]

    @property
    def tables(self) -> list[Table]:
        """The tables of all groups."""
        return [table for found in self.by_group for table in found]

    @property
    def problems(self) -> list[str]:
        """A line for each record that could not be read."""
        return [f"{problem.path}: {problem.message}" for problem in self.unread]

    @property
    def origin(self) -> str:
        """What the report was made from: nothing of the time or place of its making."""
        started = max((str(start.get("time", "")) for run in self.runs for start in run.starts), default="")
        latest = f", the latest of them started {started}" if started else ""
        return f"From {len(self.runs)} run records{latest}."

    def tables_of(self, run_ids: set[str]) -> list[Table]:
        """Return the tables of some of the runs, without making again what is there."""
        found: list[Table] = []
        for group, made in zip(self.groups, self.by_group, strict=True):
            own = [run for run in group.runs if run.run_id in run_ids]
            found += made if len(own) == len(group.runs) else tables(own, self.question)
        return found

    def write(self) -> None:
        """Write the Markdown page, if there is anything to say."""
        if self.runs or self.unread:
            write_markdown(self.path, self.tables, self.unread, self.origin)


def read_report(root: Path, question: Question | None = None) -> Report:
    """Return the report of every record below `root`; nothing is written.

    A `question` with a baseline that was not run is a `UserError`.
    """
    runs, problems = find_runs(root)
    report = Report(root, runs, groups(runs), problems, question or Question())
    if runs:
        check_baseline((row for group in report.groups for row in group.full), report.question)
    return report


def write_report(root: Path, question: Question | None = None) -> Report:
    """Write the tables of every record below `root` as one Markdown page, see `read_report`."""
    report = read_report(root, question)
    report.write()
    return report


def of_runs(all_runs: Sequence[RunRecord], run_ids: set[str], question: Question | None = None) -> list[Table]:
    """Return the tables of some of the runs; those that may not be compared never share one."""
    return tables((run for run in all_runs if run.run_id in run_ids), question)


def write_files(report: Report) -> list[Path]:
    """Write below its root every table as Markdown, LaTeX and CSV, every figure, and report.html; return the files.

    Figures need what runs keep per image; a run whose file is missing or damaged is named on the page and left out.
    """
    from benchmarks.report import page
    from benchmarks.report.images import Library
    from benchmarks.report.pictures import draw, draw_ranks

    library = Library()
    problems = list(report.unread)
    written = write_tables(report)
    sections = []
    for group, made in zip(report.groups, report.by_group, strict=True):
        drawn = draw(group, report.root / FOLDER / slug(group.title), library)
        written += drawn.files
        problems += drawn.problems
        sections.append(page.Section(group.title, made, group, drawn.pictures, drawn.absent))
    ranks = draw_ranks(report.groups, report.root / FOLDER)
    written += ranks.files
    sections.append(page.Section("Across data sets", [], None, ranks.pictures, ranks.absent))
    path = report.root / PAGE
    content = page.page(sections, report.runs, problems)
    files.write_aside(path, lambda file: file.write(content.encode()))
    return [*written, path]


def write_tables(report: Report) -> list[Path]:
    """Write every table as Markdown, LaTeX and CSV into a folder per group; return the files."""
    written: list[Path] = []
    for group, made in zip(report.groups, report.by_group, strict=True):
        for table in made:
            written += _write_table(report.root / FOLDER / slug(group.title), table, group)
    return written


def _write_table(folder: Path, table: Table, group: Group) -> list[Path]:
    name = table.name or table.title
    contents = {
        ".md": markdown(table),
        ".tex": latex(table, slug(f"{name} {group.title}")),
        ".csv": csv_text(table),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in contents.items():
        path = folder / (slug(name) + suffix)
        files.write_aside(path, partial(_put, content.encode()))
        paths.append(path)
    return paths


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
