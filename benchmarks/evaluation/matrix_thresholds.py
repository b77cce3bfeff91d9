"""A score matrix in a file under every feasibility threshold, from one pass, as `open_scoring.py` does for methods."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.evaluation.matrix import GroupBest, Order, check_candidates, read_through
from benchmarks.evaluation.matrix_files import MatrixFile
from benchmarks.evaluation.matrix_signs import Signs
from benchmarks.evaluation.open_scoring import running
from benchmarks.evaluation.thresholds import ThresholdScores, arrange
from datasets.base import Candidates, Split


def threshold_matrix(
    matrix: MatrixFile, order: Order, candidates: Candidates, split: Split, thresholds: Sequence[float] | np.ndarray
) -> tuple[ThresholdScores, Signs]:
    """Return the record of a split's images under each of the rising thresholds [T], and what the scores look like.

    candidates: with feasibility. Errors as in `score_matrix`.
    """
    arrangement, images = arrange(candidates, thresholds), len(split)
    edges = [0, *arrangement.edges[:-1].tolist()]
    members = [arrangement.columns[low:high] for low, high in pairwise(edges)]
    groups = [GroupBest(images, order.columns[own], own) for own in members]
    # Official masking doubles seen scores where a threshold is not above 0.
    doubled = GroupBest(images, order.columns[members[0]], members[0], factor=2.0)
    doubles = bool((arrangement.thresholds.astype(np.float32) <= 0).any())
    true_score, signs = read_through(matrix, order, candidates, split, [*groups, *([doubled] if doubles else [])])
    seen, *unseen = groups
    best, winner, ties, log_sums = running([_arrays(group) for group in unseen])
    check_candidates(matrix, split, np.maximum(seen.best, best[0]))
    columns = candidates.index_of(split.states, split.objects)
    passed = np.where(columns >= 0, arrangement.passed[columns], 0)
    scores = ThresholdScores(
        is_seen=(columns >= 0) & candidates.seen[columns],
        best_seen=seen.best,
        seen_winner=seen.winner,
        seen_ties=seen.ties,
        logsumexp_seen=seen.log_sum,
        logsumexp_doubled=(doubled if doubles else seen).log_sum,
        best_unseen=best,
        unseen_winner=winner,
        unseen_ties=ties,
        logsumexp_unseen=log_sums,
        true_column=columns,
        true_score=np.where(passed > 0, true_score, np.float32(-np.inf)),
        true_passed=passed,
        arrangement=arrangement,
    )
    return scores, signs


def _arrays(group: GroupBest) -> tuple[np.ndarray, ...]:
    return group.best, group.winner.astype(np.int32), group.ties.astype(np.int32), group.log_sum
