"""Why a number of a table is not there: groups without images, and what chose the epoch in place of the rule wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.evaluation.empty_groups import BY_NOTHING, BY_UNSEEN, GAP
from benchmarks.evaluation.selection import NAMES
from benchmarks.runs.records import RunRecord
from errors import counted

FIELDS = {
    "AUC": "auc",
    "HM": "best_hm",
    "S": "best_seen",
    "U": "best_unseen",
    "cap": "unseen_cap",
    "G": "gate",
    "HM@val": "at_bias.hm",
    "state": "at_zero.state",
    "object": "at_zero.object",
}
"""The columns of numbers of the test split, and what they are called in a record."""

COLUMNS = tuple(name for name in FIELDS if name != "cap")
"""Those that every table of results has."""


def policy(run: RunRecord) -> str:
    """Return by what a finished run's epoch was chosen, or a run is to choose it."""
    chosen_by = None if run.result is None else run.result.selection.chosen_by
    return chosen_by or run.spec.training.selection


def undefined_notes(runs: Sequence[RunRecord], columns: Sequence[str] = COLUMNS) -> list[str]:
    """Return a sentence for each reason for which numbers of finished runs are missing, or were chosen otherwise.

    columns: those that the table shows; the others' gaps need no reason.
    """
    done = [run for run in runs if run.result is not None]
    return [*_missing(done, columns), *_epochs(done), *_thresholds(done)]


def _missing(done: Sequence[RunRecord], columns: Sequence[str]) -> list[str]:
    of_columns: dict[tuple[str, str], list[str]] = {}  # by column and reason the runs
    for run in done:
        undefined = run.finished.metrics.test.undefined
        for column in (name for name in FIELDS if name in columns):
            if reason := undefined.get(FIELDS[column]):
                of_columns.setdefault((column, reason), []).append(run.run_id)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (column, reason), ids in of_columns.items():
        together.setdefault((reason, tuple(ids)), []).append(column)
    return [
        f"{GAP} of {', '.join(names)}{_of_runs(len(ids), len(done))}: {_on_test(reason)}."
        for (reason, ids), names in together.items()
    ]


def _epochs(done: Sequence[RunRecord]) -> list[str]:
    trained = [run for run in done if run.spec.training.epochs > 0]
    counts = Counter(
        (NAMES[selection.chosen_by], run.spec.training.selection, selection.reason)
        for run in trained
        if (selection := run.finished.selection).chosen_by is not None
    )
    return [
        f"The epoch was chosen by {by}{_of_runs(count, len(trained))}, not by {wanted}: {reason}."
        for (by, wanted, reason), count in counts.items()
    ]


def _thresholds(done: Sequence[RunRecord]) -> list[str]:
    counts = Counter(world.chosen_by for run in done if (world := run.finished.open_world) is not None)
    return [
        f"The threshold of the open world was chosen by {by}{_of_runs(counts[by], len(done))}: validation defines no "
        "AUC."
        for by in (BY_UNSEEN, BY_NOTHING)
        if counts[by]
    ]


def _on_test(reason: str) -> str:
    return f"in test {reason}" if reason.startswith("there are no") else reason


def _of_runs(count: int, every: int) -> str:
    return "" if count == every else f" in {count} of {counted(every, 'run')}"
