"""Exact top-k curve, for tables that print AUC at k = 3 or 5 as VAW-CZSL's do (docs/protocol.md, "Top-k").

From a full score matrix, for small problems and tests, and from what a per-image record keeps: of the image's own group
how many rivals are above the true pair, of the other group the K best scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.evaluation.curve import Curve, curve_from_margins
from benchmarks.evaluation.image_scores import ImageScores

KEPT = 5
"""K: so many scores of the other group a record keeps, and up to this k it has curves."""


def rivals(
    is_seen: np.ndarray, true_score: np.ndarray, groups: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return what a record of N images keeps for `topk_curve`, as fields of `ImageScores`.

    groups: of the seen and of the unseen candidates, the K largest scores of each image, falling, float32 [N, K]
    (-infinity where there are fewer), and how many more candidates reach the last of them, [N].

    top_above: uint8 [N], rivals of the own group above the true pair, at most K. top_level: int32 [N], candidates of
    the own group with the true pair's score, itself among them. top_others: float32 [K, N], the other group's K best.
    The last two are 0 where top_above is K, because no k up to K is right there.
    """
    (seen, seen_more), (unseen, unseen_more) = groups
    own = np.where(is_seen[:, None], seen, unseen)
    more = np.where(is_seen, seen_more, unseen_more)
    others = np.where(is_seen[:, None], unseen, seen)
    above = (own > true_score[:, None]).sum(axis=1)
    level = (own == true_score[:, None]).sum(axis=1) + np.where(own[:, -1] == true_score, more, 0)
    useful = (above < own.shape[1]) & (true_score > -np.inf)
    return {
        "top_above": np.where(useful, above, own.shape[1]),
        "top_level": np.where(useful, level, 0),
        "top_others": np.where(useful[:, None], others, np.float32(0)).T,
    }


def topk_curve(scores: ImageScores, topk: int) -> Curve:
    """Return what `exact_topk_curve` gives for the matrix of a record; ValueError for a k that it does not serve."""
    if scores.top_others is None or scores.top_above is None or scores.top_level is None:
        raise ValueError("the record keeps nothing for top-k")
    kept = len(scores.top_others)
    if not 1 <= topk <= kept:
        raise ValueError(f"the record serves k from 1 to {kept}, not {topk}")
    above, images = scores.top_above.astype(np.int64), np.arange(len(scores))
    share = np.clip((topk - above) / np.maximum(scores.top_level, 1), 0.0, 1.0)
    correct = np.where((above < topk) & (scores.true_score > -np.inf), share, 0.0)
    rival = scores.top_others[np.clip(topk - above - 1, 0, topk - 1), images]
    with np.errstate(invalid="ignore"):
        margins = scores.true_score.astype(np.float64) - rival.astype(np.float64)
    return curve_from_margins(scores.is_seen, np.where(scores.is_seen, margins, -margins), correct)


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
