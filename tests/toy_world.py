"""A toy data set for the tests: four states, four objects, a dozen seen pairs, rendered as icon_states is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.base import CompositionDataset, Split, Vocabulary
from datasets.icons.paint import STATES
from datasets.icons.render import render, stream

TOY_OBJECTS = ("car", "dog", "house", "tree")
TOY_STATES = ("golden", "mossy", "outlined", "striped")
TOY_UNSEEN = {"val": (("golden", "dog"), ("striped", "tree")), "test": (("mossy", "house"), ("outlined", "car"))}


def make_toy(root: Path, train_images: int = 4, name: str = "toy") -> CompositionDataset:
    """Render 4 states x 4 objects: 12 seen pairs, 2 unseen ones in validation and 2 others in test."""
    unseen = {pair for pairs in TOY_UNSEEN.values() for pair in pairs}
    every = [(state, obj) for state in TOY_STATES for obj in TOY_OBJECTS]
    train = tuple(pair for pair in every if pair not in unseen)
    lists = {"train": train, "val": train[:6] + TOY_UNSEEN["val"], "test": train[6:] + TOY_UNSEEN["test"]}
    vocabulary = Vocabulary.from_pairs(every)
    splits = {}
    for phase, pairs in lists.items():
        names, labels = [], []
        for state, obj in pairs:
            for number in range(train_images if phase == "train" else 3):
                file = f"{state}_{obj}/{phase}-{number}.png"
                path = root / "images" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():  # by rename: processes that share the folder never see half an image
                    pixels = render(stream("toy", file), obj, STATES[state].paint, turn=STATES[state].turn)
                    draft = path.with_suffix(f".{os.getpid()}")
                    Image.fromarray(pixels).save(draft, format="PNG")
                    draft.replace(path)
                names.append(file)
                labels.append((state, obj))
        index = vocabulary.indices(labels)
        kind = np.array([STATES[state].kind for state, _ in labels])
        splits[phase] = Split(phase, tuple(names), index[:, 0], index[:, 1], {"kind": kind})
    return CompositionDataset(
        name, "toy icons", root, vocabulary, train, lists["val"], lists["test"], splits, digest="toy"
    )
