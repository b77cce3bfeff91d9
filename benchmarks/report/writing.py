"""The report of a results folder: read, then written as a Markdown page, files of tables and figures, and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

from benchmarks.report.across import Across, Family, families, measure
from benchmarks.report.across_table import across_table
from benchmarks.report.evidence import Question, check_baseline
from benchmarks.report.failures import Failures
from benchmarks.report.formats import csv_text, latex
from benchmarks.report.groups import Group, groups
from benchmarks.report.names import file_name, folders, unique
from benchmarks.report.render import markdown, write_markdown
from benchmarks.report.scaling import Family as FamilyOfShares
from benchmarks.report.scaling import Scaled
from benchmarks.report.scaling import families as families_of_shares
from benchmarks.report.scaling import measure as measure_shares
from benchmarks.report.scaling_table import TITLE as SHARES
from benchmarks.report.scaling_table import scaling_tables
from benchmarks.report.sources import Source, records_of
from benchmarks.report.table_model import Table
from benchmarks.report.tables import group_tables, tables
from benchmarks.runs import files
from benchmarks.runs.records import Problem, RunRecord

ACROSS, DATA_SETS = "Across backbones", "Across data sets"
REPORT, FOLDER, PAGE = "report.md", "report", "report.html"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


F = TypeVar("F", bound=_Named)
M = TypeVar("M")


@dataclass(frozen=True)
class Report:
    """What was found below a results folder.

    groups: the runs that may be compared. unread: other records. failures: parts that could not be made, so far.
    notices: sentences for the reader of the whole report.
    """

    root: Path
    runs: Sequence[RunRecord]
    groups: Sequence[Group]
    unread: Sequence[Problem]
    question: Question = field(default_factory=Question)
    failures: Failures = field(default_factory=Failures)
    notices: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Where the Markdown page is written."""
        return self.root / REPORT

    @cached_property
    def by_group(self) -> list[list[Table]]:
        """The tables of each group; made once, for they resample. What cannot be made is among the `failures`."""
        return [group_tables(group, self.question, self.failures.within(group.title)) for group in self.groups]

    @cached_property
    def across(self) -> list[tuple[Across, list[Table]]]:
        """What was run with several backbones, measured once, each with its table."""
        return self._of_families(ACROSS, "Backbones", families, _across)

    @cached_property
    def by_share(self) -> list[tuple[Scaled, list[Table]]]:
        """What was run with several shares of seen pairs, measured once, each with its tables."""
        return self._of_families(SHARES, "Shares", families_of_shares, _scaled)

    def _of_families(
        self, where: str, what: str, families: Callable[[Sequence[Group]], list[F]], made: Callable[[F, Question], M]
    ) -> list[M]:
        """Return what is made of each family of groups. where, what: of a failure."""
        own = self.failures.within(where)
        found = [
            own.attempt(family.name, partial(made, family, self.question))
            for family in own.attempt(what, partial(families, self.groups)) or []
        ]
        return [one for one in found if one is not None]

    @property
    def tables(self) -> list[Table]:
        """The tables of all groups, then those across backbones and shares of seen pairs."""
        return [*(table for found in self.by_group for table in found), *_tables(self.across), *_tables(self.by_share)]

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
        asked = {group.title for group in self.groups if any(run.run_id in run_ids for run in group.runs)}
        beyond: list[tuple[Across | Scaled, list[Table]]] = [*self.across, *self.by_share]
        own_families = [
            table
            for one, made in beyond
            if len(asked & {group.title for group in one.family.groups.values()}) > 1
            for table in made
        ]
        return [*found, *own_families]

    def write(self) -> None:
        """Write the Markdown page, if there is anything to say."""
        if self.runs or self.unread:
            write_markdown(self.path, self.tables, self.unread, self.origin, self.failures.found)
            self.failures.write(self.root)


def _across(family: Family, question: Question) -> tuple[Across, list[Table]]:
    found = measure(family, question)
    return found, [across_table(found)]


def _scaled(family: FamilyOfShares, question: Question) -> tuple[Scaled, list[Table]]:
    found = measure_shares(family, question)
    return found, scaling_tables(found)


def _tables(found: Iterable[tuple[object, list[Table]]]) -> list[Table]:
    return [table for _, made in found for table in made]


def read_report(root: Path, question: Question | None = None, sources: Sequence[Source] | None = None) -> Report:
    """Return the report of every record of some sources, by default below `root`; nothing is written.

    root: the folder that it will be written to. A `question` with a baseline that was not run is a `UserError`.
    """
    runs, problems, clashes = records_of(sources or [Source(root, root)])
    report = Report(root, runs, groups(runs), problems, question or Question(), notices=clashes)
    if runs:
        check_baseline((row for group in report.groups for row in group.full), report.question)
    return report


def write_files(report: Report) -> list[Path]:
    """Write below its root every table as Markdown, LaTeX and CSV, every figure, and report.html; return the files.

    Figures need what runs keep per image; a run whose file is missing or damaged is named on the page and left out. So
    is whatever cannot be made, see `Report.failures`.
    """
    from benchmarks.report import fonts, page
    from benchmarks.report.images import Library
    from benchmarks.report.pictures import Drawn, draw, draw_across, draw_ranks, draw_scaling

    library = Library()
    problems = list(report.unread)
    written = write_tables(report)
    sections = []
    lacking: set[str] = set()
    for group, made, name in zip(report.groups, report.by_group, folders(report.groups), strict=True):
        own = report.failures.within(group.title)
        drawn = own.attempt("Figures", partial(draw, group, report.root / FOLDER / name, library, own)) or Drawn()
        written += drawn.files
        problems += drawn.problems
        lacking |= drawn.lacking
        sections.append(page.Section(group.title, name, made, group, drawn.pictures, drawn.absent))
    if report.across:
        own = report.failures.within(ACROSS)
        folder = report.root / FOLDER / file_name(ACROSS)
        drawn = draw_across([found for found, _ in report.across], folder, own)
        written += drawn.files
        lacking |= drawn.lacking
        sections.append(page.Section(ACROSS, folder.name, _tables(report.across), None, drawn.pictures, drawn.absent))
    own = report.failures.within(DATA_SETS)
    ranks = own.attempt("Ranks", partial(draw_ranks, report.groups, report.root / FOLDER, own)) or Drawn()
    draw_scaling([found for found, _ in report.by_share], report.root / FOLDER, ranks, own)
    written += ranks.files
    sections.append(
        page.Section(DATA_SETS, file_name(DATA_SETS), _tables(report.by_share), None, ranks.pictures, ranks.absent)
    )
    if lack := fonts.sentence(lacking | ranks.lacking):
        report.notices.append(lack)
    path = report.root / PAGE
    content = page.page(sections, report.runs, problems, report.failures, report.notices)
    files.write_aside(path, lambda file: file.write(content.encode("utf-8", "replace")))
    report.failures.write(report.root)
    return [*written, path]


def write_tables(report: Report) -> list[Path]:
    """Write every table as Markdown, LaTeX and CSV into a folder per group; return the files."""
    written: list[Path] = []
    every = list(zip([group.title for group in report.groups], report.by_group, folders(report.groups), strict=True))
    every.append((ACROSS, _tables(report.across), file_name(ACROSS)))
    every.append((DATA_SETS, _tables(report.by_share), file_name(DATA_SETS)))
    for title, made, folder in every:
        own = report.failures.within(title)
        for table, name in zip(made, unique([table.name or table.title for table in made]), strict=True):
            path = report.root / FOLDER / folder / name
            written += own.attempt(f"Files of {table.title}", partial(_write_table, path, table)) or []
    return written


def _write_table(path: Path, table: Table) -> list[Path]:
    """Write a table as files beside each other; path: without an ending."""
    contents = {
        ".md": markdown(table),
        ".tex": latex(table, f"{path.name}-{path.parent.name}"),
        ".csv": csv_text(table),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in contents.items():
        target = path.with_name(path.name + suffix)
        files.write_aside(target, partial(_put, content.encode("utf-8", "replace")))
        paths.append(target)
    return paths


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
