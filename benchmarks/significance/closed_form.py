"""The AUC's standard error without resampling, for one method and for the difference of two on the same images.

DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating characteristic
curves, Biometrics 44, 1988; here with credits, since an image that is wrong in its own group adds no area
(docs/protocol.md, "Standard error").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from benchmarks.evaluation.curve import auc_placements, placement_error
from benchmarks.significance import equality
from benchmarks.significance.intervals import Interval
from benchmarks.significance.runs import ScoredRun


@dataclass(frozen=True)
class NormalEstimate:
    """A value with its standard error over test images, normal interval and, of a difference, two-sided p-value.

    NaN where a group has fewer than two images, and for the p-value also where the standard error is 0 but the
    difference is not: then there is nothing to judge it by.
    """

    value: float
    standard_error: float
    interval: Interval
    p_value: float | None


def auc_estimate(runs: Sequence[ScoredRun], level: float = 0.95) -> NormalEstimate:
    """Return the mean AUC of runs on the same images (the seeds of one method, or one run)."""
    value, error = _mean_and_error(*_mean_placements(runs))
    return NormalEstimate(value, error, _interval(value, error, level), None)


def auc_difference(first: Sequence[ScoredRun], second: Sequence[ScoredRun], level: float = 0.95) -> NormalEstimate:
    """Return the mean AUC of `first` less that of `second`, all on the same images; the seeds are taken as given."""
    (unseen, seen), (other_unseen, other_seen) = _mean_placements(first), _mean_placements(second)
    value, error = _mean_and_error(*(equality.signed(part) for part in (unseen - other_unseen, seen - other_seen)))
    p_value = 1.0 if value == error == 0 else np.nan
    if error > 0:
        p_value = float(2 * norm.sf(abs(value) / error))
    return NormalEstimate(value, error, _interval(value, error, level), p_value)


def _mean_placements(runs: Sequence[ScoredRun]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs of the shares of the unseen and of the seen images; the AUC is linear in them."""
    unseen, seen = zip(*(auc_placements(run.scores) for run in runs), strict=True)
    return np.mean(unseen, axis=0), np.mean(seen, axis=0)


def _mean_and_error(unseen: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    if len(unseen) == 0 or len(seen) == 0:
        return np.nan, np.nan
    # Both means are the AUC. Their average rounds alike for a difference and its negative.
    return float(unseen.mean() + seen.mean()) / 2, placement_error(unseen, seen)


def _interval(value: float, error: float, level: float) -> Interval:
    half = norm.ppf((1 + level) / 2) * error
    return Interval(float(value - half), float(value + half), level, "normal")
