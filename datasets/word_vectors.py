"""Word vectors of labels, from a text file of GloVe or fastText."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from errors import UserError

RENAMED = {
    "faux.fur": "fake fur",
    "faux.leather": "fake leather",
    "full.grain.leather": "thick leather",
    "hair.calf": "hair leather",
    "patent.leather": "shiny leather",
    "nubuck": "grainy leather",
    "boots.ankle": "ankle boots",
    "boots.knee.high": "knee high boots",
    "boots.mid-calf": "midcalf boots",
    "shoes.boat.shoes": "boat shoes",
    "shoes.clogs.and.mules": "clogs shoes",
    "shoes.flats": "flats shoes",
    "shoes.heels": "heels",
    "shoes.loafers": "loafers",
    "shoes.oxfords": "oxford shoes",
    "shoes.sneakers.and.athletic.shoes": "sneakers",
}
"""What the released codes look up instead of a (lower-cased) label of UT-Zappos."""


def words_of(label: str) -> tuple[str, ...]:
    """Return the words whose vectors are averaged for a label: lower-cased, renamed, parted at blanks, "_" and ".".

    >>> words_of("Boots.Mid-Calf"), words_of("Suede"), words_of("fire_hydrant")
    (('midcalf', 'boots'), ('suede',), ('fire', 'hydrant'))
    """
    label = label.lower()
    return tuple(RENAMED.get(label, label).replace("_", " ").replace(".", " ").split())


def read_vectors(path: Path, words: Collection[str]) -> dict[str, np.ndarray]:
    """Return the vectors, float32 [D], of those of the words that a text file of GloVe or fastText has.

    A line is a word and its D numbers, parted by blanks; a first line of two numbers (fastText) is skipped, and the
    first of equal words counts. A file that cannot be read, or a line of other length or content, is a `UserError`.
    """
    wanted = {word.encode() for word in words}
    found: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                word, _, numbers = line.partition(b" ")
                if word not in wanted or word.decode() in found or (number == 1 and len(line.split()) == 2):
                    continue
                vector = _numbers(numbers)
                if vector is None or any(len(vector) != len(other) for other in found.values()):
                    raise UserError(
                        f"The word vectors in {path} cannot be used.",
                        f"Line {number}, of the word '{word.decode()}', is not a vector like the others.",
                        "Fetch the file again; a line is a word and its numbers, as in glove.6B.300d.txt.",
                    )
                found[word.decode()] = vector
    except OSError as error:
        raise UserError(
            f"The word vectors {path} cannot be read.",
            f"The system says: {error.strerror or error}.",
            "Unpack https://nlp.stanford.edu/data/glove.6B.zip and pass glove:<folder>/glove.6B.300d.txt.",
        ) from error
    return found


def _numbers(text: bytes) -> np.ndarray | None:
    try:
        vector = np.array(text.split(), dtype=np.float32)
    except ValueError:
        return None
    return vector if len(vector) and np.isfinite(vector).all() else None


def label_vectors(path: Path, labels: Sequence[str]) -> np.ndarray:
    """Return for each label the mean of its words' vectors, float32 [N, D]; missing words are a `UserError`."""
    words = {label: words_of(label) for label in labels}
    vectors = read_vectors(path, {word for parts in words.values() for word in parts})
    missing = sorted({word for parts in words.values() for word in parts} - vectors.keys())
    empty = sorted(label for label, parts in words.items() if not parts)
    if missing or empty:
        raise UserError(
            f"{len(missing) + len(empty)} words have no vector in {path}.",
            f"They are {', '.join([*missing, *(f'the label {label!r}' for label in empty)])}.",
            "Use a file with more words, such as glove.6B.300d.txt, or CLIP as the source.",
        )
    return np.stack([np.mean([vectors[word] for word in words[label]], axis=0) for label in labels])
