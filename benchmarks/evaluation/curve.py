"""The exact seen/unseen curve: every operating point that a bias can reach, from one sort of the margins.

Pure numpy, no loop over biases (docs/protocol.md, "Exact sweep"). Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores

# Two harmonic means within this factor are the same number up to rounding; the smaller bias is then reported.
_SAME_HM = 1 - 1e-12


def harmonic_mean(seen: np.ndarray | float, unseen: np.ndarray | float) -> np.ndarray:
    """Return 2 S U / (S + U), 0 where both are 0, NaN where one is NaN."""
    total = np.add(seen, unseen)
    return np.where(total == 0, 0.0, 2 * np.multiply(seen, unseen) / np.where(total == 0, 1.0, total))


@dataclass(frozen=True)
class OperatingPoint:
    """One point of the curve: its accuracies, and the open interval of biases that give it with a bias inside."""

    seen: float
    unseen: float
    hm: float
    interval: tuple[float, float]
    bias: float


@dataclass(frozen=True, eq=False)
class Curve:
    """All operating points that a bias can reach, in order of rising bias.

    breakpoints: float64 [m], the distinct finite margins of images right in their own group. seen_right, unseen_right:
    float64 [m + 1], how many seen and unseen images are right between neighbouring breakpoints (expected number under
    random tie-breaking). seen_images, unseen_images: all images of each group.
    """

    breakpoints: np.ndarray
    seen_right: np.ndarray
    unseen_right: np.ndarray
    seen_images: int
    unseen_images: int

    @cached_property
    def seen(self) -> np.ndarray:
        """Accuracy on seen images at each operating point, [m + 1], non-increasing; NaN without seen images."""
        return self.seen_right / (self.seen_images or np.nan)

    @cached_property
    def unseen(self) -> np.ndarray:
        """Accuracy on unseen images at each operating point, [m + 1], non-decreasing; NaN without unseen images."""
        return self.unseen_right / (self.unseen_images or np.nan)

    @property
    def _area(self) -> float:
        """Pairs of one unseen and one seen image that are ordered rightly, ties counted half (in images squared)."""
        # A shared margin moves both accuracies at once: half of that rectangle lies below the diagonal, which is what
        # the trapezoid adds. Unseen images right at every bias stand at the left end, below the highest step.
        steps = np.diff(self.unseen_right) * (self.seen_right[1:] + self.seen_right[:-1]) / 2
        return float(self.unseen_right[0] * self.seen_right[0] + steps.sum())

    @property
    def auc(self) -> float:
        """Area under the curve, the integral of seen over unseen accuracy; NaN if a group is empty."""
        return float(self._area / ((self.seen_images * self.unseen_images) or np.nan))

    @property
    def gate(self) -> float:
        """G = AUC / (S U): how well one bias tells seen from unseen, an AUROC; NaN if S U = 0."""
        return float(self._area / ((self.seen_right[0] * self.unseen_right[-1]) or np.nan))

    def interval(self, point: int) -> tuple[float, float]:
        """Return the open interval of biases of an operating point; the outer ends are infinite."""
        edges = np.concatenate([[-np.inf], self.breakpoints, [np.inf]])
        return float(edges[point]), float(edges[point + 1])

    @cached_property
    def best_hm(self) -> OperatingPoint:
        """The point of the largest harmonic mean, the one at the smallest bias if several reach it."""
        hm = harmonic_mean(self.seen, self.unseen)
        if np.isnan(hm).any():
            return OperatingPoint(np.nan, np.nan, np.nan, (np.nan, np.nan), np.nan)
        point = int(np.argmax(hm >= hm.max() * _SAME_HM))
        lower, upper = self.interval(point)
        if np.isinf(lower) and np.isinf(upper):
            bias = 0.0
        elif np.isinf(lower):
            bias = upper - 1.0
        else:
            bias = lower + 1.0 if np.isinf(upper) else (lower + upper) / 2
        return OperatingPoint(
            float(self.seen[point]), float(self.unseen[point]), float(hm[point]), (lower, upper), bias
        )


def curve_from_margins(is_seen: np.ndarray, margins: np.ndarray, correct: np.ndarray) -> Curve:
    """Return the curve of N images: a seen one is right for biases below its margin, an unseen one above it.

    is_seen: bool [N]. margins: float64 [N]. correct: float64 [N], credit in the own group. ValueError if an image with
    credit has a margin that is NaN or would make it wrong at every bias.
    """
    right = correct > 0
    if np.isnan(margins[right]).any() or np.isinf(margins[right & (is_seen == (margins < 0))]).any():
        raise ValueError("an image that is right in its own group has a margin at which it can never be right")
    finite = right & np.isfinite(margins)
    breakpoints, position = np.unique(margins[finite], return_inverse=True)
    weight, seen = correct[finite], is_seen[finite]
    seen_steps = np.bincount(position[seen], weight[seen], len(breakpoints))
    unseen_steps = np.bincount(position[~seen], weight[~seen], len(breakpoints))
    return Curve(
        breakpoints=breakpoints,
        seen_right=correct[right & is_seen & ~finite].sum() + np.append(np.cumsum(seen_steps[::-1])[::-1], 0.0),
        unseen_right=correct[right & ~is_seen & ~finite].sum() + np.append(0.0, np.cumsum(unseen_steps)),
        seen_images=int(is_seen.sum()),
        unseen_images=int((~is_seen).sum()),
    )


def exact_curve(scores: ImageScores) -> Curve:
    """Return every operating point of the scores (docs/protocol.md, "Exact sweep"); one sort, O(N log N)."""
    return curve_from_margins(scores.is_seen, scores.margins, scores.correct)


def auc_placements(scores: ImageScores) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's share in the AUC: V of the unseen and W of the seen images, both in [0, 1], in image order.

    mean(V) = mean(W) = AUC, and var(V) / N_U + var(W) / N_S estimates its variance; for two methods on the same images
    use the differences (docs/protocol.md, "Standard error").
    """
    curve = exact_curve(scores)

    def placements(which: np.ndarray, accuracies: np.ndarray, always: float) -> np.ndarray:
        margins, correct = scores.margins[which], scores.correct[which]
        if len(curve.breakpoints) == 0:
            return correct * always
        # Wrong images have margins that are no breakpoints; their credit of 0 makes the looked-up value irrelevant.
        step = np.minimum(np.searchsorted(curve.breakpoints, margins), len(curve.breakpoints) - 1)
        return correct * np.where(np.isinf(margins), always, (accuracies[step] + accuracies[step + 1]) / 2)

    unseen = placements(~scores.is_seen, curve.seen, curve.seen[0])
    return unseen, placements(scores.is_seen, curve.unseen, curve.unseen[-1])


def placement_error(unseen: np.ndarray, seen: np.ndarray) -> float:
    """Return the AUC's standard error from `auc_placements`; NaN where a group has fewer than two images."""
    if len(unseen) < 2 or len(seen) < 2:
        return np.nan
    return float(np.sqrt(unseen.var(ddof=1) / len(unseen) + seen.var(ddof=1) / len(seen)))
