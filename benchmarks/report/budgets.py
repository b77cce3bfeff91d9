"""For how many epochs the methods of a table were trained, and what its reader must know of it.

The rule is in docs/protocol.md, "Budget": the same ceiling for every method, so large that none improves at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.runs.budgets import trained_short
from benchmarks.runs.records import RunRecord
from registry import METHODS


def ceilings(runs: Sequence[RunRecord]) -> dict[int, list[str]]:
    """Return the methods by the numbers of epochs that they were trained for at most.

    Weights and scores that were made elsewhere are left out.
    """
    titles = METHODS.titles()
    found: dict[int, dict[str, None]] = {}
    for run in runs:
        if (epochs := run.spec.training.epochs) > 0 and run.spec.external is None and run.spec.imported is None:
            found.setdefault(epochs, {})[titles.get(run.spec.method, run.spec.method)] = None
    return {epochs: list(names) for epochs, names in sorted(found.items())}


def epochs_text(runs: Sequence[RunRecord]) -> str:
    """Return the epochs for a caption, such as "12 epochs; ", with the methods where they differ.

    An empty text where nothing was trained.
    """
    found = ceilings(runs)
    if not found:
        return ""
    if len(found) == 1:
        (epochs,) = found
        return f"{epochs} epoch{'s' * (epochs > 1)}; "
    parts = [f"{epochs} ({', '.join(names)})" for epochs, names in found.items()]
    return f"epochs: {', '.join(parts)}; "


def budget_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Say that runs were trained briefly, or methods for different numbers of epochs: either makes no ranking."""
    short = [run for run in runs if trained_short(run)]
    if short:
        some = "" if len(short) == sum(run.spec.has_weights for run in runs) else f" of {len(short)} runs"
        return [
            f"Short training{some}, for a first look: this ranking is not the reference's (docs/results.md). "
            "--no-short trains by the reference's rule."
        ]
    if len(ceilings(runs)) > 1:
        return ["Not trained for the same number of epochs: differences between methods are differences of budget too."]
    return []
