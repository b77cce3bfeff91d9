"""Pointwise bootstrap bands of seen-unseen curves: resampled curves from one order of the images, by weights.

A resample is a count per image. With the images that are right in their own group in order of their margin, running
sums of the counts give every operating point of the resampled curve, so nothing is sorted or scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.significance.bootstrap import draws

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Band:
    """A curve with its band: at each accuracy on unseen images `unseen` [G], the accuracy on seen images, all [G].

    seen: of the images as they are. low, high: ends of the pointwise interval. Fractions in [0, 1].
    """

    unseen: np.ndarray
    seen: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_band(runs: Sequence[ImageScores], grid: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Band:
    """Return the mean curve of a method's runs (seeds), on the same images, and its band over test images.

    grid: float64 [G], rising accuracies on unseen images. The runs share each resample, so that the band is of their
    mean. The resamples are those of `significance.bootstrap` with the same `seed`.
    """
    ones = np.ones((len(runs[0]), 1))
    seen = np.mean([resampled_seen(run, ones, grid)[:, 0] for run in runs], axis=0)
    values = np.concatenate(
        [
            np.mean([resampled_seen(run, weights, grid) for run in runs], axis=0)
            for weights in draws(runs[0].is_seen, resamples, seed, "images")
        ],
        axis=1,
    )
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return Band(grid, seen, low, high)


def resampled_seen(scores: ImageScores, weights: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the largest accuracy on seen images at which `grid` [G] is reached on unseen ones, float64 [G, b].

    weights: float64 [N, b], a count per image and resample. 0 where no bias reaches that accuracy.
    """
    order = np.flatnonzero(scores.correct > 0)
    order = order[np.argsort(scores.margins[order], kind="stable")]
    margins, is_seen = scores.margins[order], scores.is_seen[order]
    # Biases lie between distinct margins: a point of the curve follows the last image of each.
    last = np.flatnonzero(np.append(margins[1:] != margins[:-1], True)) if len(order) else np.zeros(0, dtype=np.int64)
    credit = scores.correct[order, None] * weights[order]
    passed = np.cumsum(np.where(is_seen[:, None], credit, 0), axis=0)[last]
    gained = np.cumsum(np.where(is_seen[:, None], 0, credit), axis=0)[last]
    none = np.zeros((1, weights.shape[1]))
    seen_images, unseen_images = weights[scores.is_seen].sum(axis=0), weights[~scores.is_seen].sum(axis=0)
    total = (credit * is_seen[:, None]).sum(axis=0)
    seen = (total - np.concatenate([none, passed])) / seen_images
    unseen = np.concatenate([none, gained]) / unseen_images
    seen = np.concatenate([seen, none])  # where an accuracy is never reached
    found = np.empty((len(grid), weights.shape[1]))
    for column in range(weights.shape[1]):
        first = np.searchsorted(unseen[:, column], grid - 1e-12, side="left")
        found[:, column] = seen[first, column]
    return found
