"""The published sweep of whole score matrices, as the official codes do it: what the suite's own is held against."""

from __future__ import annotations

import numpy as np

from benchmarks.evaluation.image_scores import Labels
from benchmarks.evaluation.legacy import HUGE_BIAS, sweep
from benchmarks.runs.numbers import LegacyMetrics

MASKED = np.float32(-1e10)


def legacy_sweep(
    matrix: np.ndarray,
    seen: np.ndarray,
    candidates: np.ndarray,
    labels: Labels,
    true_columns: np.ndarray,
    *,
    topk: int = 1,
    huge_bias: float = HUGE_BIAS,
) -> LegacyMetrics:
    """Return the official numbers of a full matrix [N, P] of finite scores, P being all pairs of the data set.

    seen: bool [P], training pairs. candidates: bool [P]; the rest is masked. true_columns: int64 [N], -1 if the pair
    has no column (the image then counts as unseen and is never right). With topk > 1 an image is right if any of the
    best `topk` pairs is; likewise for its state and its object.
    """
    scores = np.asarray(matrix, dtype=np.float32)
    movable = np.asarray(candidates, dtype=bool) & ~seen
    original = scores[:, movable]
    biased = np.where(candidates, scores, MASKED)

    def predict(bias: np.float32) -> np.ndarray:
        biased[:, movable] = original + bias
        if topk == 1:
            return biased.argmax(axis=1)[:, None]
        return np.argsort(-biased, axis=1, kind="stable")[:, :topk]

    has_column = true_columns >= 0
    is_seen = has_column & seen[true_columns]
    # All seen columns, and the k-th of them whatever the rank of the true pair: not the flip point for k > 1, but what
    # the official code samples.
    kth_seen = np.sort(scores[:, seen], axis=1)[:, -topk] if seen.any() else np.full(len(scores), -np.inf, np.float32)
    true_score = np.where(has_column, scores[np.arange(len(scores)), true_columns], np.float32(-np.inf))
    return sweep(predict, is_seen, kth_seen, true_score, labels, huge_bias)
