"""Feasibility thresholds of the open world: which pairs each keeps, the images' scores under each, which one to take.

Pure numpy. `open_scoring.score_thresholds` makes the record in one pass over the candidates; whatever the threshold and
the way of masking, an `ImageScores` follows from it (docs/protocol.md, "Open world").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from benchmarks.evaluation.curve import exact_curve
from benchmarks.evaluation.empty_groups import BY_NOTHING, BY_UNSEEN
from benchmarks.evaluation.image_scores import ImageScores, Labels, credit
from benchmarks.evaluation.legacy import legacy_from_image_scores
from benchmarks.runs.open_world_settings import THRESHOLD_GRID, Masking
from datasets.base import Candidates


def feasibility_grid(candidates: Candidates, count: int = THRESHOLD_GRID) -> np.ndarray:
    """Return `count` equally spaced thresholds from the smallest to the largest unseen feasibility, float64 [count].

    ValueError if the candidates have no feasibility or none of them is unseen.
    """
    unseen = feasibility_of(candidates)[~candidates.seen]
    if len(unseen) == 0:
        raise ValueError("no candidate is unseen, there is nothing to put a threshold to")
    return np.linspace(float(unseen.min()), float(unseen.max()), count)


def kept(candidates: Candidates, threshold: float) -> np.ndarray:
    """Return which candidates a threshold keeps, bool [P]: the seen ones, and those with feasibility >= threshold.

    Compared in single precision, as in the released codes.
    """
    return candidates.seen | (feasibility_of(candidates) >= np.float32(threshold))


def feasibility_of(candidates: Candidates) -> np.ndarray:
    """Return the feasibility of each candidate, float32 [P]; ValueError for those of a closed world."""
    if candidates.feasibility is None:
        raise ValueError("the candidates have no feasibility scores")
    return candidates.feasibility


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Candidates put in an order in which each threshold keeps a head of the list.

    columns: int64 [P], the candidate at each place: the seen ones, then the unseen ones by the number of thresholds
    they pass, most first, and inside such a group as they were. passed: int64 [P], that number for each candidate, T
    for a seen one. edges: int64 [T + 2]; the seen ones lie before edges[0], and threshold k keeps what lies before
    edges[T - k]. What lies behind edges[T] passes no threshold. thresholds: float64 [T], rising.
    """

    columns: np.ndarray
    passed: np.ndarray
    edges: np.ndarray
    thresholds: np.ndarray

    @property
    def scored(self) -> int:
        """Number of candidates that some threshold keeps."""
        return int(self.edges[-2])

    @property
    def removed(self) -> np.ndarray:
        """Number of unseen candidates that each threshold removes, int64 [T]."""
        return len(self.columns) - self.edges[-2:0:-1]

    @cached_property
    def first_removed(self) -> np.ndarray:
        """First candidate that each threshold removes, int64 [T]; P where it removes none."""
        count = len(self.thresholds)
        first = np.full(count + 1, len(self.columns), dtype=np.int64)
        np.minimum.at(first, self.passed, np.arange(len(self.columns)))  # of those that pass k thresholds, not k + 1
        return np.minimum.accumulate(first[:count])


def arrange(candidates: Candidates, thresholds: Sequence[float] | np.ndarray) -> Arrangement:
    """Return the order in which candidates are scored for several thresholds; these must rise (equal ones may be)."""
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or len(thresholds) == 0 or (np.diff(thresholds) < 0).any():
        raise ValueError(f"thresholds must be a rising list, not {thresholds}")
    count = len(thresholds)
    passed = np.searchsorted(thresholds.astype(np.float32), feasibility_of(candidates), side="right")
    passed = np.where(candidates.seen, count, passed).astype(np.int64)
    group = np.where(candidates.seen, 0, 1 + count - passed)
    sizes = np.bincount(group, minlength=count + 2)
    return Arrangement(np.argsort(group, kind="stable"), passed, np.cumsum(sizes), thresholds)


@dataclass(frozen=True, eq=False)
class ThresholdScores:
    """The record of N images under each of T thresholds, what `ImageScores` says of them but for the masking.

    Columns are those of the full candidate list. Of the seen group, [N]: is_seen, best_seen, seen_winner, seen_ties,
    logsumexp_seen, and logsumexp_doubled of twice the scores. Of the unseen pairs that threshold k keeps, row k of [T,
    N]: best_unseen, unseen_winner, unseen_ties, logsumexp_unseen. true_column, true_score (-infinity if it was never
    scored) and true_passed, the number of thresholds that the true pair passes: [N].
    """

    is_seen: np.ndarray
    best_seen: np.ndarray
    seen_winner: np.ndarray
    seen_ties: np.ndarray
    logsumexp_seen: np.ndarray
    logsumexp_doubled: np.ndarray
    best_unseen: np.ndarray
    unseen_winner: np.ndarray
    unseen_ties: np.ndarray
    logsumexp_unseen: np.ndarray
    true_column: np.ndarray
    true_score: np.ndarray
    true_passed: np.ndarray
    arrangement: Arrangement

    def __len__(self) -> int:
        return len(self.is_seen)

    @property
    def thresholds(self) -> np.ndarray:
        """The thresholds, float64 [T], rising."""
        return self.arrangement.thresholds

    @classmethod
    def concatenate(cls, parts: Sequence[ThresholdScores], arrangement: Arrangement) -> ThresholdScores:
        """Join records of successive batches; there must be one at least."""
        names = [item.name for item in fields(cls) if item.name != "arrangement"]
        joined = {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names}
        return cls(**joined, arrangement=arrangement)

    def survives(self, index: int) -> np.ndarray:
        """Return whether threshold `index` keeps each image's true pair, bool [N]."""
        return self.true_passed > index

    def at(self, index: int, masking: Masking = "clean") -> ImageScores:
        """Return the scores under threshold `index`.

        clean: a removed pair is no candidate. official: each score times ([feasibility >= threshold] + [seen]), so a
        removed pair scores 0, and seen scores are doubled by a threshold of 0 or less (seen pairs hold feasibility 0).
        """
        if masking == "clean":
            return self._record(index, np.where(self.survives(index), self.true_score, -np.inf))
        doubled = np.float32(self.thresholds[index]) <= 0
        # Times 2 is exact and keeps order and ties; where the sum of exponentials ends up, no formula tells.
        factor = np.float32(2 if doubled else 1)
        removed, first = self.arrangement.removed[index], self.arrangement.first_removed[index]
        best, winner, ties = self.best_unseen[index], self.unseen_winner[index], self.unseen_ties[index]
        if removed:
            zero_wins, zero_ties = best < 0, best == 0
            winner = np.where(zero_wins, first, np.where(zero_ties, np.minimum(winner, first), winner))
            ties = np.where(zero_wins, removed, ties + zero_ties * removed)
            best = np.maximum(best, np.float32(0))
        true_score = np.where(self.is_seen, self.true_score * factor, self.true_score)
        # A pair that is no candidate at all stays at -infinity.
        gone = ~self.survives(index) & (self.true_column >= 0)
        with np.errstate(divide="ignore"):
            log_sum = np.logaddexp(self.logsumexp_unseen[index], np.log(float(removed)))
        return self._record(
            index,
            np.where(gone, np.float32(0), true_score),
            best_seen=self.best_seen * factor,
            best_unseen=best,
            unseen_winner=winner,
            unseen_ties=ties,
            logsumexp_seen=self.logsumexp_doubled if doubled else self.logsumexp_seen,
            logsumexp_unseen=log_sum,
        )

    def _record(self, index: int, true_score: np.ndarray, **changed: np.ndarray) -> ImageScores:
        names = ("best_seen", "logsumexp_seen")
        rows = ("best_unseen", "unseen_winner", "unseen_ties", "logsumexp_unseen")
        values = {name: getattr(self, name) for name in names}
        values |= {name: getattr(self, name)[index] for name in rows} | changed
        unseen_ties = values.pop("unseen_ties")
        ties = np.where(self.is_seen, self.seen_ties, unseen_ties)
        top = np.where(self.is_seen, values["best_seen"], values["best_unseen"])
        return ImageScores(
            is_seen=self.is_seen,
            correct=credit(true_score, top, ties),
            ties=ties,
            seen_winner=self.seen_winner,
            true_column=self.true_column,
            true_score=true_score,
            **values,
        )


@dataclass(frozen=True, eq=False)
class ThresholdChoice:
    """The threshold chosen on validation. aucs: float64 [T], of every threshold; index: the first of the largest.

    by: what decided, in words, where that is not the AUC because it is undefined: `BY_UNSEEN` or `BY_NOTHING`.
    """

    thresholds: np.ndarray
    aucs: np.ndarray
    index: int
    by: str = ""

    @property
    def threshold(self) -> float:
        """The chosen threshold."""
        return float(self.thresholds[self.index])


def choose_threshold(record: ThresholdScores, labels: Labels, masking: Masking = "clean") -> ThresholdChoice:
    """Return the threshold of the largest AUC, the smallest one on ties.

    clean: by the exact AUC. official: by that of the published sweep, as the released codes do. Without seen images the
    accuracy of the unseen ones decides, without unseen images nothing: a threshold removes unseen pairs alone, so the
    smallest one is taken.
    """

    def auc(scores: ImageScores) -> float:
        return exact_curve(scores).auc if masking == "clean" else legacy_from_image_scores(scores, labels).auc

    every = [record.at(index, masking) for index in range(len(record.thresholds))]
    aucs = values = np.array([auc(scores) for scores in every])
    by = ""
    if not record.is_seen.any() or record.is_seen.all():
        by = BY_NOTHING if record.is_seen.any() or len(record) == 0 else BY_UNSEEN
        values = np.array([scores.correct.sum() if by == BY_UNSEEN else 0.0 for scores in every])
    return ThresholdChoice(record.thresholds, aucs, int(np.argmax(np.nan_to_num(values, nan=-1.0))), by)
