"""From a bootstrap distribution to an interval and a p-value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from benchmarks.significance import equality
from benchmarks.significance.bootstrap import Resampled


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval at `level`, NaN where it is undefined. method: how it was made."""

    low: float
    high: float
    level: float
    method: Literal["percentile", "expanded percentile", "BCa", "normal", "t"]

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends; None where one is undefined."""
        return None if np.isnan([self.low, self.high]).any() else (self.low, self.high)


@dataclass(frozen=True)
class Estimate:
    """A statistic, or a difference of two, with what resampling says about it.

    standard_error: standard deviation over resamples. percentile: expanded where pairs or seeds were resampled, which
    are few. bca: None for differences and where seeds were resampled. p_value: two-sided, of no difference; None for
    single values. undefined: resamples that left the statistic undefined and were passed over.
    """

    value: float
    standard_error: float
    percentile: Interval
    bca: Interval | None
    p_value: float | None
    undefined: int


def estimate(resampled: Resampled, level: float = 0.95) -> Mapping[str, Estimate]:
    """Return each statistic with its percentile and, unless seeds were resampled too, its BCa interval."""
    return {name: _estimate(resampled, row, level, single=True) for row, name in enumerate(resampled.statistics)}


def difference(resampled: Resampled, level: float = 0.95) -> Mapping[str, Estimate]:
    """Return each difference (`first - second`, resampled together) with its percentile interval and p-value."""
    return {name: _estimate(resampled, row, level, single=False) for row, name in enumerate(resampled.statistics)}


def _estimate(resampled: Resampled, row: int, level: float, *, single: bool) -> Estimate:
    value, values = float(resampled.estimate[row]), resampled.resamples[row]
    known = values[~np.isnan(values)] if not np.isnan(value) else values[:0]
    freedom = resampled.degrees_of_freedom(row)
    bca = None
    if single and not resampled.seed_parts:
        left_out, is_seen = resampled.leave_one_out[row], resampled.units.is_seen
        bca = bca_interval(value, known, left_out, is_seen, level, freedom)
    return Estimate(
        value=value,
        standard_error=float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        percentile=percentile_interval(known, level, freedom),
        bca=bca,
        p_value=None if single else bootstrap_p_value(known, freedom),
        undefined=int(np.isnan(values).sum()),
    )


def percentile_interval(resamples: np.ndarray, level: float = 0.95, freedom: float = np.inf) -> Interval:
    """Return the interval between two quantiles of the resampled values float64 [B].

    The quantiles are (1 - level) / 2 and (1 + level) / 2 if the variance is as good as known, else further out by as
    much as Student's t with `freedom` degrees of freedom lies outside the normal distribution (Hesterberg, What
    teachers should know about the bootstrap, The American Statistician 69, 2015: the expanded percentile interval).
    No quantile lies outside the resamples: with two degrees of freedom it would take more than a hundred thousand.
    """
    method: Literal["percentile", "expanded percentile"] = "percentile" if np.isinf(freedom) else "expanded percentile"
    if len(resamples) == 0:
        return Interval(np.nan, np.nan, level, method)
    low, high = np.quantile(resamples, ndtr(_quantiles(level, freedom)))
    return Interval(float(low), float(high), level, method)


def _quantiles(level: float, freedom: float) -> np.ndarray:
    """The two-sided quantiles of Student's t, of the normal distribution for infinite degrees of freedom."""
    tail = (1 - level) / 2
    reach = float(ndtri(tail) if np.isinf(freedom) else stdtrit(freedom, tail))
    return np.array([reach, -reach])


def bca_interval(
    value: float,
    resamples: np.ndarray,
    leave_one_out: np.ndarray,
    is_seen: np.ndarray,
    level: float = 0.95,
    freedom: float = np.inf,
) -> Interval:
    """Return the bias-corrected and accelerated interval (Efron, Better bootstrap confidence intervals, JASA 82, 1987).

    value: the estimate. resamples: float64 [B]. leave_one_out: float64 [M], the statistic without each unit, and
    is_seen: bool [M], the two groups that are resampled apart. The bias z0 = Phi^-1(share of resamples below the
    estimate, those at it half) shifts the quantiles, which a maximum such as best HM needs; the acceleration a =
    sum U^3 / n^3 / (6 (sum U^2 / n^2)^(3/2)) bends them, U the jackknife influences (n - 1) (mean - value without a
    unit) within a group of n units. With finite `freedom` it is expanded as the percentile interval is.
    """
    if len(resamples) == 0:
        return Interval(np.nan, np.nan, level, "BCa")
    above = equality.signed(resamples - value)
    share = np.mean(above < 0) + np.mean(above == 0) / 2
    # An estimate beyond all resamples would ask for a quantile beyond them; half a resample is the nearest there is.
    bias = ndtri(np.clip(share, 0.5 / len(resamples), 1 - 0.5 / len(resamples)))
    acceleration = _acceleration([leave_one_out[is_seen], leave_one_out[~is_seen]])
    shifted = bias + _quantiles(level, freedom)
    bend = 1 - acceleration * shifted
    target = np.where(bend > 0, bias + shifted / np.where(bend > 0, bend, 1), np.copysign(np.inf, shifted))
    low, high = np.quantile(resamples, ndtr(target))
    return Interval(float(low), float(high), level, "BCa")


def _acceleration(groups: list[np.ndarray]) -> float:
    cubes = squares = 0.0
    for values in groups:
        values = values[~np.isnan(values)]
        if len(values) < 2:
            continue
        influence = (values.mean() - values) * (len(values) - 1) / len(values)
        cubes += float((influence**3).sum())
        squares += float((influence**2).sum())
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0


def bootstrap_p_value(resamples: np.ndarray, freedom: float = np.inf) -> float:
    """Return the two-sided p-value of no difference from resampled differences float64 [B]; NaN of nothing.

    Twice the smaller share of resamples at or beyond 0, with 1 added to numerator and denominator so that it is never
    0: the smallest level at which the percentile interval excludes 0. What is 0 but for rounding is 0 (`equality`).
    With finite `freedom` it is enlarged as that interval is: the same distance from 0 in standard errors, judged by
    Student's t. At most 1.
    """
    if len(resamples) == 0:
        return np.nan
    slack = equality.slack(resamples)
    beyond = min(int((resamples <= slack).sum()), int((resamples >= -slack).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (len(resamples) + 1))
    return p_value if np.isinf(freedom) else float(2 * stdtr(freedom, ndtri(p_value / 2)))
