"""Hyper-parameter noise: what each method gives under the setting that came second when it was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.cells import number
from benchmarks.report.groups import Row
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs.records import RunRecord
from benchmarks.significance import Difference
from benchmarks.studies.reference import findings
from benchmarks.studies.reference.material import Material
from benchmarks.studies.reference.switches import SECOND_BEST, SEED, own_settings


@dataclass(frozen=True)
class Pair:
    """A method under its chosen and its second-best setting, on one seed. change: from the first to the second."""

    label: str
    chosen: RunRecord
    second: RunRecord
    change: Difference

    @property
    def aucs(self) -> tuple[float, float]:
        """The test AUC of the chosen and of the second-best setting."""
        one, other = (run.finished.metrics.test.auc for run in (self.chosen, self.second))
        return one, other


def pairs(material: Material, rows: Sequence[Row]) -> list[Pair]:
    """Return the methods of which both runs are there, in the order of `rows`; Holm over the methods."""
    both = {
        row.label: (base, second)
        for row in rows
        if (second := material.second_best.get(row.method)) is not None
        and (base := findings.base_of(rows, second)) is not None
    }
    changes = findings.after_holm({
        label: findings.change([base], [second], material.question) for label, (base, second) in both.items()
    })  # fmt: skip
    return [Pair(label, *runs, changes[label]) for label, runs in both.items()]


def table(found: Sequence[Pair]) -> Table:
    """Return both AUCs of each method, and the change with its interval."""
    columns = [
        Column("method"),
        Column("second-best setting"),
        Column("chosen"),
        Column("second"),
        Column("change", signed=True, larger_is_better=None),
        Column("p Holm", percent=False, p_value=True, exact=False),
    ]
    lines = []
    for pair in found:
        setting = ", ".join(text.partition(".")[2].replace("=", " ") for text in own_settings(pair.second))
        change = Cell(pair.change.value, interval=pair.change.interval.ends)
        lines.append(
            [Cell(text=pair.label), Cell(text=setting), *map(Cell, pair.aucs), change, number(pair.change.adjusted_p)]
        )
    text = (
        f"Test AUC in percent, closed world, seed {SEED} alone, the reference's budget: under the setting that "
        "validation chose and under the one that came second, both at the short budget (docs/tuning). "
        "Intervals: over test images alone; they do not tell what another seed would give, nor what rounding does. p "
        "Holm: two-sided, over the methods."
    )
    return Table("Under the second-best setting", text, columns, lines)


def winner(found: Sequence[Pair], rows: Sequence[Row]) -> str:
    """Say who would lead if methods had their second-best setting, and of which methods no such run is there."""
    if not found:
        return ""
    first = max(found, key=lambda pair: pair.aucs[0])
    other = max(found, key=lambda pair: pair.aucs[1])
    changed = "also leads" if first is other else f"no longer leads, but {other.label}"
    mixed = [pair.label for pair in found if pair is not first and pair.aucs[0] > first.aucs[1]]
    then = f"be behind {findings.names(mixed)}" if mixed else "still lead"
    alone = f"Among them, with its second-best setting against the others' chosen ones, {first.label} would {then}."
    there = {pair.chosen.spec.method for pair in found}
    absent = [row.label for row in rows if row.method in SECOND_BEST and row.method not in there]
    lacking = f" Not run for {findings.names(absent)}." if absent else ""
    return (
        f"On seed {SEED}, {first.label} leads these methods with the settings that were chosen "
        f"({findings.percent(first.aucs[0])}); with the second-best settings {first.label} {changed} "
        f"({findings.percent(other.aucs[1])}). {alone}{lacking}"
    )
