"""Paired tests of two trained models on the same images (McNemar) and of two methods over the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.significance import equality
from benchmarks.significance.intervals import Interval
from benchmarks.significance.runs import ScoredRun
from datasets.streams import stream

EXACT_RUNS = 16
"""Up to so many pairs of runs all sign flips are tried, 2^16; beyond, as many are drawn."""


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two models gets right, and how likely so uneven a split is between equals.

    first_only, second_only: the discordant images. discordant: their share of all `images`. p_value: exact, two-sided;
    1 without discordant images. accuracy_difference: (first_only - second_only) / images.
    """

    images: int
    first_only: int
    second_only: int
    discordant: float
    accuracy_difference: float
    p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compare two models' right answers, bool [N] each, by the exact binomial test of the discordant images.

    McNemar, Note on the sampling error of the difference between correlated proportions or percentages, Psychometrika
    12, 1947.
    """
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    images, discordant = len(first), first_only + second_only
    return McNemar(
        images,
        first_only,
        second_only,
        discordant / images if images else np.nan,
        (first_only - second_only) / images if images else np.nan,
        float(binomtest(first_only, discordant).pvalue) if discordant else 1.0,
    )


def predictions(scores: ImageScores, bias: float) -> np.ndarray:
    """Return the predicted column of each image at a bias, int64 [N], -1 for none.

    A tie inside a group gives its first column, a tie between the groups the seen one. A group without a candidate
    never wins, whatever the bias; a bias of NaN gives the seen column where there is one.
    """
    unseen = (scores.margins < bias) | (scores.seen_winner < 0)
    return np.where(unseen & (scores.unseen_winner >= 0), scores.unseen_winner, scores.seen_winner)


def right_at_own_bias(run: ScoredRun) -> np.ndarray:
    """Return which images' predicted pair is the true one at the run's validation bias, bool [N]."""
    if np.isnan(run.bias):
        raise ValueError("the run has no bias from validation")
    return (run.scores.true_column >= 0) & (predictions(run.scores, run.bias) == run.scores.true_column)


def mcnemar_by_group(first: ScoredRun, second: ScoredRun) -> Mapping[str, McNemar]:
    """Return McNemar's test for "seen", "unseen" and "all" images, each model at its own validation bias.

    One bias trades seen images for unseen ones, so a difference in both groups with opposite signs is a matter of the
    bias, not of the model.
    """
    one, other, is_seen = right_at_own_bias(first), right_at_own_bias(second), first.scores.is_seen
    groups = {"seen": is_seen, "unseen": ~is_seen, "all": np.ones(len(is_seen), dtype=bool)}
    return {name: mcnemar(one[group], other[group]) for name, group in groups.items()}


@dataclass(frozen=True)
class SeedTest:
    """Two methods over r runs each, paired by seed: first - second.

    interval, t_p_value: Student's t with r - 1 degrees of freedom. flip_p_value: of the sign-flip permutation test with
    its number of `outcomes`; no p below `smallest_p` can come of it, whatever the data. effect_size: Cohen's d_z, mean
    difference / standard deviation of differences. improvement: the probability that a run of the first beats a run of
    the second, ties half. NaN: with one run all but the mean; where differences do not vary at all, what rests on
    their spread (equal runs have p-values of 1).
    """

    runs: int
    mean_difference: float
    standard_deviation: float
    interval: Interval
    t_p_value: float
    flip_p_value: float
    outcomes: int
    smallest_p: float
    effect_size: float
    improvement: float


def compare_over_seeds(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, least_spread: float = 0.0
) -> SeedTest:
    """Compare a statistic of two methods over the same seeds, float [r] each, in the same order of seeds.

    The test images are the same in all runs and count as given. References: Bouthillier et al., Accounting for
    variance in machine learning benchmarks, MLSys 2021; probability of improvement: Agarwal et al., Deep reinforcement
    learning at the edge of the statistical precipice, NeurIPS 2021. ValueError if the numbers of runs differ.

    least_spread: the standard deviation of differences that rounding alone makes. Interval, t test and effect size take
    it where the differences happen to vary less.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(f"runs of shapes {one.shape} and {other.shape} cannot be paired")
    # In order of size, so that the order of the seeds changes no bit of what follows.
    differences = np.sort(equality.differences(one, other))
    runs, mean = len(differences), float(differences.mean())
    interval = mean_over_seeds(differences, level, least_spread)
    spread = t_p_value = effect_size = np.nan
    if runs > 1 and np.ptp(differences) == 0 and least_spread <= equality.TOLERANCE:
        # Not through the mean, which rounds: what does not vary at all has no spread.
        spread, t_p_value = 0.0, 1.0 if differences[0] == 0 else np.nan
    elif runs > 1:
        spread = max(float(differences.std(ddof=1)), least_spread)
        effect_size = mean / spread
        t_p_value = float(2 * student.sf(abs(effect_size) * np.sqrt(runs), runs - 1))
    flip_p_value, outcomes, smallest = sign_flip(differences)
    one, other = equality.settled(np.stack([one, other]))
    wins = (one[:, None] > other) + 0.5 * (one[:, None] == other)
    return SeedTest(
        runs,
        mean,
        spread,
        interval,
        t_p_value,
        flip_p_value if runs > 1 else np.nan,
        outcomes,
        smallest,
        effect_size,
        np.nan if np.isnan(mean) else float(wins.mean()),
    )


def mean_over_seeds(values: Sequence[float] | np.ndarray, level: float = 0.95, least_spread: float = 0.0) -> Interval:
    """Return the t interval of a mean over r runs, r - 1 degrees of freedom; NaN with one run.

    least_spread: a standard deviation of the values that is known to be there, see `compare_over_seeds`.

    Runs that do not vary at all tell nothing about how runs vary: NaN too, unless all are 0.
    """
    values = np.sort(equality.settled(np.asarray(values, dtype=np.float64)))
    if len(values) < 2 or np.isnan(values).any():
        return Interval(np.nan, np.nan, level, "t")
    if np.ptp(values) == 0 and least_spread <= equality.TOLERANCE:
        edge = 0.0 if abs(values[0]) <= equality.TOLERANCE else np.nan
        return Interval(edge, edge, level, "t")
    spread = max(float(values.std(ddof=1)), least_spread)
    half = student.ppf((1 + level) / 2, len(values) - 1) * spread / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean() + half), level, "t")


def sign_flip(differences: np.ndarray) -> tuple[float, int, float]:
    """Return (two-sided p-value, number of outcomes, smallest p-value that can come of it) of differences float64 [r].

    Between equals each difference is as likely as its negative, so the sum is one of 2^r equally likely sums (Fisher,
    The design of experiments, 1935). Above `EXACT_RUNS` differences 2^16 of them are drawn from a named stream, and 1
    is added to numerator and denominator.
    """
    runs = len(differences)
    if np.isnan(differences).any():
        return np.nan, 0, np.nan
    differences = equality.signed(differences)
    signs = _signs(runs)
    sums = np.append(np.abs(signs @ differences), abs(differences.sum()))
    extreme = int((sums[:-1] >= sums[-1] - equality.slack(sums)).sum())
    if runs <= EXACT_RUNS:
        return extreme / len(signs), len(signs), min(1.0, 2 / len(signs))
    return (extreme + 1) / (len(signs) + 1), len(signs), 1 / (len(signs) + 1)


@lru_cache(maxsize=4)
def _signs(runs: int) -> np.ndarray:
    """All rows of r signs, float64 [2^r, r], or as many drawn ones as are allowed."""
    if runs <= EXACT_RUNS:
        return np.array(list(product((1.0, -1.0), repeat=runs)))
    return stream("significance", "sign flips", runs).choice([1.0, -1.0], size=(2**EXACT_RUNS, runs))
