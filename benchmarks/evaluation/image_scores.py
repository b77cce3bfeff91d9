"""What is kept of each image's scores: a dozen numbers instead of a row of the score matrix.

One bias added to all unseen pairs changes no order inside the seen group or inside the unseen group. Whatever the bias,
the prediction is therefore one of two champions, and their margin says which (docs/protocol.md, "Two numbers per
image"). Every metric, resampling and paired test of the suite starts from this record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

_DTYPES: Mapping[str, type[np.generic]] = {
    "is_seen": np.bool_,
    "best_seen": np.float32,
    "best_unseen": np.float32,
    "correct": np.float64,
    "ties": np.int64,
    "seen_winner": np.int64,
    "unseen_winner": np.int64,
    "true_column": np.int64,
    "true_score": np.float32,
    "logsumexp_seen": np.float64,
    "logsumexp_unseen": np.float64,
}

_TOP: Mapping[str, type[np.generic]] = {"top_above": np.uint8, "top_level": np.int32, "top_others": np.float32}
"""What a record has in addition where it serves top-k curves; of [K, N] the images are the last axis."""


@dataclass(frozen=True, eq=False)
class ImageScores:
    """The record of N images, every field an array [N]; -infinity stands for "no such candidate".

    is_seen: the image's pair is a seen pair. best_seen, best_unseen: float32, the largest score of each group. correct:
    float64 in [0, 1], 1 / `ties` if the true pair is at the top of its own group, else 0. ties: candidates at the top
    of the image's own group (0 if the group is empty). seen_winner, unseen_winner: column of the group's champion, the
    first on ties, -1 if the group is empty. true_column: -1 if the pair is no candidate. true_score: float32.
    logsumexp_seen, logsumexp_unseen: float64, of the scores as they come. top_above, top_level [N], top_others [K, N]:
    what `topk.topk_curve` needs, see `topk.rivals`; None where it was not kept. Wrong types are converted; arrays of
    unlike length raise ValueError.
    """

    is_seen: np.ndarray
    best_seen: np.ndarray
    best_unseen: np.ndarray
    correct: np.ndarray
    ties: np.ndarray
    seen_winner: np.ndarray
    unseen_winner: np.ndarray
    true_column: np.ndarray
    true_score: np.ndarray
    logsumexp_seen: np.ndarray
    logsumexp_unseen: np.ndarray
    top_above: np.ndarray | None = None
    top_level: np.ndarray | None = None
    top_others: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            values = np.asarray(getattr(self, name), dtype=dtype)
            if values.shape != np.shape(self.is_seen) or values.ndim != 1:
                raise ValueError(
                    f"{name} has shape {values.shape}, is_seen has {np.shape(self.is_seen)}; both must be [N]"
                )
            object.__setattr__(self, name, values)
        for name, dtype in _TOP.items() if self.top_others is not None else ():
            values = np.asarray(getattr(self, name), dtype=dtype)
            if values.shape[-1:] != np.shape(self.is_seen):
                raise ValueError(f"{name} has shape {values.shape}, is_seen has {np.shape(self.is_seen)}")
            object.__setattr__(self, name, values)

    @property
    def _fields(self) -> tuple[str, ...]:
        return tuple(_DTYPES) if self.top_others is None else (*_DTYPES, *_TOP)

    def __len__(self) -> int:
        return len(self.is_seen)

    @cached_property
    def margins(self) -> np.ndarray:
        """Best seen minus best unseen score, float64 [N]: the bias at which the prediction changes.

        +infinity where there is no unseen candidate (or none at all), -infinity where there is no seen one.
        """
        # Subtracted in float64: the difference of two float32 numbers of like size is then exact, so that equal margins
        # stay equal and unlike ones stay apart.
        with np.errstate(invalid="ignore"):
            margins = self.best_seen.astype(np.float64) - self.best_unseen.astype(np.float64)
        return np.where(np.isnan(margins), np.inf, margins)

    def subset(self, keep: np.ndarray) -> ImageScores:
        """Return the images selected by a mask or by indices (which may repeat), in that order."""
        return ImageScores(**{name: getattr(self, name)[..., keep] for name in self._fields})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields by name, ready for an .npz file."""
        return {name: getattr(self, name) for name in self._fields}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ImageScores:
        """Rebuild the record from `to_arrays`; other keys are ignored, a missing one raises ValueError naming it."""
        missing = [name for name in _DTYPES if name not in arrays]
        if missing:
            raise ValueError(f"the stored image scores lack {', '.join(missing)}")
        top = _TOP if all(name in arrays for name in _TOP) else ()
        return cls(**{name: arrays[name] for name in (*_DTYPES, *top)})

    @classmethod
    def concatenate(cls, parts: Sequence[ImageScores]) -> ImageScores:
        """Join records of successive batches; no part at all gives a record of no images."""
        empty = {name: np.zeros(0, dtype) for name, dtype in _DTYPES.items()}
        joined = {name: np.concatenate([empty[name], *(getattr(part, name) for part in parts)]) for name in _DTYPES}
        if parts and all(part.top_others is not None for part in parts):
            joined |= {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in _TOP}
        return cls(**joined)

    @classmethod
    def from_matrix(cls, matrix: np.ndarray, seen: np.ndarray, true_columns: np.ndarray) -> ImageScores:
        """Build the record from a full score matrix [N, P]: the plain way, for small problems and for tests.

        seen: bool [P]. true_columns: int [N], -1 if the pair is no candidate. An entry of -infinity is no candidate
        either. An image without a column counts as unseen, because the training pairs are always candidates.
        """
        matrix = np.asarray(matrix, dtype=np.float32)
        seen, true_columns = np.asarray(seen, dtype=bool), np.asarray(true_columns, dtype=np.int64)
        has_column = true_columns >= 0
        is_seen = np.zeros(len(matrix), dtype=bool)
        is_seen[has_column] = seen[true_columns[has_column]]
        true_score = np.full(len(matrix), -np.inf, dtype=np.float32)
        true_score[has_column] = matrix[has_column, true_columns[has_column]]
        best_seen, seen_winner, seen_ties, logsumexp_seen = _summarise(matrix, np.flatnonzero(seen))
        best_unseen, unseen_winner, unseen_ties, logsumexp_unseen = _summarise(matrix, np.flatnonzero(~seen))
        ties = np.where(is_seen, seen_ties, unseen_ties)
        correct = credit(true_score, np.where(is_seen, best_seen, best_unseen), ties)
        return cls(
            is_seen, best_seen, best_unseen, correct, ties, seen_winner, unseen_winner, true_columns, true_score,
            logsumexp_seen, logsumexp_unseen,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Labels:
    """What the columns and the images are, as indices: candidate_states, candidate_objects int64 [P]; states, objects
    int64 [N], the images' true ones."""

    candidate_states: np.ndarray
    candidate_objects: np.ndarray
    states: np.ndarray
    objects: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), dtype=np.int64))

    def agree(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each image's predicted column int64 [N] has its state, and its object; bool [N], [N].

        The column -1, no prediction, has neither.
        """
        states, objects = np.append(self.candidate_states, -1), np.append(self.candidate_objects, -1)
        return states[columns] == self.states, objects[columns] == self.objects

    def subset(self, keep: np.ndarray) -> Labels:
        """Return the same candidates with the images selected by a mask or by indices."""
        return Labels(self.candidate_states, self.candidate_objects, self.states[keep], self.objects[keep])


def credit(true_score: np.ndarray, best_of_own_group: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Expected accuracy inside the own group when ties are broken at random, float64 [N] (docs/protocol.md, "Ties")."""
    at_top = (true_score == best_of_own_group) & (true_score > -np.inf)
    return np.where(at_top, 1.0 / np.maximum(ties, 1), 0.0)


def _summarise(matrix: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best score, winning column, ties and log-sum-exp of each row over some columns."""
    if len(columns) == 0:
        nothing = np.full(len(matrix), -np.inf)
        return nothing, np.full(len(matrix), -1), np.zeros(len(matrix), dtype=np.int64), nothing
    group = matrix[:, columns]
    best = group.max(axis=1)
    present = best > -np.inf
    winner = np.where(present, columns[group.argmax(axis=1)], -1)
    ties = np.where(present, (group == best[:, None]).sum(axis=1), 0)
    shift = np.where(present, best, 0).astype(np.float64)
    with np.errstate(divide="ignore"):
        log_sum = shift + np.log(np.exp(group - shift[:, None]).sum(axis=1))
    return best, winner, ties, log_sum
