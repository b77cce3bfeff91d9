"""Whether the pictures of a data set can be read, and which of them are the same."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from datasets.base import PHASES, CompositionDataset
from datasets.checking.presence import missing_images
from datasets.checking.reading import Progress, read_all
from datasets.pictures import look_sentences
from errors import counted, some


class Finding(NamedTuple):
    """A sentence on what was found. problem: whether the data should not be used like this."""

    text: str
    problem: bool = True


def image_findings(dataset: CompositionDataset, fast: bool, progress: Progress) -> tuple[list[Finding], str | None]:
    """Return what is wrong with the image files, and the SHA-256 of all of them (names and contents) if none is.

    fast: only whether they exist. Otherwise every picture is decoded, in as many processes as there are cores.
    """
    missing = missing_images(dataset)
    absent = sorted({dataset.splits[p].images[row] for p in PHASES for row in np.flatnonzero(missing[p])})
    found = []
    if absent:
        found.append(
            Finding(f"{counted(len(absent), 'image is', 'images are')} missing in {dataset.images}: {some(absent)}.")
        )
    if fast:
        return found, None
    names = sorted({name for split in dataset.splits.values() for name in split.images}.difference(absent))
    hashes, broken, looks = read_all(dataset.images, names, progress)
    if broken:
        texts = [f"{name} ({reason})" for name, reason in broken.items()]
        found.append(Finding(f"{counted(len(broken), 'image')} cannot be read: {some(texts)}."))
    found += [Finding(text, problem=False) for text in look_sentences(list(looks.values()), dataset.turned)]
    training = {hashes[name] for name in dataset.splits["train"].images if name in hashes}
    own = set(dataset.splits["train"].images)
    evaluated = {name for phase in ("val", "test") for name in dataset.splits[phase].images if name not in own}
    copies = sorted(name for name in evaluated if hashes.get(name) in training)
    if copies:
        count = counted(len(copies), "val or test image equals", "val or test images equal")
        text = f"{count} a training image byte for byte: {some(copies)}."
        found.append(Finding(text, problem=False))
    if absent or broken:
        return found, None
    return found, hashlib.sha256("".join(f"{hashes[name]} {name}\n" for name in names).encode()).hexdigest()
