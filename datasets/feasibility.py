"""Feasibility: how plausible an unseen pair is, judged by word vectors (Mancini et al., CVPR 2021).

For an unseen pair of state a and object o, with T the training pairs and the cosine of word vectors:

    f_object = max { cos(o, o') : (a, o') in T }, -1 if there is none
    f_state  = max { cos(a, a') : (a', o) in T }, -1 if there is none
    f(a, o)  = (f_object + f_state) / 2

A pair is plausible if its state is known of a similar object and its object in a similar state. Seen pairs hold 0, as
in the released tables. Those of MIT-States, UT-Zappos and C-GQA lie in `splits/feasibility` (made by the authors of CSP
with GloVe 6B, 300 dimensions); for other data they are made from a file of word vectors or from CLIP's text features.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from datasets import cache
from datasets.files import write_aside
from datasets.word_vectors import label_vectors
from errors import UserError

if TYPE_CHECKING:
    from datasets.base import CompositionDataset

Source = Literal["shipped", "glove", "clip", "table"]

SHIPPED = Path(__file__).parent / "splits" / "feasibility"
_VERSION = 1  # of the scores in the cache; raise when they come out otherwise


@dataclass(frozen=True, eq=False)
class Feasibility:
    """The feasibility of every pair and where it comes from.

    scores: float32 [A, O], 0 where the pair is seen
    path: the file they lie in
    """

    scores: np.ndarray
    source: Source
    path: Path

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the scores."""
        return table_digest(self.scores)


def table_digest(scores: np.ndarray) -> str:
    """Return the hexadecimal SHA-256 of scores [A, O] in single precision, whatever the machine."""
    return hashlib.sha256(scores.astype("<f4").tobytes()).hexdigest()


def feasibility_scores(state_vectors: np.ndarray, object_vectors: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the feasibility of every pair, float32 [A, O], 0 where it is seen (the equations above).

    state_vectors: [A, D], of any length but 0
    object_vectors: [O, D], of any length but 0
    seen: bool [A, O]

    Computed in float64. ValueError for vectors of other shapes, or with an entry that is not finite, or all zero.
    """
    scores = (
        _best_partner(seen, _cosines(object_vectors, seen.shape[1]))
        + _best_partner(seen.T, _cosines(state_vectors, seen.shape[0])).T
    ) / 2
    return np.where(seen, 0.0, scores).astype(np.float32)


def _cosines(vectors: np.ndarray, count: int) -> np.ndarray:
    """Cosine of every two of `count` vectors, float64 [count, count]."""
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != count:
        raise ValueError(f"word vectors have the shape {vectors.shape}, there are {count} words")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("a word vector is zero or not finite")
    units = vectors / lengths
    # Not units @ units.T: BLAS adds up in another order with several threads, and these are part of a run's identity.
    return np.clip(np.einsum("id,jd->ij", units, units), -1.0, 1.0)


def _best_partner(seen: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Largest cosine between k and the partners of i, the j with seen[i, j]: [I, K]; -1 for an i without partners.

    k itself may be among the partners only where (i, k) is seen, and that entry is nobody's feasibility.
    """
    row, partner = np.nonzero(seen)  # sorted by row, so that the partners of a row are a run
    best = np.full((len(seen), cosines.shape[1]), -1.0)
    if len(row):
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        best[row[starts]] = np.maximum.reduceat(cosines[partner], starts, axis=0)
    return best


def shipped_names() -> list[str]:
    """Return the data sets whose tables come with the suite."""
    return sorted(path.stem for path in SHIPPED.glob("*.npz"))


def load_shipped(name: str) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray, np.ndarray]:
    """Return (states, objects, seen bool [A, O], scores float32 [A, O]) of a table that comes with the suite."""
    with np.load(SHIPPED / f"{name}.npz", allow_pickle=False) as stored:
        states, objects = (tuple(stored[key].tolist()) for key in ("states", "objects"))
        size = len(states) * len(objects)
        seen = np.unpackbits(stored["seen"], count=size).astype(bool).reshape(len(states), -1)
        planes = stored["planes"]
    scores = np.zeros(seen.shape, dtype=np.float32)
    scores[~seen] = np.ascontiguousarray(planes.T).view("<f4").reshape(-1)
    return states, objects, seen, scores


def shipped(dataset: CompositionDataset) -> Feasibility | None:
    """Return the table that belongs to the data set: of the same words and the same training pairs; else None."""
    vocabulary = dataset.vocabulary
    for name in shipped_names():
        states, objects, seen, scores = load_shipped(name)
        if (states, objects) == (vocabulary.states, vocabulary.objects) and np.array_equal(seen, dataset.seen):
            return Feasibility(scores, "shipped", SHIPPED / f"{name}.npz")
    return None


def from_glove(dataset: CompositionDataset, path: Path) -> Feasibility:
    """Return the scores from a file of word vectors, from the cache if they were made from the same content before."""
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        content = ""  # reading the words will say what is wrong

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        states, objects = dataset.vocabulary.states, dataset.vocabulary.objects
        both = label_vectors(path, [*states, *objects])
        return both[: len(states)], both[len(states) :]

    return cached(dataset, "glove", content, vectors)


def cached(
    dataset: CompositionDataset, source: Source, identity: str, vectors: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> Feasibility:
    """Return scores from the cache folder `feasibility`, or make them of `vectors()` and keep them there.

    identity: what decides the vectors (of states [A, D] and of objects [O, D]) beside the words. A damaged file is made
    anew; a folder that cannot be written is a `UserError`.
    """
    vocabulary = dataset.vocabulary
    pairs = np.argwhere(dataset.seen).tolist()
    identities = [_VERSION, source, identity, vocabulary.states, vocabulary.objects, pairs]
    key = hashlib.sha256(json.dumps(identities).encode()).hexdigest()
    readable = re.sub(r"[^\w.-]+", "-", dataset.name)  # Windows has no colon in names of files
    path = cache.home() / "feasibility" / f"{readable}-{source}-{key[:16]}.npz"
    scores = _read(path, key, dataset.seen.shape)
    if scores is None:
        scores = feasibility_scores(*vectors(), dataset.seen)
        states, objects = np.array(vocabulary.states), np.array(vocabulary.objects)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_aside(
                path,
                lambda file: np.savez_compressed(
                    file, states=states, objects=objects, feasibility=scores, seen=dataset.seen, key=np.array(key)
                ),
            )
        except OSError as error:
            raise UserError(
                f"The feasibility scores cannot be written to {path}.",
                f"The system says: {error.strerror or error}.",
                "Free some space, or set CZSL_HOME to a folder that can be written.",
            ) from error
    return Feasibility(scores, source, path)


def _read(path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            fits = str(stored["key"]) == key and stored["feasibility"].shape == shape
            return stored["feasibility"] if fits else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
