"""Methods over several data sets: Friedman's test on ranks, Nemenyi's critical difference, pairwise Wilcoxon tests.

Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006. A data set counts once: its closed
and open world, or several seeds, are not further data sets. Input is one value per data set and method (as a rule the
mean over seeds), larger is better, without gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import factorial, prod

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import rankdata, studentized_range

from benchmarks.significance import equality
from benchmarks.significance.multiple import holm
from benchmarks.significance.paired import sign_flip

FEW_DATASETS = 5
"""With fewer data sets than this, ranks describe and do not prove."""

LEVEL = 0.95
"""Of Nemenyi's critical difference."""


@dataclass(frozen=True, eq=False)
class Friedman:
    """Do k methods rank differently over N data sets?

    average_ranks: float64 [k], 1 is best. chi2: Friedman's statistic, corrected for ties. f_statistic, p_value: in the
    form of Iman and Davenport, degrees of freedom k - 1 and (k - 1)(N - 1). descriptive: N < 5, so that the numbers
    describe these data sets only; note: the same in a sentence, or "".
    """

    datasets: int
    methods: int
    average_ranks: np.ndarray
    chi2: float
    f_statistic: float
    p_value: float
    descriptive: bool
    note: str


def friedman(values: np.ndarray) -> Friedman:
    """Return Friedman's test of float64 [N, k] (data sets, methods).

    Iman and Davenport, Approximations of the critical region of the Friedman statistic, Communications in Statistics
    A9, 1980. If all data sets rank all methods alike, F is infinite and p is the exact probability of that, one in all
    the ways in which the other data sets could have ranked them. ValueError for fewer than two data sets or methods.
    """
    values = _table(values)
    datasets, methods = values.shape
    ranks = _ranks(values)
    average = ranks.mean(axis=0)
    spread = ((average - (methods + 1) / 2) ** 2).sum()
    # Without ties the variance of a data set's ranks is (k^2 - 1) / 12, and this is the textbook's formula.
    variance = ranks.var(axis=1).sum()
    chi2 = float(datasets**2 * (methods - 1) / methods * spread / variance) if variance > 0 else 0.0
    largest = datasets * (methods - 1)
    if largest - chi2 > 1e-9 * largest:
        f_statistic = (datasets - 1) * chi2 / (largest - chi2)
        p_value = float(f_distribution.sf(f_statistic, methods - 1, (methods - 1) * (datasets - 1)))
    else:
        tied = prod(factorial(count) for count in np.unique(ranks[0], return_counts=True)[1].tolist())
        f_statistic, p_value = np.inf, (tied / factorial(methods)) ** (datasets - 1)
    return Friedman(
        datasets, methods, average, chi2, float(f_statistic), p_value, datasets < FEW_DATASETS, _note(datasets)
    )


@dataclass(frozen=True, eq=False)
class Nemenyi:
    """Which methods differ in average rank: those further apart than the critical difference.

    average_ranks: float64 [k]. q: the studentised range's quantile over sqrt 2. p_values: float64 [k, k], adjusted for
    all pairs, 1 on the diagonal. groups: the largest sets of methods (by index, best first) that do not differ, as
    the bars of a critical-difference diagram. descriptive, note: as in `Friedman`.
    """

    average_ranks: np.ndarray
    q: float
    critical_difference: float
    p_values: np.ndarray
    groups: Sequence[tuple[int, ...]]
    descriptive: bool
    note: str


def nemenyi(values: np.ndarray) -> Nemenyi:
    """Return Nemenyi's test of float64 [N, k], meant for when Friedman's test rejects.

    CD = q sqrt(k (k + 1) / (6 N)). The outcome for two methods depends on the others in the pool (Benavoli, Corani and
    Mangili, Should we really use post-hoc tests based on mean-ranks?, JMLR 17, 2016): `pairwise_wilcoxon` does not.
    """
    import scikit_posthocs  # here, because it brings plotting along

    values = _table(values)
    datasets, methods = values.shape
    average = _ranks(values).mean(axis=0)
    q = _quantile(methods)
    critical = q * float(np.sqrt(methods * (methods + 1) / (6 * datasets)))
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(values).to_numpy(dtype=np.float64)
    groups = _groups(average, critical)
    return Nemenyi(average, q, critical, p_values, groups, datasets < FEW_DATASETS, _note(datasets))


@dataclass(frozen=True, eq=False)
class PairwiseWilcoxon:
    """All pairs of methods by the signed-rank test over data sets.

    p_values, adjusted: float64 [k, k], symmetric, 1 on the diagonal; adjusted by Holm over the k (k - 1) / 2 pairs.
    smallest_p: what N data sets can give at best, 2 / 2^N. descriptive: smallest_p is above 0.05, so that no pair can
    come out different at 5 %, whatever the data.
    """

    p_values: np.ndarray
    adjusted: np.ndarray
    smallest_p: float
    descriptive: bool


def pairwise_wilcoxon(values: np.ndarray) -> PairwiseWilcoxon:
    """Compare all pairs of methods in float64 [N, k] by the exact signed-rank test.

    Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945.
    """
    values = _table(values)
    datasets, methods = values.shape
    pairs = list(combinations(range(methods), 2))
    found = np.array([wilcoxon(values[:, one] - values[:, other]) for one, other in pairs])
    p_values, adjusted = np.ones((methods, methods)), np.ones((methods, methods))
    for (one, other), p, corrected in zip(pairs, found, holm(found), strict=True):
        p_values[one, other] = p_values[other, one] = p
        adjusted[one, other] = adjusted[other, one] = corrected
    smallest = min(1.0, 2.0 / 2**datasets)
    return PairwiseWilcoxon(p_values, adjusted, smallest, smallest > 0.05)


def wilcoxon(differences: np.ndarray) -> float:
    """Return the two-sided p-value of the signed-rank test of float64 [N].

    Zeros are dropped, ties share their ranks (both as `equality` has it), and all 2^N signs are tried, which is exact
    with ties too (for more than 16 differences as many signs are drawn, see `sign_flip`).
    """
    known = equality.signed(np.asarray(differences, dtype=np.float64))
    known = known[known != 0]
    if len(known) == 0:
        return 1.0
    return sign_flip(rankdata(np.abs(known)) * np.sign(known))[0]


@cache
def _quantile(methods: int) -> float:
    return float(studentized_range.ppf(LEVEL, methods, np.inf) / np.sqrt(2))


def _table(values: np.ndarray) -> np.ndarray:
    """Return the table as float64 [N, k], equal values of a data set equal to the last bit."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(
            f"ranks need at least two data sets and two methods [N, k], not a table of shape {values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("ranks need a value of every method on every data set")
    return equality.settled(values, axis=1)  # here, so that no test ranks what another takes to be equal


def _ranks(values: np.ndarray) -> np.ndarray:
    return rankdata(-values, axis=1)


def _groups(average: np.ndarray, critical: float) -> list[tuple[int, ...]]:
    order = np.argsort(average, kind="stable")
    groups: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = int(np.searchsorted(average[order], average[order[start]] + critical, side="left"))
        if end - start > 1 and end > reached:
            groups.append(tuple(order[start:end].tolist()))
            reached = end
    return groups


def _note(datasets: int) -> str:
    if datasets >= FEW_DATASETS:
        return ""
    return f"Descriptive: {datasets} data sets are too few to generalise from; {FEW_DATASETS} or more are needed."
