"""Do rankings agree? Kendall's coefficient of concordance W of methods ranked by several judges, such as backbones.

Kendall and Babington Smith, The problem of m rankings, Annals of Mathematical Statistics 10, 1939; ties as in Kendall,
Rank correlation methods, 1948, chapter 6. With m judges, k methods, and R the sum of a method's ranks,

    W = 12 sum (R - mean R)^2 / (m^2 (k^3 - k) - m sum (t^3 - t)),

t being the sizes of ties. W is 1 where all judges rank alike, and 1 / m on average where they rank at random: with two
judges W = (1 + rho) / 2, rho being Spearman's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from scipy.stats import rankdata

from benchmarks.significance import equality
from benchmarks.significance.bootstrap import RESAMPLES, bootstrap, over_seeds
from benchmarks.significance.intervals import Interval, percentile_interval
from benchmarks.significance.reweighting import Units
from benchmarks.significance.runs import ScoredRun, check_same_images
from datasets.streams import derived_seed, stream

EXACT_ORDERS = 400_000
"""So many ways in which judges could have ranked are all tried; of more ways as many as `RESAMPLES` are drawn."""


@dataclass(frozen=True, eq=False)
class Concordance:
    """How far m judges agree in their ranks of k methods.

    ranks: float64 [m, k], 1 is best.
    w: Kendall's coefficient, NaN where a tie of all methods leaves it undefined.
    p_value: of a W at least as large where every judge ranks at random; NaN where W is undefined.
    orders: how many ways of ranking it was found from; exact: whether these are all there are.
    """

    ranks: np.ndarray
    w: float
    p_value: float
    orders: int
    exact: bool


def concordance(values: np.ndarray, *, seed: int = 0) -> Concordance:
    """Return how far judges agree, of float64 [m, k] (judges, methods), larger is better.

    seed: of the orders that are drawn where there are too many to try. ValueError for fewer than two judges or methods,
    or a gap.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"concordance needs two judges and two methods [m, k], not values of shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("concordance needs a value of every method from every judge")
    ranks = _ranks(values)
    w = float(_coefficients(ranks))
    if np.isnan(w):
        return Concordance(ranks, w, np.nan, 0, False)
    at_least, orders, exact = _orders_as_large(ranks, seed)
    p_value = at_least / orders if exact else (at_least + 1) / (orders + 1)
    return Concordance(ranks, w, p_value, orders, exact)


@dataclass(frozen=True, eq=False)
class ResampledConcordance:
    """Kendall's W with what test images and training seeds do to it.

    now: of the values as they are.
    interval: of W over resamples (percentiles); NaN where no resample defines it.
    first: how often each method is a judge's best, float64 [m, k], shares of the resamples; ties count in parts.
    over_images_alone: whether seeds were left out, because no method has two runs.
    undefined: resamples without a W, which were passed over.
    """

    now: Concordance
    interval: Interval
    first: np.ndarray
    over_images_alone: bool
    undefined: int


def resampled_concordance(
    runs: Sequence[Sequence[Sequence[ScoredRun]]],
    statistic: str = "auc",
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> ResampledConcordance:
    """Return Kendall's W of methods on several backbones, which judge them by means of runs, with its interval.

    runs: by backbone, then method, then training seed; all on the same test images. A resample draws test images once
    for all runs, and training seeds once for all methods of a backbone that have the same ones: what these share
    cancels in their ranks. The seeds of backbones are drawn apart. `UserError` for runs of other images.
    """
    every = [run for methods in runs for own in methods for run in own]
    check_same_images((f"run {place + 1},", run) for place, run in enumerate(every))
    drawn = iter(bootstrap(every, (statistic,), Units.images(every[0].scores), resamples=resamples, seed=seed))
    means = [
        [
            over_seeds(
                [next(drawn) for _ in own], [run.seed for run in own], seed=derived_seed(seed, "backbone", place)
            )
            for own in methods
        ]
        for place, methods in enumerate(runs)
    ]
    now = concordance(np.array([[mean.estimate[0] for mean in methods] for methods in means]), seed=seed)
    values = np.array([[mean.resamples[0] for mean in methods] for methods in means]).transpose(2, 0, 1)  # [B, m, k]
    known = values[~np.isnan(values).any(axis=(1, 2))]
    ranks = _ranks(known)
    coefficients = _coefficients(ranks)
    best = ranks == ranks.min(axis=2, keepdims=True)
    first = (best / best.sum(axis=2, keepdims=True)).mean(axis=0) if len(known) else np.full(values.shape[1:], np.nan)
    defined = coefficients[~np.isnan(coefficients)]
    alone = not any(len(own) > 1 for methods in runs for own in methods)
    interval = percentile_interval(defined, level)
    return ResampledConcordance(now, interval, first, alone, resamples - len(defined))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, 1 for the largest; values that `equality` takes to be equal share theirs."""
    gaps = np.diff(np.sort(values, axis=-1), axis=-1)
    near = (gaps <= 2 * equality.slack(values)).any(axis=-1)
    if near.any():  # the slow rule, where it could make a difference
        values = values.copy()
        values[near] = equality.settled(values[near], axis=-1)
    return rankdata(-values, axis=-1)


def _coefficients(ranks: np.ndarray) -> np.ndarray:
    """Return W of ranks [..., m, k], float64 [...]; NaN where every judge's methods are all tied."""
    judges, methods = ranks.shape[-2:]
    sums = ranks.sum(axis=-2)
    spread = ((sums - judges * (methods + 1) / 2) ** 2).sum(axis=-1)
    # The variance of a judge's ranks is (k^2 - 1) / 12 less what ties take, so this is the formula above.
    largest = judges * methods * ranks.var(axis=-1).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(largest > 0, spread / largest, np.nan)


def _orders_as_large(ranks: np.ndarray, seed: int) -> tuple[int, int, bool]:
    """Return (orders whose W is at least that of `ranks` [m, k], orders tried, whether these are all).

    Only the sum of squares changes with the order of each judge's ranks, so that is what is compared. The first judge's
    order may stand: all orders of all others are then equally likely.
    """
    judges, methods = ranks.shape
    own = float(_squares(ranks))
    slack = 1e-9 * max(1.0, own)
    if factorial(methods) <= EXACT_ORDERS and factorial(methods) ** (judges - 1) <= EXACT_ORDERS:
        every = np.array(list(permutations(range(methods))))  # [k!, k]
        sums = ranks[:1]
        for judge in ranks[1:]:
            sums = (sums[:, None] + judge[every][None]).reshape(-1, methods)
        return int((_squares(sums[:, None]) >= own - slack).sum()), len(sums), True
    rng = stream("significance", seed, "orders", judges, methods)
    drawn = rng.permuted(np.broadcast_to(ranks, (RESAMPLES, judges, methods)), axis=2)
    return int((_squares(drawn) >= own - slack).sum()), RESAMPLES, False


def _squares(ranks: np.ndarray) -> np.ndarray:
    """Return the sum over methods of the squared sums of ranks [..., m, k]."""
    return (ranks.sum(axis=-2) ** 2).sum(axis=-1)
