"""Paired bootstraps: over test images, over pairs (clusters) and over seeds, the same resamples for every run.

Efron and Tibshirani, An introduction to the bootstrap, 1993; Davison and Hinkley, Bootstrap methods and their
application, 1997, sections 3.8 (two levels) and 3.2 (strata). The numbers of seen and unseen images are constants of
the benchmark's design, so the two groups are resampled apart. Drawing is by named streams: the resamples depend on
`seed` and on the numbers of units alone, not on which or how many runs are compared, nor on the size of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.significance.reweighting import Reweighting, Units
from benchmarks.significance.runs import ScoredRun
from datasets.streams import stream

RESAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class Resampled:
    """Statistics of a run, or of a mean or difference of runs, with their bootstrap distribution.

    estimate: float64 [s], of the images as they are. resamples: float64 [s, B]; NaN where a resample leaves a statistic
    undefined. leave_one_out: float64 [s, M], without each unit in turn. units: what was drawn. seed_parts: for each set
    of resampled seeds the estimated variance of its mean, float64 [s], and its number of runs.
    """

    statistics: tuple[str, ...]
    estimate: np.ndarray
    resamples: np.ndarray
    leave_one_out: np.ndarray
    units: Units
    seed_parts: tuple[tuple[np.ndarray, int], ...] = ()

    def __sub__(self, other: Resampled) -> Resampled:
        """The difference, paired by resample and by unit."""
        return replace(
            self,
            estimate=self.estimate - other.estimate,
            resamples=self.resamples - other.resamples,
            leave_one_out=self.leave_one_out - other.leave_one_out,
            seed_parts=self.seed_parts + other.seed_parts,
        )

    def degrees_of_freedom(self, row: int) -> float:
        """How well the variance of a statistic is known (Satterthwaite, Biometrics Bulletin 2, 1946).

        n - 1 where n resampled seeds, or n pairs of one group, make all the variance, else in between and above;
        infinite where images alone are drawn, of which there are many.
        """
        parts = [(float(variance[row]), runs) for variance, runs in self.seed_parts]
        if self.units.name == "pairs":
            parts += [
                _jackknife_variance(self.leave_one_out[row][self.units.is_seen == seen]) for seen in (True, False)
            ]
        known = sum(variance**2 / (count - 1) for variance, count in parts if count > 1)
        if not known > 0:
            return np.inf
        # The mean of n drawn values varies by (n - 1) / n of what the mean of n values does; the rest is added.
        drawn = self.resamples[row][~np.isnan(self.resamples[row])]
        total = float(drawn.var()) + sum(variance / count for variance, count in parts if count > 1)
        # Less than the smallest part's is impossible, except by the luck of few resamples.
        return max(total**2 / known, min(count - 1 for variance, count in parts if variance > 0 and count > 1))


def _jackknife_variance(leave_one_out: np.ndarray) -> tuple[float, int]:
    """The variance that drawing these units gives a statistic, from its values without each of them; their number."""
    values = leave_one_out[~np.isnan(leave_one_out)]
    return (float(values.var()) * (len(values) - 1) if len(values) else 0.0), len(values)


def average(parts: Sequence[Resampled]) -> Resampled:
    """The mean over runs that share their resamples, as a rule the seeds of one method."""
    return replace(
        parts[0],
        estimate=np.mean([part.estimate for part in parts], axis=0),
        resamples=np.mean([part.resamples for part in parts], axis=0),
        leave_one_out=np.mean([part.leave_one_out for part in parts], axis=0),
    )


def over_seeds(
    parts: Sequence[Resampled], training_seeds: Sequence[int], *, seed: int = 0, least: np.ndarray | None = None
) -> Resampled:
    """Return the mean over runs with seeds as a second level: each resample draws r of the r runs, then images.

    parts: one per run, of the same image (or pair) resamples, so that all runs drawn share them; for two methods with
    the same seeds hand in the runs' differences. Runs with the same `training_seeds` get the same draws, whatever the
    method; a single run, which tells nothing of seeds, only its images'. Few runs know their variance badly, which
    `degrees_of_freedom` tells the intervals.

    least: float64 [s], the variance of one run that rounding alone makes. Runs that happen to vary less are not
    believed: normal noise of what is missing is added to their mean.
    """
    runs = len(parts)
    if runs == 1:
        return parts[0]
    rng = stream("significance", seed, "training seeds", *training_seeds)
    resamples = parts[0].resamples.shape[1]
    picks = rng.integers(0, runs, size=(resamples, runs))
    counts = np.stack([(picks == run).sum(axis=1) for run in range(runs)])
    estimates = np.stack([part.estimate for part in parts])
    # Not a matrix product: a run that is not drawn must not spread its undefined values.
    drawn = (np.where(count > 0, count * part.resamples, 0) for count, part in zip(counts, parts, strict=True))
    mean, variance = np.asarray(sum(drawn)) / runs, estimates.var(axis=0, ddof=1)
    if least is not None and (lacking := np.maximum(least - variance, 0)).any():
        # Of the variance of a mean, resampling r runs shows (r - 1) / r; the same share is added.
        noise = stream("significance", seed, "rounding", *training_seeds).standard_normal(mean.shape)
        mean = mean + noise * np.sqrt(lacking * (runs - 1))[:, None] / runs
        variance = variance + lacking
    return replace(average(parts), resamples=mean, seed_parts=((variance / runs, runs),))


def draws(is_seen: np.ndarray, resamples: int, *names: object, block: int | None = None) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, float64 [M, b] a block, b <= `block`, `resamples` columns in all.

    is_seen: bool [M]. As many units are drawn with replacement as there are, seen and unseen apart, each group from its
    own stream of `names`. block: by default what fits into a processor's cache; it changes no number.
    """
    if block is None:
        block = min(max(2**19 // max(len(is_seen), 1), 64), 1024)
    strata = [
        (np.flatnonzero(is_seen == seen), stream("significance", *names, "seen" if seen else "unseen"))
        for seen in (True, False)
    ]
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = np.zeros((len(is_seen), size))
        for units, rng in strata:
            if len(units) == 0:
                continue
            # Resamples are rows here, so that the stream is used up one resample after the other.
            picks = rng.integers(0, len(units), size=(size, len(units)))
            cells = picks * size + np.arange(size)[:, None]
            weights[units] = np.bincount(cells.ravel(), minlength=len(units) * size).reshape(len(units), size)
        yield weights


def bootstrap(
    runs: Sequence[ScoredRun],
    statistics: Sequence[str],
    units: Units,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    block: int | None = None,
) -> list[Resampled]:
    """Return the bootstrap distribution of the statistics of each run; all runs see the same resamples.

    Each resample's value equals `evaluation.evaluate` on the resampled images. The runs must be of the same images
    (`check_same_images`); `units` says what is drawn. At 13,000 images and 10,000 resamples the draws take about 2 s of
    one core and each run 0.8 s.
    """
    weighted = [Reweighting(run, statistics, units) for run in runs]
    blocks: list[list[np.ndarray]] = [[] for _ in runs]
    for weights in draws(units.is_seen, resamples, seed, units.name, block=block):
        for part, one in zip(blocks, weighted, strict=True):
            part.append(one.weighted(weights))
    return [
        Resampled(one.statistics, one.estimate(), np.concatenate(part, axis=1), one.leave_one_out(), units)
        for part, one in zip(blocks, weighted, strict=True)
    ]
