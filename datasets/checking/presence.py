"""Whether every image that a data set lists is there, by listing folders instead of asking for each file.

Where images may be left out, every picture is decoded as well, so that one that cannot be read counts as missing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.base import CompositionDataset, Phase, Split
from datasets.checking.reading import read_all
from errors import UserError, counted

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
    """Return the data set if all its images are there, or, up to `allowed`, without those that are not.

    allowed: with 0, files are looked for and not opened; with more, all of them are read, and what is no picture is
    left out like what is missing. `left_out` names them, and the digest is another one, because the numbers are of
    fewer images. More than allowed, or a split without any image, is a `UserError`. A class that reads its images in a
    way of its own is left as it is.
    """
    if type(dataset).load_image is not CompositionDataset.load_image:
        return dataset
    listed = {name for split in dataset.splits.values() for name in split.images}
    absent = absent_names(dataset.images, listed)
    broken = read_all(dataset.images, sorted(listed - absent)).broken if allowed else {}
    gone = {
        phase: np.array([name in absent or name in broken for name in split.images], dtype=bool)
        for phase, split in dataset.splits.items()
    }
    count = sum(int(rows.sum()) for rows in gone.values())
    if count == 0:
        return dataset
    what = "missing or unreadable" if broken else "missing"
    is_or_are = "is" if count == 1 else "are"
    names = sorted(split.images[row] for phase, split in dataset.splits.items() for row in np.flatnonzero(gone[phase]))
    total = sum(len(split) for split in dataset.splits.values())
    shown = ", ".join(f"{name} ({broken[name]})" if name in broken else name for name in names[:SHOWN])
    shown += " and so on" if count > SHOWN else ""
    emptied = [phase for phase, rows in gone.items() if rows.all()]
    if count > allowed or emptied:
        there = f"{what.capitalize()} in {dataset.images}: {shown}."
        step = f"Restore them, or leave them out with --allow-missing {count}, which makes other data of it."
        if emptied:
            there = f"{there} Nothing is left of {', '.join(emptied)}."
            step = "Put the images there."
        raise UserError(
            f"{count:,} of the {counted(total, 'image')} of {dataset.name} {is_or_are} {what}.", there, step
        )
    kept = {phase: part_of(split, ~gone[phase]) for phase, split in dataset.splits.items()}
    unpictured = len(_pairs(dataset.splits["train"])) - len(_pairs(kept["train"]))
    note = f"{count:,} of the {counted(total, 'image')} of {dataset.name} {is_or_are} {what} and left out: {shown}."
    if unpictured:
        note += f" {counted(unpictured, 'training pair has', 'training pairs have')} no image left."
    return replace(
        dataset,
        splits=kept,
        digest=hashlib.sha256("\n".join([dataset.digest, *names]).encode()).hexdigest(),
        notes=(*dataset.notes, note),
        left_out=tuple(names),
    )


def part_of(split: Split, keep: np.ndarray) -> Split:
    """Return the split with some of its images; keep: bool [N]."""
    images = tuple(name for name, kept in zip(split.images, keep, strict=True) if kept)
    slices = {name: tags[keep] for name, tags in split.slices.items()}
    groups = tuple(group for group, kept in zip(split.groups, keep, strict=True) if kept) if split.groups else ()
    return Split(split.name, images, split.states[keep], split.objects[keep], slices, groups)


def _pairs(split: Split) -> set[tuple[int, int]]:
    return set(zip(split.states.tolist(), split.objects.tolist(), strict=True))
