"""From a method and batches of images to the per-image record, with candidates in chunks.

Memory grows with the images, never with images x pairs: of each chunk of scores only running maxima, tie counts,
champions and log-sum-exps are kept (docs/protocol.md, "Two numbers per image").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluation.image_scores import ImageScores, credit
from benchmarks.evaluation.topk import rivals
from datasets.base import Candidates
from errors import UserError
from methods.base import Batch, Method, Prepared

PAIR_CHUNK = 2048


class RunningBest:
    """The best of one group of candidates for each image of a batch, updated chunk by chunk.

    best: float32 [B], -inf before any candidate. winner: int64 [B], first column that reached it, -1 for none. ties:
    int64 [B], candidates that reach it. log_sum_exp: float32 [B]. NaN scores stay visible in `best`.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self.best = torch.full((images,), -torch.inf, device=device)
        self.winner = torch.full((images,), -1, dtype=torch.int64, device=device)
        self.ties = torch.zeros(images, dtype=torch.int64, device=device)
        self.log_sum_exp = torch.full((images,), -torch.inf, device=device)  # not every device has float64

    def update(self, scores: Tensor, columns: Tensor) -> None:
        """Take in float32 scores [B, n] of the candidates `columns` int64 [n]; columns rise from call to call."""
        if len(columns) == 0:
            return
        best, position = scores.max(dim=1)
        # One float buffer for both sums: booleans add three times more slowly, and fresh memory costs more than the
        # sums. Floats count exactly below 2^24 columns.
        work = torch.eq(scores, best[:, None], out=torch.empty_like(scores))
        ties = work.sum(dim=1).long()
        higher, level = best > self.best, (best == self.best) & (best > -torch.inf)
        self.winner = torch.where(higher, columns[position], self.winner)
        self.ties = torch.where(higher, ties, self.ties + ties * level)
        self.best = torch.maximum(self.best, best)  # hands NaN on, which a comparison would not
        shift = best.clamp(min=torch.finfo(best.dtype).min)  # finite, so that a group of -inf gives log 0
        torch.sub(scores, shift[:, None], out=work)
        self.log_sum_exp = torch.logaddexp(self.log_sum_exp, shift + work.exp_().sum(dim=1).log())


class RunningTop:
    """The largest scores of one group of candidates for each image of a batch, for top-k curves.

    highest: float32 [B, K], falling, -inf where there are fewer. more: int64 [B], how many candidates beyond these
    reach the last of them.
    """

    def __init__(self, images: int, count: int, device: torch.device) -> None:
        self.highest = torch.full((images, count), -torch.inf, device=device)
        self.more = torch.zeros(images, dtype=torch.int64, device=device)

    def update(self, scores: Tensor) -> None:
        """Take in float32 scores [B, n]."""
        count = self.highest.shape[1]
        found = torch.full_like(self.highest, -torch.inf)
        width = min(count, scores.shape[1])
        found[:, :width] = scores.topk(width, dim=1).values
        level = (scores == found[:, -1:]).sum(dim=1) - (found == found[:, -1:]).sum(dim=1)
        both = torch.cat([self.highest, found], dim=1).sort(dim=1, descending=True).values
        last = both[:, count - 1]
        self.more = (
            (both[:, count:] == last[:, None]).sum(dim=1)
            + self.more * (self.highest[:, -1] == last)
            + level * (found[:, -1] == last)
        )
        self.highest = both[:, :count]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both on the CPU."""
        return to_numpy(self.highest), to_numpy(self.more)


class Stream(Protocol):
    """What takes in scores [B, n] of the candidates start .. start + n - 1."""

    def update(self, scores: Tensor, start: int) -> None:
        """Take in the next chunk."""


class ScoreStream:
    """Takes a batch's scores in chunks of candidates, in column order, and returns its record.

    seen: bool [P], on the device of the scores. pairs: int64 [B], column of each true pair or -1. top: so many best
    scores of either group are kept for `topk.topk_curve`.
    """

    def __init__(self, seen: Tensor, pairs: Tensor, top: int = 0) -> None:
        self.seen = seen
        self.top = [RunningTop(len(pairs), top, pairs.device) for _ in range(2)] if top else []
        self.pairs = pairs
        self.best_seen = RunningBest(len(pairs), pairs.device)
        self.best_unseen = RunningBest(len(pairs), pairs.device)
        self.true_score = torch.full((len(pairs),), -torch.inf, device=pairs.device)

    def update(self, scores: Tensor, start: int) -> None:
        """Take in the scores [B, n] of the candidates start .. start + n - 1."""
        scores = scores.float()
        stop = start + scores.shape[1]
        seen = self.seen[start:stop]
        for place, (group, flags) in enumerate(((self.best_seen, seen), (self.best_unseen, ~seen))):
            columns = torch.nonzero(flags).squeeze(1)
            whole = len(columns) == len(flags)
            own = scores if whole else scores.index_select(1, columns)
            group.update(own, columns + start)
            if self.top and len(columns):
                self.top[place].update(own)
        here = torch.nonzero((self.pairs >= start) & (self.pairs < stop)).squeeze(1)
        self.true_score[here] = scores[here, self.pairs[here] - start]

    def finish(self) -> ImageScores:
        """Return the record. An image without a column counts as unseen: the training pairs are always candidates."""
        is_seen = to_numpy((self.pairs >= 0) & self.seen[self.pairs.clamp(min=0)])
        best_seen, best_unseen = to_numpy(self.best_seen.best), to_numpy(self.best_unseen.best)
        ties = np.where(is_seen, to_numpy(self.best_seen.ties), to_numpy(self.best_unseen.ties))
        true_score = to_numpy(self.true_score)
        return ImageScores(
            is_seen=is_seen,
            best_seen=best_seen,
            best_unseen=best_unseen,
            correct=credit(true_score, np.where(is_seen, best_seen, best_unseen), ties),
            ties=ties,
            seen_winner=to_numpy(self.best_seen.winner),
            unseen_winner=to_numpy(self.best_unseen.winner),
            true_column=to_numpy(self.pairs),
            true_score=true_score,
            logsumexp_seen=to_numpy(self.best_seen.log_sum_exp),
            logsumexp_unseen=to_numpy(self.best_unseen.log_sum_exp),
            **(rivals(is_seen, true_score, [top.arrays() for top in self.top]) if self.top else {}),
        )


def score_images(
    method: Method,
    batches: Iterable[Batch],
    candidates: Candidates,
    *,
    pair_chunk: int = PAIR_CHUNK,
    prepared: Prepared | None = None,
    top: int = 0,
) -> ImageScores:
    """Score every image of `batches` against `candidates` and return the per-image record, in the order of the batches.

    `Batch.pairs` must be columns of `candidates` (-1: no candidate). `prepared` is what `method.prepare(candidates)`
    gave, if that is at hand; `top` is as in `ScoreStream`. Scores go to float32 and nothing is added to them; -inf
    means "not a candidate". The method is in evaluation mode meanwhile, each module's own mode is restored after.
    UserError if a score is NaN or +inf; ValueError for no candidates, a chunk below 1, scores of a wrong shape or a
    pair beyond the candidates.
    """
    if pair_chunk < 1 or len(candidates) == 0:
        raise ValueError(
            f"pair_chunk is {pair_chunk} and there are {len(candidates)} candidates; both must be at least 1"
        )
    if prepared is not None and not np.array_equal(prepared.candidates.pairs, candidates.pairs):
        raise ValueError("the method was prepared for other candidates than those to be scored")
    # Of no images too, so that processes which have a different share of them have the same fields.
    parts = [ScoreStream(torch.as_tensor(candidates.seen), torch.empty(0, dtype=torch.int64), top).finish()]
    with torch.inference_mode(), evaluation_mode(method):
        if prepared is None:
            prepared = method.prepare(candidates)
        for batch in map(method.encode, batches):
            check_pairs(batch, len(candidates))
            stream = ScoreStream(torch.as_tensor(candidates.seen, device=batch.pairs.device), batch.pairs, top)
            feed(stream, method, batch, prepared, len(candidates), pair_chunk)
            record = stream.finish()
            check_scores(method, record.best_seen, record.best_unseen, sum(map(len, parts)))
            parts.append(record)
    return ImageScores.concatenate(parts)


def feed(stream: Stream, method: Method, batch: Batch, prepared: Prepared, count: int, pair_chunk: int) -> None:
    """Score an encoded batch against the first `count` prepared candidates, chunk by chunk, and hand on the scores."""
    for start, scores in chunk_scores(method, batch, prepared, count, pair_chunk):
        stream.update(scores, start)


def chunk_scores(
    method: Method, batch: Batch, prepared: Prepared, count: int, pair_chunk: int = PAIR_CHUNK
) -> Iterator[tuple[int, Tensor]]:
    """Yield the scores of an encoded batch of B images against the first `count` prepared candidates, in chunks.

    With each chunk's scores [B, n] comes its first candidate. ValueError for scores of another shape.
    """
    for start in range(0, count, pair_chunk):
        stop = min(start + pair_chunk, count)
        scores = method.score(batch, prepared, slice(start, stop))
        if scores.shape != (len(batch), stop - start):
            raise ValueError(
                f"{method.info.name} scored {len(batch)} images against {stop - start} candidates "
                f"and returned the shape {tuple(scores.shape)}"
            )
        yield start, scores


def check_pairs(batch: Batch, count: int) -> None:
    """Raise ValueError if a true pair lies beyond the `count` candidates."""
    if len(batch) and int(batch.pairs.max()) >= count:
        raise ValueError(f"a batch has the pair {int(batch.pairs.max())}, there are {count} candidates")


def check_scores(method: Method, best_seen: np.ndarray, best_unseen: np.ndarray, images_before: int) -> None:
    """Raise a `UserError` if the best scores of a batch's images, [B], hold NaN or infinity."""
    # Written as "not below infinity" because NaN is below nothing.
    bad = ~((best_seen < np.inf) & (best_unseen < np.inf))
    if bad.any():
        first = images_before + int(bad.argmax())
        raise UserError(
            f"The method '{method.info.name}' gave scores that are NaN or infinite.",
            f"It did for {bad.sum()} of the {len(bad)} images of a batch, the first is image {first} (from 0).",
            "See whether its training loss diverged (a lower learning rate helps), and score in float32.",
        )


@contextmanager
def evaluation_mode(method: Method) -> Iterator[None]:
    """Evaluation mode within, each module's own mode after: parts of a method may rest in evaluation mode."""
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def to_numpy(values: Tensor) -> np.ndarray:
    """Return the values on the CPU."""
    return values.cpu().numpy()
