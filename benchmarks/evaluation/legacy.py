"""The published 20-point sweep, for comparison with published tables only (docs/protocol.md, "Legacy sweep").

The official codes of CSP, DFSP, Troika and MSCI (and ExplainableML czsl) share one evaluator: single precision, biases
at every (n // 20)-th margin of the unseen images that can be right, shifted by epsilon, then one bias of +1000;
non-candidates at -10^10; a trapezoid through these points. This module computes the same numbers in its own way, taking
the first of equal maxima. `metrics.py` has the exact numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.evaluation.curve import harmonic_mean
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.runs.numbers import LegacyAccuracies, LegacyMetrics

EPSILON = np.float32(1e-4)
HUGE_BIAS = 1000.0
BINS = 20


def legacy_from_image_scores(scores: ImageScores, labels: Labels) -> LegacyMetrics:
    """Return the official numbers (k = 1) from the per-image record, without the matrix.

    Tests hold it against the same sweep of whole matrices, and that against the released evaluator. Single-precision
    sums with a bias are rounded as in the matrix, so the result is the same but for one case: two unseen candidates so
    near that adding the bias makes them equal, where the matrix takes the first column and the record the larger score
    (scores of tiny scale at +1000).
    """
    seen_first = scores.seen_winner < scores.unseen_winner

    def predict(bias: np.float32) -> np.ndarray:
        lifted = scores.best_unseen + bias
        seen_wins = (scores.best_seen > lifted) | ((scores.best_seen == lifted) & seen_first)
        return np.where(seen_wins, scores.seen_winner, scores.unseen_winner)[:, None]

    return sweep(predict, scores.is_seen, scores.best_seen, scores.true_score, labels)


def official_feasibility_mask(
    matrix: np.ndarray, feasibility: np.ndarray, seen: np.ndarray, threshold: float
) -> np.ndarray:
    """Return the scores after the official open-world "mask", float32 [N, P]: scores x ([f >= threshold] + [seen]).

    It is a product, not a mask: a removed pair scores 0, which wins over negative scores, and for a threshold of 0 or
    less the scores of seen pairs (stored feasibility 0) are doubled. The suite's own way is to remove the pair.
    """
    factor = (np.asarray(feasibility, np.float32) >= np.float32(threshold)).astype(np.float32) + seen
    return np.asarray(matrix, np.float32) * factor.astype(np.float32)


def _mean32(right: np.ndarray) -> float:
    """Mean of 0/1 values as single precision gives it; NaN of nothing."""
    return float(np.float32(right.sum()) / np.float32(len(right))) if len(right) else np.nan


def sweep(
    predict: Callable[[np.float32], np.ndarray],
    is_seen: np.ndarray,
    kth_seen: np.ndarray,
    true_score: np.ndarray,
    labels: Labels,
    huge_bias: float = HUGE_BIAS,
) -> LegacyMetrics:
    """Return the official numbers: `predict` returns the columns [N, k] predicted at a bias, -1 for none.

    An image is right if any of the k pairs is; likewise for its state and its object.
    """

    def right_at(bias: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        states, objects = zip(*(labels.agree(rank) for rank in predict(np.float32(bias)).T), strict=True)
        pairs = [state & obj for state, obj in zip(states, objects, strict=True)]
        return np.any(pairs, axis=0), np.any(states, axis=0), np.any(objects, axis=0)

    def accuracies(bias: float) -> LegacyAccuracies:
        pair, state, obj = right_at(bias)
        return LegacyAccuracies(
            float(bias), _mean32(pair), _mean32(state), _mean32(obj), _mean32(pair[is_seen]), _mean32(pair[~is_seen])
        )

    reachable = right_at(huge_bias)[0] & ~is_seen & np.isfinite(kth_seen)  # without seen pairs no bias is a margin
    margins = np.sort((kth_seen[reachable] - true_score[reachable]) - EPSILON)
    biases = margins[:: max(len(margins) // BINS, 1)]
    points = [accuracies(bias) for bias in biases]
    at_huge = accuracies(huge_bias)
    points.append(at_huge)
    seen, unseen = np.array([p.seen_pair for p in points]), np.array([p.unseen_pair for p in points])
    hm = harmonic_mean(seen, unseen)
    best = int(np.argmax(hm))
    return LegacyMetrics(
        auc=float((np.diff(unseen) * (seen[1:] + seen[:-1]) / 2).sum()),
        best_hm=float(hm.max()),
        best_seen=float(seen.max()),
        best_unseen=float(unseen.max()),
        best_hm_seen=points[best].seen_pair,
        best_hm_unseen=points[best].unseen_pair,
        best_hm_bias=points[best].bias,
        biases=biases.astype(np.float64),
        seen=seen,
        unseen=unseen,
        at_zero=accuracies(0.0),
        at_huge=at_huge,
    )
