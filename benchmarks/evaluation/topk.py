"""Exact top-k curve from a full score matrix, for tables that print AUC at k = 3 or 5 (docs/protocol.md, "Top-k").

Everything else in the suite is top-1 and streams; the k best of each image need the matrix: for small problems.
"""

from __future__ import annotations

import numpy as np

from benchmarks.evaluation.curve import Curve, curve_from_margins


def exact_topk_curve(matrix: np.ndarray, seen: np.ndarray, true_columns: np.ndarray, topk: int) -> Curve:
    """Return the curve when an image is right if its pair is among the `topk` best after the bias.

    matrix: float32 [N, P], -infinity is no candidate. seen: bool [P]. true_columns: int64 [N], -1 if the pair is no
    candidate (the image then counts as unseen). With r rivals of the own group above the true pair, the pair may be
    beaten by k - r - 1 of the other group, so its margin is taken against the (k - r)-th of them; fewer members, and it
    is right at every bias. Ties with own rivals share the places left at the best rank's margin; exact for k = 1 and
    without ties.
    """
    matrix = np.asarray(matrix, dtype=np.float32)
    images = np.arange(len(matrix))
    has_column = true_columns >= 0
    is_seen = has_column & seen[true_columns]
    true_score = np.where(has_column, matrix[images, true_columns], np.float32(-np.inf))
    own = seen[None, :] == is_seen[:, None]
    above = (own & (matrix > true_score[:, None])).sum(axis=1)
    level = (own & (matrix == true_score[:, None])).sum(axis=1)
    possible = (above < topk) & (true_score > -np.inf)
    correct = np.where(possible, np.clip((topk - above) / np.maximum(level, 1), 0.0, 1.0), 0.0)

    others = np.where(own, np.float32(-np.inf), matrix)
    width = min(topk, matrix.shape[1])
    best_others = np.sort(np.partition(others, -width, axis=1)[:, -width:], axis=1)[:, ::-1]
    place = np.clip(topk - above - 1, 0, topk - 1)
    rival = np.where(place < width, best_others[images, np.minimum(place, width - 1)], np.float32(-np.inf))
    with np.errstate(invalid="ignore"):
        margins = true_score.astype(np.float64) - rival.astype(np.float64)
    return curve_from_margins(is_seen, np.where(is_seen, margins, -margins), correct)
