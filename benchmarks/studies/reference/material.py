"""What the documents are made of: the committed runs by world and profile, and every table that is shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from benchmarks.report.ablations import ablation_table
from benchmarks.report.costs import cost_table
from benchmarks.report.evidence import Evidence, Question, choose_baseline, evidence
from benchmarks.report.groups import Group, Row, groups
from benchmarks.report.results_table import differences_table, main_table
from benchmarks.report.slices import slice_tables
from benchmarks.report.table_model import Table
from benchmarks.runs import files
from benchmarks.runs.budgets import trained_short
from benchmarks.runs.records import RunRecord, find_runs
from benchmarks.studies.reference.collection import FOLDER, expand_to
from benchmarks.studies.reference.switches import SWITCHES, switch_of
from errors import UserError
from registry import METHODS

BASELINE = "msci"
QUESTION = Question(baseline=BASELINE)
"""MSCI is what the others are held against here: where does it win, and where not?"""

ROUNDING = "rounding.json"
"""Beside the archives: what rounding alone gives a run, as `benchmarks.studies.rounding` found it."""

TAGS = ("kind", "clutter")
QUIET_THREADS = 2
"""Runs with both cores had the machine to themselves; the others ran beside other work."""


class Material:
    """The archives' runs, expanded into a temporary folder while this is open.

    runs: those of the suite, in groups by world and profile
    switched: those of the switches beside it, by name
    second_best: those of the settings that came second when methods were tuned, by method
    """

    def __init__(self, folder: Path = FOLDER, only: str = "*", question: Question = QUESTION) -> None:
        rounding: Mapping[str, Mapping[str, float]] = {}
        if (folder / ROUNDING).is_file():
            rounding = files.read_json(folder / ROUNDING)
        self.folder, self.only, self.question = folder, only, replace(question, rounding=rounding)

    def __enter__(self) -> Material:
        self._temporary = TemporaryDirectory()
        self._results: dict[tuple[str, str], Results] = {}
        expand_to(Path(self._temporary.name), self.folder, self.only)
        found, problems = find_runs(self._temporary.name)
        for problem in problems:
            raise UserError("The committed records cannot be read.", problem.message, "Collect them again.")
        named = {run.run_id: switch_of(run) for run in found}
        self.runs = [run for run in found if named[run.run_id] is None]
        beside = {name: run for run in found if (name := named[run.run_id]) is not None}
        self.switched: Mapping[str, RunRecord] = {name: run for name, run in beside.items() if name in SWITCHES}
        others = [run for name, run in beside.items() if name not in SWITCHES]
        self.second_best: Mapping[str, RunRecord] = {run.spec.method: run for run in others}
        self.groups: Mapping[tuple[str, str], Group] = {}
        for group in groups(self.runs):
            spec = group.runs[0].spec
            if (spec.world, spec.profile) in self.groups:
                raise UserError(
                    f"The committed runs of the {spec.world} world are of several kinds.",
                    f"They differ in what may not stand in one table: {group.distinction.strip(', ')}.",
                    "Collect runs of one release of the data and one backbone.",
                )
            self.groups = {**self.groups, (spec.world, spec.profile): group}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    @property
    def every(self) -> list[RunRecord]:
        """All committed runs, by name."""
        return sorted([*self.runs, *self.switched.values(), *self.second_best.values()], key=lambda run: run.run_id)

    def results(self, world: str, profile: str) -> Results:
        """Return the tables of the full models of a group, with their evidence; a `UserError` where there are none.

        They are held against `QUESTION`'s baseline, where it was not run against the first that was.
        """
        found = self.results_if_there(world, profile)
        if found is None:
            raise UserError(
                f"There are no results of the {world} world, profile {profile}.",
                f"There are those of {', '.join(' '.join(key) for key in self.groups) or 'none'}.",
                "Collect its runs first.",
            )
        return found

    def results_if_there(self, world: str, profile: str) -> Results | None:
        """Return the same; None where no full model of the group has finished."""
        if (world, profile) not in self._results:
            group = self.groups.get((world, profile))
            rows = [] if group is None else [row for row in group.full if row.done]
            if group is None or not rows:
                return None
            baseline = choose_baseline(rows, self.question) or choose_baseline(
                rows, replace(self.question, baseline=None)
            )
            assert baseline is not None  # there are rows with results
            found = evidence(group.full, baseline, self.question)
            self._results[world, profile] = Results(group, baseline, found, f"{world} world")
        return self._results[world, profile]

    @property
    def is_short(self) -> bool:
        """Whether some of the full models had the short training."""
        return any(trained_short(run) for run in self.runs if run.spec.ablation is None)

    @cached_property
    def ablations(self) -> Mapping[str, Table]:
        """The tables of the methods' switches, by method; of those of which some were run."""
        group = self.groups.get(("closed", "clean"))
        if group is None:
            return {}
        tables: dict[str, Table] = {}
        for method in METHODS.names():
            rows = ((row, group.switches(row)) for row in group.full if row.method == method)
            full, switches = next(((row, found) for row, found in rows if found), (None, []))
            if full is not None:
                tables[method] = ablation_table(group, full, switches, self.question)
        return tables

    def quiet(self, group: Group) -> list[Row]:
        """Return the rows of full models with the runs whose times mean something, where there are any."""
        kept = [Row(row.label, [run for run in row.done if is_quiet(run)]) for row in group.full]
        return [row for row in kept if row.runs]


@dataclass(frozen=True, eq=False)
class Results:
    """The full models of a group: tables, made on demand from one comparison."""

    group: Group
    baseline: Row
    found: Evidence
    where: str

    def main(self) -> Table:
        """The headline numbers."""
        return _named(main_table(self.group, self.group.full, self.found), f"Results, {self.where}")

    def differences(self) -> Table:
        """The differences from the baseline, with tests."""
        table = differences_table(self.group.full, self.baseline, self.found)
        return _named(table, f"{table.title}, {self.where}")

    def slices(self) -> list[Table]:
        """The tables by kind of state and by clutter.

        Those by frequency are left out: records of earlier releases lack them.
        """
        names = [f"Slices by {tag}" for tag in TAGS]
        return [
            _named(table, f"{table.title}, {self.where}")
            for table in slice_tables(self.group.full)
            if table.title in names
        ]


def _named(table: Table, title: str) -> Table:
    return replace(table, title=title, name=table.name or table.title)


def cost(rows: Sequence[Row]) -> Table:
    """The cost of the quiet runs."""
    return replace(cost_table(rows), title="Cost, runs with two cores to themselves")


def is_quiet(run: RunRecord) -> bool:
    """Return whether a run's times mean something."""
    return run.environment.get("threads") == QUIET_THREADS
