"""Whether the pictures of a data set can be read, and which of them are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.base import PHASES, UNREADABLE, CompositionDataset, read_picture
from datasets.presence import missing_images
from datasets.workers import worker_pool

Progress = Callable[[int, int], None]
"""Called with (images read, images in all)."""

CHUNK = 32  # images a worker reads before it reports
SHOWN = 10  # names in a finding


class Finding(NamedTuple):
    """A sentence on what was found. problem: whether the data should not be used like this."""

    text: str
    problem: bool = True


def some(names: Iterable[str]) -> str:
    """Return the first names and how many more there are.

    >>> some(["a", "b"])
    'a, b'
    """
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def image_findings(dataset: CompositionDataset, fast: bool, progress: Progress) -> tuple[list[Finding], str | None]:
    """Return what is wrong with the image files, and the SHA-256 of all of them (names and contents) if none is.

    fast: only whether they exist. Otherwise every picture is decoded, in as many processes as there are cores.
    """
    missing = missing_images(dataset)
    absent = sorted({dataset.splits[p].images[row] for p in PHASES for row in np.flatnonzero(missing[p])})
    found = []
    if absent:
        found.append(Finding(f"{len(absent):,} images are missing in {dataset.images}: {some(absent)}."))
    if fast:
        return found, None
    names = sorted({name for split in dataset.splits.values() for name in split.images}.difference(absent))
    hashes, broken = _read_all(dataset.images, names, progress)
    if broken:
        texts = [f"{name} ({reason})" for name, reason in broken.items()]
        found.append(Finding(f"{len(broken):,} images cannot be read: {some(texts)}."))
    training = {hashes[name] for name in dataset.splits["train"].images if name in hashes}
    own = set(dataset.splits["train"].images)
    evaluated = {name for phase in ("val", "test") for name in dataset.splits[phase].images if name not in own}
    copies = sorted(name for name in evaluated if hashes.get(name) in training)
    if copies:
        text = f"{len(copies):,} val or test images equal a training image byte for byte: {some(copies)}."
        found.append(Finding(text, problem=False))
    if absent or broken:
        return found, None
    return found, hashlib.sha256("".join(f"{hashes[name]} {name}\n" for name in names).encode()).hexdigest()


def _read_all(folder: Path, names: Sequence[str], progress: Progress) -> tuple[dict[str, str], dict[str, str]]:
    """Return the SHA-256 of each picture, and of each file that is none why not."""
    hashes: dict[str, str] = {}
    broken: dict[str, str] = {}
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    pool = worker_pool()
    try:
        for chunk, results in zip(chunks, pool.map(_read, [folder] * len(chunks), chunks), strict=True):
            for name, (digest, reason) in zip(chunk, results, strict=True):
                if reason:
                    broken[name] = reason
                else:
                    hashes[name] = digest
            progress(len(hashes) + len(broken), len(names))
    finally:
        pool.shutdown(cancel_futures=True)  # what is left is not read when somebody stops the check
    return hashes, broken


def _read(folder: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return of each file its SHA-256 and why it is no picture, "" if it is one. Runs in a worker process."""
    results = []
    for name in names:
        digest, reason = "", ""
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            read_picture(folder / name)
        except UNREADABLE as error:
            # Pillow's sentence begins with the path, which the name gives already.
            reason = " ".join(str(error).replace(str(folder / name), "file").split()) or type(error).__name__
        results.append((digest, reason))
    return results
