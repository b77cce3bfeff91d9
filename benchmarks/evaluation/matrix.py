"""From a score matrix in a file to the per-image record, block by block; no torch.

A pass over each block in single precision, several blocks side by side: the columns of either group are gathered, and
of them the best score, the first column that reaches it, how many do, and the log-sum-exp are kept (docs/protocol.md,
"Two numbers per image"). Memory grows with the images and some blocks, never with images x pairs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores, credit
from benchmarks.evaluation.matrix_files import MatrixFile
from benchmarks.evaluation.matrix_signs import Signs
from benchmarks.evaluation.topk import rivals
from datasets.base import Candidates, Split
from datasets.system import usable_cpus
from errors import UserError

THREADS = 8
"""At most so many blocks are looked at side by side. Rows of images do not meet, so the numbers are those of one."""

EXPONENTS = (-20.0, 60.0)
"""A row whose best score lies between these can be summed without a shift: float32 holds its exponentials."""


@dataclass(frozen=True, eq=False)
class Order:
    """What rows and columns of a matrix are.

    columns: int64 [P], the column of each candidate.
    rows: int64 [N], the image (its place in the split) of each row.
    """

    columns: np.ndarray
    rows: np.ndarray


class GroupBest:
    """The best of one group of candidates for every image, as `scoring.RunningBest` in numpy.

    columns: of the group in the matrix, in the order of candidates. candidates: what they are. top: so many best scores
    are kept. factor: scores are multiplied by it, which is exact for a power of 2.
    """

    def __init__(
        self, images: int, columns: np.ndarray, candidates: np.ndarray, top: int = 0, factor: float = 1.0
    ) -> None:
        self.columns, self.candidates, self.top, self.factor = columns, candidates, top, np.float32(factor)
        self.best = np.full(images, -np.inf, np.float32)
        self.winner = np.full(images, -1, np.int64)
        self.ties = np.zeros(images, np.int64)
        self.log_sum = np.full(images, -np.inf)
        self.highest = np.full((images, top), -np.inf, np.float32)
        self.more = np.zeros(images, np.int64)  # how many more reach the last of `highest`

    def update(self, rows: np.ndarray, block: np.ndarray, at: np.ndarray, candidates: np.ndarray) -> None:
        """Take in the scores block[:, at] of the images `rows`; `candidates` rise with `at`.

        Calls for other images may run beside it.
        """
        scores = np.take(block, at, axis=1, out=_room(len(block), len(at)), mode="clip")  # "raise" would buffer
        if self.factor != 1:
            scores *= self.factor
        place = scores.argmax(axis=1)  # the first one, or the first NaN
        best = scores[np.arange(len(scores)), place]
        # NaN and infinity stay in `best` for whoever takes the record to refuse.
        as_it_is = ~np.isfinite(best) | (best > EXPONENTS[0]) & (best < EXPONENTS[1])
        shift = np.where(as_it_is, np.float32(0), best)
        highest, ties = self._highest(rows, scores, place) if self.top else (None, _reaching(scores, best))
        ties *= best > -np.inf
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if shift.any():
                np.subtract(scores, shift[:, None], out=scores)
            total = np.exp(scores, out=scores) @ np.ones(scores.shape[1], np.float32)
            if highest is not None:  # `scores` lack them
                total += np.exp(highest - shift[:, None]).sum(axis=1)
            log_sum = shift + np.log(total)
        found = candidates[place]
        before = self.best[rows]
        with np.errstate(invalid="ignore"):
            higher, level = best > before, (best == before) & (best > -np.inf)
            self.winner[rows] = np.where(
                higher, found, np.where(level, np.minimum(self.winner[rows], found), self.winner[rows])
            )
            self.ties[rows] = np.where(higher, ties, self.ties[rows] + ties * level)
            self.best[rows] = np.maximum(before, best)
            self.log_sum[rows] = np.logaddexp(self.log_sum[rows], log_sum)

    def _highest(self, rows: np.ndarray, scores: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the block's largest scores into the list: as many rounds of "the largest of those that are left".

        place: of the first of them, [r]. The largest scores [r, top] are returned, which become -infinity in `scores`,
        and how many scores are level with the first, [r].
        """
        images = np.arange(len(scores))
        found = np.full((len(scores), self.top), -np.inf, np.float32)
        for rank in range(min(self.top, scores.shape[1])):
            found[:, rank] = scores[images, place]
            scores[images, place] = -np.inf
            place = scores.argmax(axis=1)
        first, last = found[:, 0], found[:, -1]
        more = _reaching(scores, last, scores[images, place] == last)
        ties = (found == first[:, None]).sum(axis=1) + np.where(last == first, more, 0)
        before, more_before = self.highest[rows], self.more[rows]
        if (before[:, 0] == -np.inf).all():  # rows are whole, or these columns are the first
            self.highest[rows], self.more[rows] = found, more
            return found, ties
        every = np.sort(np.concatenate([before, found], axis=1), axis=1)[:, ::-1]
        kept, dropped = every[:, : self.top], every[:, self.top :]
        end = kept[:, -1]
        self.highest[rows] = kept
        self.more[rows] = (
            (dropped == end[:, None]).sum(axis=1)
            + np.where(before[:, -1] == end, more_before, 0)
            + np.where(last == end, more, 0)
        )
        return found, ties


_OF_THREAD = threading.local()


def _room(rows: int, columns: int) -> np.ndarray:
    """Return memory for scores, the same at each call of a thread: fresh pages cost as much as filling them."""
    kept = getattr(_OF_THREAD, "room", None)
    if kept is None or len(kept) < rows * columns:
        kept = _OF_THREAD.room = np.empty(rows * columns, np.float32)
    return kept[: rows * columns].reshape(rows, columns)


def _reaching(scores: np.ndarray, values: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
    """Return how many scores of a row equal its value, int64 [r]; 0 for rows that are not asked for, bool [r]."""
    counts, rows = np.zeros(len(scores), np.int64), np.arange(len(scores)) if which is None else np.flatnonzero(which)
    level = (scores if len(rows) == len(scores) else scores[rows]) == values[rows, None]
    counts[rows] = np.bincount(np.flatnonzero(level) // scores.shape[1], minlength=len(rows))  # faster than a sum
    return counts


def score_matrix(
    matrix: MatrixFile, order: Order, candidates: Candidates, split: Split, top: int = 0
) -> tuple[ImageScores, Signs]:
    """Return the record of a split's images from their scores in a file, and what the scores look like.

    top: so many best scores are kept for `topk_curve`. Scores go to float32 and nothing is added to them; -inf is no
    candidate. `UserError` for NaN, +inf, and an image without any candidate.
    """
    seen = [np.flatnonzero(flags) for flags in (candidates.seen, ~candidates.seen)]
    groups = [GroupBest(len(split), order.columns[own], own, top) for own in seen]
    true_columns = candidates.index_of(split.states, split.objects)
    true_score, signs = read_through(matrix, order, candidates, split, groups)
    known = true_columns >= 0
    is_seen = known & candidates.seen[true_columns]
    best_seen, best_unseen = groups[0].best, groups[1].best
    check_candidates(matrix, split, np.maximum(best_seen, best_unseen))
    ties = np.where(is_seen, groups[0].ties, groups[1].ties)
    scores = ImageScores(
        is_seen=is_seen,
        best_seen=best_seen,
        best_unseen=best_unseen,
        correct=credit(true_score, np.where(is_seen, best_seen, best_unseen), ties),
        ties=ties,
        seen_winner=groups[0].winner,
        unseen_winner=groups[1].winner,
        true_column=true_columns,
        true_score=true_score,
        logsumexp_seen=groups[0].log_sum,
        logsumexp_unseen=groups[1].log_sum,
        **(rivals(is_seen, true_score, [(group.highest, group.more) for group in groups]) if top else {}),
    )
    return scores, signs


def read_through(
    matrix: MatrixFile, order: Order, candidates: Candidates, split: Split, groups: Sequence[GroupBest]
) -> tuple[np.ndarray, Signs]:
    """Give a file's scores to groups of candidates; return the true pairs' scores, float32 [N], and what was seen.

    A score that is NaN or +infinity is a `UserError`.
    """
    true_columns = candidates.index_of(split.states, split.objects)
    true_score = np.full(len(split), -np.inf, np.float32)
    true_place = np.where(true_columns >= 0, order.columns[true_columns], -1)
    signs = Signs(matrix.rows, matrix.columns, order.columns[candidates.seen], order.columns[~candidates.seen])

    def look(rows: np.ndarray, first_column: int, block: np.ndarray) -> None:
        for group in groups:
            at = group.columns - first_column
            inside = slice(None) if block.shape[1] == matrix.columns else (at >= 0) & (at < block.shape[1])
            if len(at[inside]):
                group.update(rows, block, at[inside], group.candidates[inside])
        place = true_place[rows] - first_column
        here = np.flatnonzero((true_place[rows] >= 0) & (place >= 0) & (place < block.shape[1]))
        true_score[rows[here]] = block[here, place[here]]
        _refuse(matrix, rows, block, groups, split, candidates)

    # Blocks of columns are of the same images, and so one after the other.
    workers = 1 if matrix.header.by_columns else max(1, min(THREADS, usable_cpus() or 1))
    under_way: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for first_row, first_column, block in matrix.blocks(kept=workers):
            rows = order.rows[first_row : first_row + len(block)]
            under_way.append(pool.submit(look, rows, first_column, block))
            signs.look(first_row, first_column, block)
            if len(under_way) == workers:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
    return true_score, signs


def check_candidates(matrix: MatrixFile, split: Split, best: np.ndarray) -> None:
    """Raise a `UserError` where an image has no candidate. best: the largest score of each image, [N]."""
    if (empty := np.flatnonzero(best == -np.inf)).size:
        raise UserError(
            f"{len(empty)} of the images in {matrix.path} have no candidate.",
            f"All their scores are -infinity, the first are those of {split.images[empty[0]]}.",
            "Leave at least the training pairs; -infinity is for a pair that is ruled out.",
        )


def _refuse(
    matrix: MatrixFile,
    rows: np.ndarray,
    block: np.ndarray,
    groups: Sequence[GroupBest],
    split: Split,
    candidates: Candidates,
) -> None:
    """Raise the `UserError` of scores that are NaN or +infinity, with the first image and pair."""
    for group in groups:
        with np.errstate(invalid="ignore"):
            bad = ~(group.best[rows] < np.inf)  # NaN is below nothing
        if not bad.any():
            continue
        row = int(bad.argmax())
        names = dict(zip(group.columns.tolist(), group.candidates.tolist(), strict=True))
        values = block[row]
        pair = next(
            (names[c] for c in np.flatnonzero(~(values < np.inf)).tolist() if c in names), int(group.candidates[0])
        )
        state, obj = candidates.subset(np.array([pair])).names()[0]
        what = "NaN" if np.isnan(group.best[rows][row]) else "infinite"
        half = " Half precision ends at 65,504." if matrix.dtype == "float16" and what == "infinite" else ""
        raise UserError(
            f"The scores {matrix.path} hold {what} values.",
            f"The first is that of the image {split.images[rows[row]]} and the pair '{state} {obj}'.{half}",
            "Compute them in float32; a pair that is no candidate is -infinity.",
        )
