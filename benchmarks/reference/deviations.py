"""What the switches between paper, released code and suite change: the numbers in docs/deviations.md."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.reference.findings import points
from benchmarks.report.model import Table
from benchmarks.significance import Difference

NOT_RUN = "not run"


def effect(tables: Mapping[str, Table], method: str, switch: str) -> str:
    """Return what a switch changes in a method's AUC, with its interval and mark, from the method's ablation table."""
    table = tables.get(method)
    row = next((row for row in table.rows if row[0].text == switch), None) if table is not None else None
    if row is None or row[3].value is None:
        return NOT_RUN
    change = row[3]
    mark = "\\*" if change.mark else ""
    value, _, interval = points(row[3].value, change.interval).partition(" ")
    return f"{value}{mark} {interval}".strip()


def profile_effects(changes: Mapping[str, Difference]) -> dict[str, str]:
    """Return what the official profile changes in each method's AUC."""
    return {
        label: points(one.value, None if one.interval is None else (one.interval.low, one.interval.high))
        for label, one in changes.items()
    }
