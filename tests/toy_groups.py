"""The toy data set without some of its images: validation or test of seen pairs alone, of unseen ones, of none."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from datasets.base import CompositionDataset, Phase, Split

Left = Literal["seen", "unseen", "nothing", "one of each"]


def with_images(toy: CompositionDataset, **left: Left) -> CompositionDataset:
    """Return the data set with the images that are named for "val" and "test" alone; under a name of its own."""
    splits = dict(toy.splits)
    phase: Phase
    for phase, what in left.items():  # type: ignore[assignment]
        split = splits[phase]
        seen = toy.seen[split.states, split.objects]
        first = np.isin(np.arange(len(seen)), [np.flatnonzero(seen)[0], np.flatnonzero(~seen)[0]])
        keep = {"seen": seen, "unseen": ~seen, "nothing": np.zeros_like(seen), "one of each": first}[what]
        images = tuple(np.array(split.images)[keep].tolist())
        tags = {name: values[keep] for name, values in split.slices.items()}
        splits[phase] = Split(phase, images, split.states[keep], split.objects[keep], tags)
    name = "_".join(["toy", *(f"{phase}_{what.replace(' ', '_')}" for phase, what in left.items())])
    return replace(toy, name=name, splits=splits, digest=name)
