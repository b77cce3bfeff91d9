"""Whether every image that a data set lists is there, by listing folders instead of asking for each file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.base import CompositionDataset, Phase, Split
from errors import UserError

SHOWN = 5  # names in a message


def missing_images(dataset: CompositionDataset) -> dict[Phase, np.ndarray]:
    """Return for each phase which of its images have no file, bool [N]."""
    absent = absent_names(dataset.images, {name for split in dataset.splits.values() for name in split.images})
    return {
        phase: np.array([name in absent for name in split.images], dtype=bool)
        for phase, split in dataset.splits.items()
    }


def absent_names(folder: Path, names: Iterable[str]) -> set[str]:
    """Return those of the paths below `folder` that do not exist."""
    by_parent: dict[str, list[str]] = {}
    for name in names:
        by_parent.setdefault(str(PurePosixPath(name).parent), []).append(name)
    absent: set[str] = set()
    for parent, members in by_parent.items():
        try:
            with os.scandir(folder / parent) as listing:
                there = {item.name for item in listing}
        except OSError:
            absent.update(members)
            continue
        # Some file systems spell a name in another way than the list and find it all the same.
        absent.update(n for n in members if PurePosixPath(n).name not in there and not (folder / n).exists())
    return absent


def with_images_there(dataset: CompositionDataset, allowed: int = 0) -> CompositionDataset:
    """Return the data set if all its images are there, or, up to `allowed`, without those that are missing.

    What was left out is in `left_out`, and the digest is another one, because the numbers are those of fewer images.
    More missing images than allowed, or a split without any, is a `UserError`. A class that reads its images in a way
    of its own is left as it is.
    """
    if type(dataset).load_image is not CompositionDataset.load_image:
        return dataset
    missing = missing_images(dataset)
    count = sum(int(gone.sum()) for gone in missing.values())
    if count == 0:
        return dataset
    names = sorted(
        split.images[row] for phase, split in dataset.splits.items() for row in np.flatnonzero(missing[phase])
    )
    total = sum(len(split) for split in dataset.splits.values())
    listed = ", ".join(names[:SHOWN]) + (" and so on" if count > SHOWN else "")
    emptied = [phase for phase, gone in missing.items() if gone.all()]
    if count > allowed or emptied:
        there = f"Missing in {dataset.images}: {listed}."
        step = f"Restore them, or leave them out with --allow-missing {count}, which makes other data of it."
        if emptied:
            there = f"{there} Nothing is left of {', '.join(emptied)}."
            step = "Put the images there."
        raise UserError(f"{count:,} of the {total:,} images of {dataset.name} are missing.", there, step)
    kept = {phase: _part(split, ~missing[phase]) for phase, split in dataset.splits.items()}
    unpictured = len(_pairs(dataset.splits["train"])) - len(_pairs(kept["train"]))
    note = f"{count} of the {total:,} images of {dataset.name} are missing and left out: {listed}."
    if unpictured:
        note += f" {unpictured} training pairs have no image left."
    return replace(
        dataset,
        splits=kept,
        digest=hashlib.sha256("\n".join([dataset.digest, *names]).encode()).hexdigest(),
        notes=(*dataset.notes, note),
        left_out=tuple(names),
    )


def _part(split: Split, keep: np.ndarray) -> Split:
    images = tuple(name for name, kept in zip(split.images, keep, strict=True) if kept)
    slices = {name: tags[keep] for name, tags in split.slices.items()}
    return Split(split.name, images, split.states[keep], split.objects[keep], slices)


def _pairs(split: Split) -> set[tuple[int, int]]:
    return set(zip(split.states.tolist(), split.objects.tolist(), strict=True))
