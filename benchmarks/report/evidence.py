"""What per-image records add to a table: intervals, differences to a baseline and whether they are real.

A record whose per-image arrays are missing, old or damaged leaves a gap with its reason; the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.groups import Row
from errors import UserError, did_you_mean

if TYPE_CHECKING:
    from benchmarks.significance import Comparison, Difference, Estimate, Resampling, ScoredRun

BASELINE = "csp"
"""The method that others are compared with unless another is asked for: the simplest that learns states and objects."""

TESTED = "auc"
"""The statistic whose differences are tested and marked; a single one keeps Holm's family small."""

SHOWN = (TESTED, "best_hm")
"""The statistics that get intervals."""


@dataclass(frozen=True)
class Question:
    """What a report is asked about chance.

    baseline: a method's name or a row's label; None for `BASELINE`, or the first row where that was not run. resamples:
    of the bootstrap, 0 for no intervals and tests. level: of intervals; differences are tested at 1 - level. topk: the
    numbers k for which a table of top-k numbers is asked for. rounding: by method and statistic, the standard deviation
    that rounding alone gives a run, below which no spread over seeds is believed.
    """

    baseline: str | None = None
    resamples: int = 10_000
    level: float = 0.95
    topk: tuple[int, ...] = ()
    rounding: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def resampling(self, rows: Iterable[Row]) -> Resampling:
        """Return how chance is drawn for a comparison of some rows, by their labels."""
        from benchmarks.significance import Resampling

        floors = {row.label: self.rounding[row.method] for row in rows if row.method in self.rounding}
        return Resampling(self.resamples, self.level, rounding=floors)

    def mark(self, adjusted_p: float) -> str:
        """Return "*" for a difference that is significant after Holm's adjustment."""
        return "*" if adjusted_p <= 1 - self.level + 1e-12 else ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Intervals and differences of the rows of one table, by their labels.

    reasons: why a row has none, by label; "" is every row.
    """

    question: Question
    comparison: Comparison | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def interval(self, label: str, statistic: str) -> tuple[float, float] | None:
        """Return the interval of a row's mean; None where there is none."""
        if self.comparison is None or label not in self.comparison.methods:
            return None
        sources = self.comparison.methods[label].statistics[statistic].sources
        return bounds(sources.get("seeds and images") or sources["images"])

    def difference(self, label: str, statistic: str = TESTED) -> Difference | None:
        """Return a row's difference to the baseline; None where there is none."""
        if self.comparison is None or label not in self.comparison.methods:
            return None
        return self.comparison.methods[label].statistics[statistic].difference

    def mark(self, label: str) -> str:
        """Return "*" where a row's `TESTED` statistic differs from the baseline's."""
        found = self.difference(label)
        return "" if found is None else self.question.mark(found.adjusted_p)

    def discordant(self, label: str) -> float | None:
        """Return the share of test images that only one of row and baseline gets right, mean over seeds (McNemar)."""
        if self.comparison is None or label not in self.comparison.methods:
            return None
        tests = self.comparison.methods[label].mcnemar
        return float(np.mean([test["all"].discordant for test in tests.values()])) if tests else None

    @property
    def over_images_alone(self) -> list[str]:
        """Labels of the rows whose interval leaves seeds out, because they have one run."""
        found = () if self.comparison is None else self.comparison.methods.values()
        return [method.name for method in found if "seeds and images" not in method.statistics[TESTED].sources]

    @property
    def notes(self) -> list[str]:
        """A line for each row that has no interval, with the reason."""
        return [f"No interval{f' of {label}' if label else 's'}: {reason}" for label, reason in self.reasons.items()]


def bounds(estimate: Estimate) -> tuple[float, float] | None:
    """Return an estimate's interval, BCa where there is one because the best HM is a maximum; None if undefined."""
    return (estimate.bca or estimate.percentile).ends


def choose_baseline(rows: Sequence[Row], question: Question) -> Row | None:
    """Return the row to compare with, one with results; None if the one that was asked for is not here."""
    done = [row for row in rows if row.done]
    if question.baseline is None:
        return next((row for row in done if row.method == BASELINE), done[0] if done else None)
    wanted = question.baseline.casefold()
    named = [row for row in done if row.label.casefold() == wanted]
    return next(iter(named or [row for row in done if row.method.casefold() == wanted]), None)


def check_baseline(rows: Iterable[Row], question: Question) -> None:
    """Refuse a baseline that none of the rows is, as a `UserError`."""
    rows = list(rows)
    if question.baseline is None or choose_baseline(rows, question) is not None:
        return
    known = list(dict.fromkeys(row.method for row in rows if row.done))
    raise UserError(
        f"The baseline '{question.baseline}' has no finished run here.",
        f"There are {', '.join(known) or 'none'}.",
        did_you_mean(question.baseline, known) or "Choose one of these.",
    )


def evidence(
    rows: Sequence[Row], baseline: Row | None, question: Question, statistics: Sequence[str] = SHOWN
) -> Evidence:
    """Return intervals and differences of the rows that have runs; what is missing is a reason, not an error."""
    if question.resamples == 0:
        return Evidence(question, None, {"": "no resamples were asked for."})
    # Here, because scipy takes its time and most commands do not need it.
    from benchmarks.significance import compare

    runs: dict[str, list[ScoredRun]] = {}
    reasons: dict[str, str] = {}
    for row in (row for row in rows if row.done):
        try:
            runs[row.label] = _scored(row, runs)
        except UserError as error:
            reasons[row.label] = _without_folders(str(error), row)
    if not runs:
        return Evidence(question, None, reasons)
    against = baseline.label if baseline is not None and baseline.label in runs and len(runs) > 1 else None
    found = compare(runs, against, statistics, tested=(TESTED,), resampling=question.resampling(rows))
    return Evidence(question, found, reasons)


def _without_folders(reason: str, row: Row) -> str:
    """Return a reason with the names of run folders in place of their paths: a table may be read elsewhere."""
    for run in row.done:
        reason = reason.replace(str(run.path), run.path.name)
    return reason


def _scored(row: Row, others: Mapping[str, Sequence[ScoredRun]]) -> list[ScoredRun]:
    """Read a row's runs; a `UserError` if they cannot be read or are of other images than the rows before."""
    from benchmarks.report.scored_runs import scored_runs
    from benchmarks.significance import check_same_images

    own = scored_runs({row.label: row.done})[row.label]
    first = [(f"{label}, seed {runs[0].seed},", runs[0]) for label, runs in others.items()][:1]
    check_same_images([*first, (f"{row.label}, seed {own[0].seed},", own[0])])
    return own
