"""Reports from run records: tables and figures for a paper, and one page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import files
from benchmarks.records import RunRecord, find_runs
from benchmarks.report.formats import csv_text, latex, slug
from benchmarks.report.render import markdown, terminal, write_markdown
from benchmarks.report.tables import Group, Table, groups, tables

__all__ = ["Report", "Table", "of_runs", "tables", "terminal", "write_files", "write_report"]

REPORT, FOLDER, PAGE = "report.md", "report", "report.html"


@dataclass(frozen=True)
class Report:
    """What was found below a results folder. path: the Markdown page; problems: a line per unreadable record."""

    runs: Sequence[RunRecord]
    tables: Sequence[Table]
    path: Path
    problems: Sequence[str]


def write_report(root: Path) -> Report:
    """Write the tables of every record below `root` as one Markdown page."""
    runs, problems = find_runs(root)
    found = tables(runs)
    path = root / REPORT
    if runs or problems:
        write_markdown(path, found, problems)
    return Report(runs, found, path, [f"{problem.path}: {problem.message}" for problem in problems])


def of_runs(all_runs: Sequence[RunRecord], run_ids: set[str]) -> list[Table]:
    """Return the tables of some of the runs."""
    return tables(run for run in all_runs if run.run_id in run_ids)


def write_files(root: Path) -> list[Path]:
    """Write below `root`/report every table as Markdown, LaTeX and CSV, every figure, and report.html; return them.

    Figures need what runs keep per image; a run whose file is missing or damaged is named on the page and left out.
    """
    from benchmarks.report import page
    from benchmarks.report.pictures import draw

    runs, problems = find_runs(root)
    problems = list(problems)
    written: list[Path] = []
    sections = []
    for group in groups(runs):
        folder = root / FOLDER / slug(group.title)
        for table in group.tables():
            written += _write_table(folder, table, group)
        pictures, files_drawn, unread = draw(group, folder)
        written += files_drawn
        problems += unread
        sections.append(page.Section(group.title, group.tables(), pictures))
    path = root / PAGE
    content = page.page(sections, runs, problems)
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
