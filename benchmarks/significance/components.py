"""What a seed is worth: the variance of a method's AUC by its sources, and the seeds that a claim needs.

A run's AUC varies with the training seed s and with the test images I that happened to be taken:

    AUC(s, I) = mean + seed(s) + images(I) + interaction(s, I)

the random-effects model of multi-reader multi-case studies, with seeds for readers and images for cases (Obuchowski and
Rockette, Communications in Statistics 24, 1995; Gallas, Academic Radiology 13, 2006). The parts are estimated from one
set of images and a few seeds. The AUC is linear in images but for terms of second order, so the covariance of seeds'
AUCs under sampling of images follows from their placements (`closed_form`): C = cov(V) / N_U + cov(W) / N_S, a matrix
[seeds, seeds]. Then

    images        = mean of C off its diagonal          what a set of images does to all seeds alike
    interaction   = mean of C's diagonal - images       what it does to one seed and not to another
    seed          = variance over seeds - interaction   on one set of images interaction looks like seed

each set to 0 where it comes out negative. Where the same seed was trained again with nothing changed but rounding,

    rounding      = pooled variance inside a seed

is taken out of the seed's part in the same way: a seed's run is one draw of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from benchmarks.evaluation.curve import auc_placements
from benchmarks.significance import equality
from benchmarks.significance.bootstrap import Resampled
from benchmarks.significance.runs import ScoredRun
from datasets.streams import stream

MOST_SEEDS = 1000
"""More than that nobody runs."""


@dataclass(frozen=True)
class Components:
    """Variances of one run's AUC, or of the difference of two methods' runs of one seed on the same images.

    All but rounding are NaN where a group has fewer than two images.

    rounding: None where no seed was trained again.
    seeds: how many there were; the seed's part is known with one degree of freedom less.
    observed: the variance over seeds on these images, all that a table's ± shows.
    """

    seed: float
    images: float
    interaction: float
    rounding: float | None
    seeds: int
    observed: float

    @property
    def of_a_run(self) -> float:
        """The variance of a single run with images of its own."""
        return self.seed + self.images + self.interaction + (self.rounding or 0.0)

    def of_a_mean(self, seeds: int) -> float:
        """The variance of the mean of so many seeds on one set of images."""
        return self.images + (self.of_a_run - self.images) / seeds


def components(runs: Sequence[ScoredRun], rounding: float | None = None) -> Components:
    """Return the components of a method's AUC from its runs, one per seed, on the same images. ValueError for one run.

    rounding: variance of a run's AUC through rounding, from `pooled_variance`.
    """
    return _components([auc_placements(run.scores) for run in runs], rounding)


def difference_components(
    first: Sequence[ScoredRun], second: Sequence[ScoredRun], rounding: float | None = None
) -> Components:
    """Return the components of the AUC's difference of two methods, paired by place: the same seeds in the same order.

    rounding: the sum of both methods' variances.
    """
    ours, theirs = ([auc_placements(run.scores) for run in runs] for runs in (first, second))
    pairs = zip(ours, theirs, strict=True)
    return _components([(one[0] - other[0], one[1] - other[1]) for one, other in pairs], rounding)


def _components(placements: Sequence[tuple[np.ndarray, np.ndarray]], rounding: float | None) -> Components:
    count = len(placements)
    if count < 2:
        raise ValueError(f"{count} run tells nothing of how runs vary")
    groups = [np.stack(values) for values in zip(*placements, strict=True)]  # unseen and seen, [seeds, images]
    if min(group.shape[1] for group in groups) < 2:
        return Components(np.nan, np.nan, np.nan, rounding, count, np.nan)  # no variance, which is not one of 0
    # Both means are the AUC, see `closed_form`.
    values = np.mean([group.mean(axis=1) for group in groups], axis=0)
    covariance = np.sum([np.cov(group) / group.shape[1] for group in groups], axis=0)
    images = float(covariance[~np.eye(count, dtype=bool)].mean())
    interaction = max(0.0, float(np.diag(covariance).mean()) - max(0.0, images))
    observed = float(values.var(ddof=1))
    rest = max(0.0, observed - interaction)
    within = None if rounding is None else min(rounding, rest)
    return Components(rest - (within or 0.0), max(0.0, images), interaction, rounding, count, observed)


def pooled_variance(repeats: Mapping[int, Sequence[float]]) -> float | None:
    """Return the variance inside a seed, from values by seed, pooled by degrees of freedom; None without repeats."""
    several = [np.asarray(values, dtype=np.float64) for values in repeats.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    return sum(float(((values - values.mean()) ** 2).sum()) for values in several) / freedom if freedom else None


def seeds_needed(
    found: Components,
    effect: float = 0.01,
    *,
    power: float = 0.8,
    level: float = 0.95,
    other_images: bool = True,
) -> int | None:
    """Return how many seeds show a difference of `effect` with such power in a two-sided test at 1 - level.

    found: of the difference of two methods on the same seeds.
    other_images: whether the claim is to hold for other images of the kind; else for the test images as they are, with
        the t test over seeds.

    None where no number of seeds up to `MOST_SEEDS` suffices: the images alone vary too much. ValueError where the
    components are not known.
    """
    if np.isnan(found.of_a_run):
        raise ValueError("components that are not known tell nothing of the seeds that a claim needs")
    by_seed = found.of_a_run - found.images
    by_images = found.images if other_images else 0.0
    for seeds in range(2, MOST_SEEDS + 1):
        variance = by_images + by_seed / seeds
        if variance == 0 or _power(effect, variance, by_seed / seeds, seeds - 1, level) >= power:
            return seeds
    return None


def _power(effect: float, variance: float, by_seed: float, freedom: int, level: float) -> float:
    """The power of a t test whose variance is known in part, with Satterthwaite's degrees of freedom."""
    known = min(freedom * (variance / by_seed) ** 2, 1e6) if by_seed > 0 else 1e6
    edge, shift = float(student.ppf((1 + level) / 2, known)), effect / np.sqrt(variance)
    return float(nct.sf(edge, known, shift) + nct.cdf(-edge, known, shift))


def winner_shares(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return how often each method would have the largest value if one seed of each were run, on these images.

    Every choice of one run for each method is counted, exactly; equal values (`equality`) share.
    """
    names = list(values)
    ends = np.cumsum([len(values[name]) for name in names])[:-1]
    same = np.split(equality.settled(np.concatenate([np.asarray(values[name]) for name in names])), ends)
    values = dict(zip(names, (own.tolist() for own in same), strict=True))
    shares = dict.fromkeys(names, 0.0)
    levels = sorted({value for own in values.values() for value in own})
    for level in levels:
        at = np.array([np.mean(np.asarray(values[name]) == level) for name in names])
        below = np.array([np.mean(np.asarray(values[name]) < level) for name in names])
        # The chance that this level is the largest, split among those at it: a sum over how many of the others tie.
        for place, name in enumerate(names):
            if at[place] > 0:
                ties = np.array([1.0])  # the distribution of the number of others at the level, none above it
                for other in range(len(names)):
                    if other != place:
                        ties = np.convolve(ties, [below[other], at[other]])
                shares[name] += float(at[place] * (ties / np.arange(1, len(ties) + 1)).sum())
    return shares


def winner_shares_elsewhere(
    runs: Mapping[str, Sequence[Resampled]], *, row: int = 0, seed: int = 0
) -> dict[str, float]:
    """Return the same for other images of the kind: each resample of the images draws one seed of each method.

    runs: resampled statistics by method, all of the same resamples. row: which statistic.
    """
    drawn = []
    for name, own in runs.items():
        values = np.stack([run.resamples[row] for run in own])  # [seeds, B]
        picks = stream("significance", seed, "one seed", name).integers(0, len(own), size=values.shape[1])
        drawn.append(values[picks, np.arange(values.shape[1])])
    every = np.stack(drawn)
    every = every[:, ~np.isnan(every).all(axis=0)]  # a resample that defines none has no winner
    best = every >= np.nanmax(every, axis=0) - equality.slack(every)
    shares = np.nanmean(best / best.sum(axis=0), axis=1)
    return dict(zip(runs, shares.tolist(), strict=True))
