"""Reports from run records: tables and figures for a paper, and one page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import files
from benchmarks.records import Problem, RunRecord, find_runs
from benchmarks.report.formats import csv_text, latex, slug
from benchmarks.report.render import markdown, terminal, write_markdown
from benchmarks.report.tables import Group, Table, groups, tables

__all__ = ["Report", "Table", "of_runs", "tables", "terminal", "write_files", "write_report"]

REPORT, FOLDER, PAGE = "report.md", "report", "report.html"


@dataclass(frozen=True)
class Report:
    """What was found below a results folder. groups: the runs that may be compared. unread: other records."""

    root: Path
    runs: Sequence[RunRecord]
    groups: Sequence[Group]
    unread: Sequence[Problem]

    @property
    def path(self) -> Path:
        """Where the Markdown page is written."""
        return self.root / REPORT

    @property
    def tables(self) -> list[Table]:
        """The tables of all groups."""
        return [table for group in self.groups for table in group.tables]

    @property
    def problems(self) -> list[str]:
        """A line for each record that could not be read."""
        return [f"{problem.path}: {problem.message}" for problem in self.unread]


def write_report(root: Path) -> Report:
    """Write the tables of every record below `root` as one Markdown page."""
    runs, problems = find_runs(root)
    report = Report(root, runs, groups(runs), problems)
    if runs or problems:
        write_markdown(report.path, report.tables, problems)
    return report


def of_runs(all_runs: Sequence[RunRecord], run_ids: set[str]) -> list[Table]:
    """Return the tables of some of the runs."""
    return tables(run for run in all_runs if run.run_id in run_ids)


def write_files(report: Report) -> list[Path]:
    """Write below its root every table as Markdown, LaTeX and CSV, every figure, and report.html; return the files.

    Figures need what runs keep per image; a run whose file is missing or damaged is named on the page and left out.
    """
    from benchmarks.report import page
    from benchmarks.report.images import Library
    from benchmarks.report.pictures import draw, draw_ranks

    library = Library()
    problems = list(report.unread)
    written: list[Path] = []
    sections = []
    for group in report.groups:
        folder = report.root / FOLDER / slug(group.title)
        for table in group.tables:
            written += _write_table(folder, table, group)
        drawn = draw(group, folder, library)
        written += drawn.files
        problems += drawn.problems
        sections.append(page.Section(group.title, group.tables, group, drawn.pictures, drawn.absent))
    ranks = draw_ranks(report.groups, report.root / FOLDER)
    written += ranks.files
    sections.append(page.Section("Across data sets", [], None, ranks.pictures, ranks.absent))
    path = report.root / PAGE
    content = page.page(sections, report.runs, problems)
    files.write_aside(path, lambda file: file.write(content.encode()))
    return [*written, path]


def _write_table(folder: Path, table: Table, group: Group) -> list[Path]:
    contents = {
        ".md": markdown(table),
        ".tex": latex(table, slug(f"{table.title} {group.title}")),
        ".csv": csv_text(table),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in contents.items():
        path = folder / (slug(table.title) + suffix)
        files.write_aside(path, lambda file, text=content: file.write(text.encode()))
        paths.append(path)
    return paths
