"""Why a number of a table is not there: groups without images, and what chose the epoch in place of the rule wanted."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.empty_groups import GAP
from benchmarks.records import RunRecord
from benchmarks.selection import NAMES
from datasets.wording import counted

FIELDS = {
    "AUC": "auc",
    "HM": "best_hm",
    "S": "best_seen",
    "U": "best_unseen",
    "G": "gate",
    "HM@val": "at_bias.hm",
    "state": "at_zero.state",
    "object": "at_zero.object",
}
"""The columns of numbers of the test split, and what they are called in a record."""


def policy(run: RunRecord) -> str:
    """Return by what a finished run's epoch was chosen, or a run is to choose it."""
    return (run.result or {}).get("selection", {}).get("chosen_by") or run.spec.training.selection


def undefined_notes(runs: Sequence[RunRecord], columns: Sequence[str] = tuple(FIELDS)) -> list[str]:
    """Return a sentence for each reason for which numbers of finished runs are missing.

    columns: those of `FIELDS` that the table shows.
    """
    done = [run for run in runs if run.result is not None]
    missing: dict[tuple[str, str], set[str]] = {}  # by column and reason the runs
    chosen: dict[tuple[str, str, str], int] = {}
    for run in done:
        undefined = run.result["metrics"]["test"].get("undefined", {})  # type: ignore[index]
        for column in columns:
            if reason := undefined.get(FIELDS[column]):
                missing.setdefault((column, reason), set()).add(run.run_id)
        selection = run.result.get("selection", {})  # type: ignore[union-attr]
        if by := selection.get("chosen_by"):
            key = (NAMES[by], run.spec.training.selection, selection.get("reason", ""))
            chosen[key] = chosen.get(key, 0) + 1
    together: dict[tuple[str, frozenset[str]], list[str]] = {}
    for (column, reason), ids in missing.items():
        together.setdefault((reason, frozenset(ids)), []).append(column)
    trained = sum(run.spec.training.epochs > 0 for run in done)
    notes = [
        f"{GAP} of {', '.join(names)}{_of_runs(len(ids), len(done))}: {_on_test(reason)}."
        for (reason, ids), names in together.items()
    ]
    return notes + [
        f"The epoch was chosen by {by}{_of_runs(count, trained)}, not by {wanted}: {reason}."
        for (by, wanted, reason), count in chosen.items()
    ]


def _on_test(reason: str) -> str:
    return f"in test {reason}" if reason.startswith("there are no") else reason


def _of_runs(count: int, every: int) -> str:
    return "" if count == every else f" in {count} of {counted(every, 'run')}"
