"""A data set whose labels are real and whose images are made: noise from a stream of its own, nothing on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cost.labels import label_space
from datasets.base import PHASES, CompositionDataset, Phase, Split, Vocabulary
from datasets.streams import stream

PIXELS = 96
"""Width and height of a made image."""


class MadeImages(CompositionDataset):
    """A data set that draws an image where another reads a file."""

    def load_image(self, phase: Phase, index: int) -> Image.Image:
        """Return image `index` of a phase: noise, always the same."""
        pixels = stream("made images", self.name, phase, index).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def made_dataset(labels: str, images: int, pairs: int | None = None) -> CompositionDataset:
    """Return a data set with the label space `labels` and so many made images in each phase.

    pairs: take so many training pairs of few words, and one unseen pair for validation and for test; None takes all.
    Images take the pairs of their phase in turn. An unknown label space is a `UserError`.
    """
    real = label_space(labels).dataset
    lists = {"train": real.train_pairs, "val": real.val_pairs, "test": real.test_pairs}
    if pairs is not None:
        ranks = real.vocabulary.indices(real.train_pairs).max(axis=1)  # pairs of few words, so that some are unseen
        train = tuple(real.train_pairs[row] for row in np.argsort(ranks, kind="stable")[:pairs])
        known, seen = (set(words) for words in zip(*train, strict=True)), set(train)
        states, objects = (sorted(words) for words in known)
        unseen = [(state, obj) for state in states for obj in objects if (state, obj) not in seen]
        lists = {"train": train, "val": (*train[:2], *unseen[:1]), "test": (*train[-2:], *unseen[-1:])}
    vocabulary = Vocabulary.from_pairs(pair for phase in PHASES for pair in lists[phase])
    splits = {}
    for phase in PHASES:
        own = vocabulary.indices(lists[phase])
        index = own[np.arange(images) * max(1, len(own) // images) % len(own)]
        names = tuple(f"{phase}-{number}" for number in range(images))
        splits[phase] = Split(phase, names, index[:, 0], index[:, 1])
    return MadeImages(
        name=f"made-{labels}",
        title=f"made images of {labels}",
        root=Path(),
        vocabulary=vocabulary,
        train_pairs=lists["train"],
        val_pairs=lists["val"],
        test_pairs=lists["test"],
        splits=splits,
        digest=f"made {labels} {images} {pairs}",
    )
