"""What the switches between paper, released code and suite change: the numbers in docs/deviations.md."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report.evidence import Question
from benchmarks.report.table_model import Table
from benchmarks.significance import Difference
from benchmarks.studies.reference.findings import points

NOT_RUN = "not run"
MARK = r"\*"


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
        name: _shown(one.value, (one.interval.low, one.interval.high), bool(question.mark(one.adjusted_p)))
        for name, one in changes.items()
    }


def _shown(value: float, interval: tuple[float, float] | None, marked: bool) -> str:
    change, _, ends = points(value, interval).partition(" ")
    return f"{change}{MARK if marked else ''} {ends}".strip()
