"""The headline numbers of one run as functions of image weights: a resample is a column of counts, not a new data set.

Weights change no score, so nothing is sorted twice. With the images that are right in their own group in order of their
margin, the seen-unseen curve is a walk: unseen images raise one accuracy, seen images lower the other. Every operating
point is dominated by a *corner*, the end of a stretch of unseen images before a stretch of seen ones, so the weights'
sums over stretches hold the whole curve: sums = rows @ weights with one sparse matrix of a few thousand rows. Best HM
is the largest over corners; the AUC adds up (weight of an unseen stretch) x (seen weight beyond it). Where seen and
unseen images share a margin, the seen ones come first in the order, which makes no false corner, and half of their
rectangle is added to the area: exactly the evaluator's diagonal step (docs/protocol.md, "Ties").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import sparse

from benchmarks.evaluation.curve import harmonic_mean
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import BiasAccuracies, pair_credit, primitive_credit
from benchmarks.significance.runs import ScoredRun
from errors import did_you_mean

_CURVE = ("auc", "best_hm", "best_seen", "best_unseen", "gate")
_KINDS = ("pair", "state", "object")
_AT_A_BIAS = tuple(item.name for item in fields(BiasAccuracies) if item.name != "bias")

STATISTICS = (*_CURVE, *(f"{bias}.{name}" for bias in ("at_zero", "at_bias") for name in _AT_A_BIAS))
"""Every statistic, by its name in `evaluation.Metrics`; "at_bias" is the bias chosen on validation."""

HEADLINE = (*_CURVE, "at_bias.hm", "at_zero.state", "at_zero.object")
"""What the main table shows."""


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn in a resample: sets of images that come or stay away together, each of one group.

    of_image: int64 [N], the unit of each image. is_seen: bool [M]. name: for people.
    """

    name: Literal["images", "pairs"]
    of_image: np.ndarray
    is_seen: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """Images of seen and unseen pairs in each unit, float64 [2, M]."""
        images = np.bincount(self.of_image, minlength=len(self.is_seen)).astype(np.float64)
        return np.stack([images * self.is_seen, images * ~self.is_seen])

    @classmethod
    def images(cls, scores: ImageScores) -> Units:
        """Every image for itself."""
        return cls("images", np.arange(len(scores)), scores.is_seen)

    @classmethod
    def pairs(cls, scores: ImageScores, labels: Labels) -> Units:
        """The images of one pair together, because they resemble each other; in order of (state, object)."""
        keys = np.stack([labels.states, labels.objects, scores.is_seen], axis=1)
        distinct, of_image = np.unique(keys, axis=0, return_inverse=True)
        return cls("pairs", of_image.reshape(-1), distinct[:, 2].astype(bool))  # numpy 2.0 alone returns a column


class Reweighting:
    """Chosen statistics of one run, for any weights on M units; ValueError for none or names not in `STATISTICS`."""

    def __init__(self, run: ScoredRun, statistics: Sequence[str], units: Units) -> None:
        if not statistics:
            raise ValueError("no statistic was asked for")
        for name in statistics:
            if name not in STATISTICS:
                raise ValueError(f"there is no statistic '{name}'. {did_you_mean(name, STATISTICS)}".strip())
        self.statistics, self.units = tuple(statistics), units
        self._bias = {"at_zero": 0.0, "at_bias": run.bias}
        self._corners = self._ties = 0
        self._place: dict[tuple[str, str], int] = {}  # (bias, kind) -> row of the seen sum; the unseen one follows
        entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # rows, images, values
        if set(statistics) & set(_CURVE):
            entries += self._curve_entries(run.scores)
        height = 2 * (self._corners + self._ties)
        group = (~run.scores.is_seen).astype(np.int64)
        for bias, kind in sorted({need for name in statistics for need in _needs(name)}):
            credit = _credit(run, kind, self._bias[bias])
            image = np.flatnonzero(credit)
            entries.append((height + group[image], image, credit[image]))
            self._place[bias, kind] = height
            height += 2
        row, image, value = (np.concatenate(part) for part in zip(*entries, strict=True))
        self._rows = sparse.csr_matrix((value, (row, units.of_image[image])), shape=(height, len(units.is_seen)))

    def _curve_entries(self, scores: ImageScores) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        right = np.flatnonzero(scores.correct > 0)
        order = right[np.lexsort((~scores.is_seen[right], scores.margins[right]))]
        seen, credit = scores.is_seen[order], scores.correct[order]
        corner = np.cumsum(np.append(False, seen[:-1] & ~seen[1:]))[: len(order)]
        self._corners = int(corner[-1]) + 1 if len(order) else 1
        _, level = np.unique(scores.margins[order], return_inverse=True)
        mixed = (np.bincount(level, seen) > 0) & (np.bincount(level, ~seen) > 0)
        self._ties = int(mixed.sum())
        tied = np.flatnonzero(mixed[level])
        tie = 2 * self._corners + (np.cumsum(mixed) - 1)[level[tied]] + self._ties * seen[tied]
        return [(corner + self._corners * seen, order, credit), (tie, order[tied], credit[tied])]

    def estimate(self) -> np.ndarray:
        """The statistics of the images as they are, float64 [s]."""
        return self.weighted(np.ones((len(self.units.is_seen), 1)))[:, 0]

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """The statistics under weights float64 [M, b] on the units, one column per resample; float64 [s, b]."""
        return self._values(self._rows @ weights, self.units.sizes @ weights)

    def leave_one_out(self, block: int = 64) -> np.ndarray:
        """The statistics without each unit in turn, float64 [s, M]."""
        total, images = np.asarray(self._rows.sum(axis=1)), self.units.sizes.sum(axis=1, keepdims=True)
        columns = self._rows.tocsc()
        parts = [
            self._values(
                total - columns[:, start : start + block].toarray(), images - self.units.sizes[:, start : start + block]
            )
            for start in range(0, len(self.units.is_seen), block)
        ]
        return np.concatenate([np.zeros((len(self.statistics), 0)), *parts], axis=1)

    def _values(self, sums: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The statistics from the sums over rows [R, b] and the numbers of seen and unseen images [2, b]."""
        found: dict[str, np.ndarray] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._corners:
                found |= self._curve_values(sums, images)
            for (bias, kind), row in self._place.items():
                right = sums[row : row + 2] if not np.isnan(self._bias[bias]) else np.full((2, sums.shape[1]), np.nan)
                found[f"{bias}.{kind}"] = right.sum(axis=0) / images.sum(axis=0)
                found[f"{bias}.seen_{kind}"], found[f"{bias}.unseen_{kind}"] = right / images
                if kind == "pair":
                    found[f"{bias}.hm"] = harmonic_mean(*(right / images))
        return np.stack([found[name] for name in self.statistics])

    def _curve_values(self, sums: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        unseen_steps, seen_steps = sums[: self._corners], sums[self._corners : 2 * self._corners]
        unseen_right = np.cumsum(unseen_steps, axis=0)
        seen_right = np.cumsum(seen_steps[::-1], axis=0)[::-1]
        tied = sums[2 * self._corners : 2 * (self._corners + self._ties)]
        halves = (tied[: self._ties] * tied[self._ties :]).sum(axis=0) / 2
        area = (unseen_steps * seen_right).sum(axis=0) + halves
        return {
            "auc": area / (images[0] * images[1]),
            "gate": area / (seen_right[0] * unseen_right[-1]),
            "best_seen": seen_right[0] / images[0],
            "best_unseen": unseen_right[-1] / images[1],
            "best_hm": harmonic_mean(seen_right / images[0], unseen_right / images[1]).max(axis=0),
        }


def _needs(statistic: str) -> list[tuple[str, str]]:
    """The (bias, kind) whose sums a statistic is made of."""
    bias, _, name = statistic.partition(".")
    if not name:
        return []
    return [(bias, "pair" if name == "hm" else name.removeprefix("un").removeprefix("seen_"))]


def _credit(run: ScoredRun, kind: str, bias: float) -> np.ndarray:
    if np.isnan(bias):
        return np.zeros(len(run))
    if kind == "pair":
        return pair_credit(run.scores, bias)
    return primitive_credit(run.scores, run.labels, bias)[_KINDS.index(kind) - 1]
