"""Vocabulary, candidates, splits and the data set record that every reader returns.

Nothing here imports torch. Index conventions (protocol A.2, A.4): states and objects are the sorted unique words of the
three pair lists; a pair is two indices, never a joined string; the training class of an image is its row in the
training candidates, in the order of `train_pairs.txt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.pictures import UnreadablePicture
from datasets.pictures import read_picture as read_picture  # where plugins may look for it
from errors import UserError

World = Literal["closed", "open"]
Phase = Literal["train", "val", "test"]
Pair = tuple[str, str]

PHASES: tuple[Phase, ...] = ("train", "val", "test")


def clean_label(name: str) -> str:
    """Return a label as prompts spell it: "." becomes a space, lower case, nothing more (protocol A.6).

    >>> clean_label("Boots.Mid-Calf")
    'boots mid-calf'
    """
    return name.replace(".", " ").lower()


@dataclass(frozen=True)
class Vocabulary:
    """The primitives of a data set. `states` and `objects` are raw labels in code-point order."""

    states: tuple[str, ...]
    objects: tuple[str, ...]

    @classmethod
    def from_pairs(cls, pairs: Iterable[Pair]) -> Vocabulary:
        """Build the vocabulary of all (state, object) names that occur in `pairs`."""
        pairs = list(pairs)
        return cls(tuple(sorted({state for state, _ in pairs})), tuple(sorted({obj for _, obj in pairs})))

    @cached_property
    def _state_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.states)}

    @cached_property
    def _object_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.objects)}

    def indices(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the int64 [P, 2] (state, object) indices of named pairs; an unknown word is a `UserError`."""
        rows = []
        for state, obj in pairs:
            if state not in self._state_index or obj not in self._object_index:
                kind, word = ("state", state) if state not in self._state_index else ("object", obj)
                raise UserError(
                    f"The {kind} '{word}' of the pair '{state} {obj}' is not in the vocabulary.",
                    f"It has {len(self.states)} states and {len(self.objects)} objects.",
                    "Check the pair lists and the metadata for a misspelt label.",
                )
            rows.append((self._state_index[state], self._object_index[obj]))
        return np.array(rows, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The pairs an image is scored against, in column order.

    pairs: int64 [P, 2], (state index, object index)
    seen: bool [P], true where the pair has training images
    feasibility: float32 [P] or None; only an open world has it
    """

    vocabulary: Vocabulary
    pairs: np.ndarray
    seen: np.ndarray
    world: World = "closed"
    feasibility: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def states(self) -> np.ndarray:
        """State index of each candidate, int64 [P]."""
        return self.pairs[:, 0]

    @property
    def objects(self) -> np.ndarray:
        """Object index of each candidate, int64 [P]."""
        return self.pairs[:, 1]

    @cached_property
    def _column(self) -> np.ndarray:
        table = np.full((len(self.vocabulary.states), len(self.vocabulary.objects)), -1, dtype=np.int64)
        table[self.states, self.objects] = np.arange(len(self))
        return table

    def index_of(self, states: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Return the column of each (state, object), int64 [N]; -1 where the pair is no candidate."""
        return self._column[states, objects]

    def names(self) -> list[Pair]:
        """Return the candidates as (state, object) names."""
        return [(self.vocabulary.states[state], self.vocabulary.objects[obj]) for state, obj in self.pairs]

    def subset(self, keep: np.ndarray) -> Candidates:
        """Return the candidates selected by a mask or by column indices, in that order."""
        feasibility = None if self.feasibility is None else self.feasibility[keep]
        return Candidates(self.vocabulary, self.pairs[keep], self.seen[keep], self.world, feasibility)


@dataclass(frozen=True, eq=False)
class Split:
    """One phase's images. `images` are paths below the data set's `images/` folder.

    states, objects: int64 [N]
    slices: named per-image tags (str arrays [N]) to break results down by, e.g. "kind"
    groups: the source that each image was taken from (a photograph, a video, a patient), "" where nobody says; () where
        none is known
    """

    name: Phase
    images: tuple[str, ...]
    states: np.ndarray
    objects: np.ndarray
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class CompositionDataset:
    """A CZSL data set: vocabulary, pair lists (train in file order), splits, and where the images lie.

    digest: hexadecimal SHA-256 of everything that changes numbers (pixels or metadata, and pair lists)
    feasibility: float32 [A, O] of every pair (`feasibility.py`), None where an open world has no such scores
    image_folder: what the splits' paths start from, by default `images` below root; where it is given, the images are
        the user's own, and nothing will ever suggest to delete them
    notes: sentences that a person who starts a run should read
    left_out: images that are listed but missing, and were left out of the splits by the user's leave
    turned: whether pictures whose EXIF data have an orientation are turned upright; if so, the digest has to tell
    """

    name: str
    title: str
    root: Path
    vocabulary: Vocabulary
    train_pairs: tuple[Pair, ...]
    val_pairs: tuple[Pair, ...]
    test_pairs: tuple[Pair, ...]
    splits: Mapping[Phase, Split]
    digest: str
    feasibility: np.ndarray | None = None
    image_folder: Path | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    turned: bool = False

    @cached_property
    def seen(self) -> np.ndarray:
        """Whether each pair is a training pair, bool [A, O]."""
        table = np.zeros((len(self.vocabulary.states), len(self.vocabulary.objects)), dtype=bool)
        train = self.vocabulary.indices(self.train_pairs)
        table[train[:, 0], train[:, 1]] = True
        return table

    def candidates(self, phase: Phase, world: World = "closed") -> Candidates:
        """Return the candidates of a phase.

        train: the training pairs in file order
        val, test: in the closed world the sorted union of training pairs and the phase's own pairs (the other phase's
            unseen pairs are no candidates); in the open world every state x object, state-major, with feasibility where
            the data set has it
        """
        if phase == "train":
            pairs = self.vocabulary.indices(self.train_pairs)
            return Candidates(self.vocabulary, pairs, np.ones(len(pairs), dtype=bool), "closed")
        if world == "open":
            n_states, n_objects = len(self.vocabulary.states), len(self.vocabulary.objects)
            pairs = np.stack(np.divmod(np.arange(n_states * n_objects, dtype=np.int64), n_objects), axis=1)
        else:
            own = self.val_pairs if phase == "val" else self.test_pairs
            pairs = self.vocabulary.indices(sorted(set(self.train_pairs) | set(own)))
        states, objects = pairs.T
        feasibility = self.feasibility[states, objects] if world == "open" and self.feasibility is not None else None
        return Candidates(self.vocabulary, pairs, self.seen[states, objects], world, feasibility)

    @property
    def images(self) -> Path:
        """The folder that the splits' paths start from."""
        return self.root / "images" if self.image_folder is None else self.image_folder

    def image_path(self, phase: Phase, index: int) -> Path:
        """Return where image `index` of a phase lies."""
        return self.images / self.splits[phase].images[index]

    def load_image(self, phase: Phase, index: int) -> Image.Image:
        """Return image `index` of a phase as an RGB picture; a missing or unreadable file is a `UserError`."""
        path = self.image_path(phase, index)
        try:
            return read_picture(path, turned=self.turned)
        except UnreadablePicture as error:
            raise UserError(
                f"The image '{path.name}' of the {phase} split of {self.name} cannot be read ({error}).",
                f"It should lie at {path}.",
                f"Restore the file, or delete {self.root} to have it prepared again."
                if self.image_folder is None
                else "Restore the file, or pass --allow-missing 1 to run without it.",
            ) from error
