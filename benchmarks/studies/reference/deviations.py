"""What the switches between paper, released code and suite change: the numbers in docs/deviations.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.evidence import Question
from benchmarks.report.table_model import Table
from benchmarks.significance import Difference
from benchmarks.studies.reference import findings
from benchmarks.studies.reference.findings import points
from benchmarks.studies.reference.material import Material

NOT_RUN = "not run"
MARK = r"\*"
FORMERLY = "(short)"
"""Beside an effect that the two-epoch records alone have."""


@dataclass(frozen=True)
class Effects:
    """What the records of one budget have, as text: a method's ablations, switches by name, profiles by label."""

    tables: Mapping[str, Table]
    switched: Mapping[str, str]
    official: Mapping[str, str]

    @classmethod
    def of(cls, material: Material) -> Effects:
        """Return those of some records."""
        clean, official = (material.groups.get(("closed", profile)) for profile in ("clean", "official"))
        changed = {} if clean is None or official is None else findings.profiles(clean, official, material.question)
        return cls(
            material.ablations,
            effects(findings.switch_changes(material), material.question),
            effects(changed, material.question),
        )


class Shown:
    """Effects for the page: those of the first records that have one. records: today's, then the former ones."""

    def __init__(self, records: Sequence[Effects]) -> None:
        self.records = records

    def ablation(self, method: str, switch: str) -> str:
        """Return what an ablation changes."""
        return self._first(lambda own: effect(own.tables, method, switch))

    def switch(self, name: str) -> str:
        """Return what a switch beside the suite changes."""
        return self._first(lambda own: own.switched.get(name, NOT_RUN))

    def official(self, label: str) -> str:
        """Return what the official profile changes for a method."""
        return self._first(lambda own: own.official.get(label, NOT_RUN))

    def _first(self, read: Callable[[Effects], str]) -> str:
        for number, own in enumerate(self.records):
            if (found := read(own)) != NOT_RUN:
                return f"{found} {FORMERLY}" if number else found
        return NOT_RUN


def effect(tables: Mapping[str, Table], method: str, switch: str) -> str:
    """Return what a switch changes in a method's AUC, with its interval and mark, from the method's ablation table."""
    table = tables.get(method)
    row = next((row for row in table.rows if row[0].text == switch), None) if table is not None else None
    if row is None or row[3].value is None:
        return NOT_RUN
    return _shown(row[3].value, row[3].interval, bool(row[3].mark))


def effects(changes: Mapping[str, Difference], question: Question) -> dict[str, str]:
    """Return changes in AUC by their names, with interval and mark, as `effect` does."""
    return {
        name: _shown(one.value, one.interval.ends, bool(question.mark(one.adjusted_p))) for name, one in changes.items()
    }


def _shown(value: float, interval: tuple[float, float] | None, marked: bool) -> str:
    change, _, ends = points(value, interval).partition(" ")
    return f"{change}{MARK if marked else ''} {ends}".strip()
