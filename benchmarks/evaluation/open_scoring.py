"""Scoring in the open world: one pass over the candidates gives every image's record under all thresholds.

Every state x object is far too many for a score matrix (C-GQA: 278,362 columns). The unseen candidates are sorted by
how many of the T thresholds they pass, a running best is kept per image and such group, and the best of the first
groups taken together is the best under a threshold. Memory grows with images x T. Pairs below the smallest threshold
are never scored (docs/protocol.md, "Open world").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluation.scoring import (
    PAIR_CHUNK,
    RunningBest,
    check_pairs,
    check_scores,
    evaluation_mode,
    feed,
    to_numpy,
)
from benchmarks.evaluation.thresholds import Arrangement, ThresholdScores, arrange
from datasets.base import Candidates
from methods.base import Batch, Method


class ThresholdStream:
    """Takes a batch's scores in chunks of arranged candidates, in their order, and returns its record.

    places: int64 [B], place of each true pair in the arrangement, or -1. As in `RunningBest`, but for every threshold.
    """

    def __init__(self, arrangement: Arrangement, places: Tensor) -> None:
        self.arrangement = arrangement
        self.places = places
        self.columns = torch.as_tensor(arrangement.columns, device=places.device)
        self.edges = [0, *arrangement.edges[:-1].tolist()]
        self.groups = [RunningBest(len(places), places.device) for _ in self.edges[1:]]  # the seen ones come first
        # Official masking doubles seen scores where a threshold is not above 0.
        doubles = bool((arrangement.thresholds.astype(np.float32) <= 0).any())
        self.doubled = RunningBest(len(places), places.device) if doubles else None
        self.true_score = torch.full((len(places),), -torch.inf, device=places.device)

    def update(self, scores: Tensor, start: int) -> None:
        """Take in the scores [B, n] of the candidates at the places start .. start + n - 1."""
        scores = scores.float()
        stop = start + scores.shape[1]
        low = start
        for group in range(bisect_right(self.edges, start) - 1, len(self.groups)):
            if low >= stop:
                break
            high = min(stop, self.edges[group + 1])
            if low == high:
                continue
            part, columns = scores[:, low - start : high - start], self.columns[low:high]
            self.groups[group].update(part, columns)
            if group == 0 and self.doubled is not None:
                self.doubled.update(2 * part, columns)
            low = high
        here = torch.nonzero((self.places >= start) & (self.places < stop)).squeeze(1)
        self.true_score[here] = scores[here, self.places[here] - start]

    def finish(self) -> ThresholdScores:
        """Return the record; an image without a candidate counts as unseen, as in `ScoreStream`."""
        places = to_numpy(self.places)
        columns = np.where(places >= 0, self.arrangement.columns[places], -1)
        seen, *unseen = self.groups
        with np.errstate(invalid="ignore"):  # NaN is for whoever takes the record to refuse
            best, winner, ties, log_sums = running([_arrays(group) for group in unseen])
        return ThresholdScores(
            is_seen=(places >= 0) & (places < self.edges[1]),
            best_seen=to_numpy(seen.best),
            seen_winner=to_numpy(seen.winner),
            seen_ties=to_numpy(seen.ties),
            logsumexp_seen=to_numpy(seen.log_sum_exp),
            logsumexp_doubled=to_numpy((seen if self.doubled is None else self.doubled).log_sum_exp),
            best_unseen=best,
            unseen_winner=winner,
            unseen_ties=ties,
            logsumexp_unseen=log_sums,
            true_column=columns,
            true_score=to_numpy(self.true_score),
            true_passed=np.where(columns >= 0, self.arrangement.passed[columns], 0),
            arrangement=self.arrangement,
        )


def _arrays(group: RunningBest) -> tuple[np.ndarray, ...]:
    # Columns and counts in 32 bits: with T of each per image that is a third of the record.
    best, winner, ties, log_sum = map(to_numpy, (group.best, group.winner, group.ties, group.log_sum_exp))
    return best, winner.astype(np.int32), ties.astype(np.int32), log_sum


def running(groups: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Join each group with all before it, and return rows [T, B] in the order of the thresholds, which is the reverse.

    Groups of disjoint columns: the larger best wins, equal ones share the tie and the first column wins.
    """
    rows = [groups[0]]
    for best, winner, ties, log_sum in groups[1:]:
        best_before, winner_before, ties_before, log_sum_before = rows[-1]
        before, level = best_before > best, best_before == best
        first = np.minimum(winner_before, winner)
        rows.append(
            (
                np.maximum(best_before, best),  # hands NaN on
                np.where(before, winner_before, np.where(level, first, winner)),
                np.where(before, ties_before, ties + level * ties_before),
                np.logaddexp(log_sum_before, log_sum),
            )
        )
    return [np.stack(column) for column in zip(*reversed(rows), strict=True)]


def score_thresholds(
    method: Method,
    batches: Iterable[Batch],
    candidates: Candidates,
    thresholds: Sequence[float] | np.ndarray,
    *,
    pair_chunk: int = PAIR_CHUNK,
) -> ThresholdScores:
    """Score every image of `batches` once and return the record under each of the rising `thresholds` [T].

    candidates: with feasibility; `Batch.pairs` are their columns, and so are those of the record. The method is given
    no pair that every threshold removes, unless its scores depend on what else is a candidate: then it prepares all of
    them and is asked for the scores of those that are left. Otherwise as `score_images`, with the same errors.
    """
    arrangement = arrange(candidates, thresholds)
    if pair_chunk < 1 or arrangement.scored == 0:
        raise ValueError(
            f"pair_chunk is {pair_chunk} and there are {arrangement.scored} candidates; both must be at least 1"
        )
    count = arrangement.scored if method.info.candidate_independent else len(candidates)
    place = np.full(len(candidates) + 1, -1)  # a pair that is no candidate, -1, reads the last entry
    place[arrangement.columns] = np.arange(len(candidates))
    parts = [ThresholdStream(arrangement, torch.empty(0, dtype=torch.int64)).finish()]
    with torch.inference_mode(), evaluation_mode(method):
        prepared = method.prepare(candidates.subset(arrangement.columns[:count]))
        for batch in map(method.encode, batches):
            check_pairs(batch, len(candidates))
            places = torch.as_tensor(place, device=batch.pairs.device)[batch.pairs]
            stream = ThresholdStream(arrangement, places)
            batch = replace(batch, pairs=torch.where(places < count, places, -1))
            feed(stream, method, batch, prepared, arrangement.scored, pair_chunk)
            record = stream.finish()
            check_scores(method, record.best_seen, record.best_unseen[0], sum(map(len, parts)))
            parts.append(record)
    return ThresholdScores.concatenate(parts, arrangement)
