"""Looking at every picture of a data set once, in worker processes: which of them can be read, and what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.content import remembered
from datasets.pictures import Look, UnreadablePicture, glance_at, look_at
from datasets.system import worker_pool

Progress = Callable[[int, int], None]
"""Called with (images read, images in all)."""

CHUNK = 32  # images a worker reads before it reports

LOOKS = "looks-1"
"""Where looks are remembered. Raise the number when the same file would have another look than before."""


class Reading(NamedTuple):
    """What reading found, by name.

    hashes: SHA-256 of each picture's file
    looks: what each picture is

    broken: of each file that is no picture why not; it is in neither of the others.
    """

    hashes: dict[str, str]
    broken: dict[str, str]
    looks: dict[str, Look]


def read_all(folder: Path, names: Sequence[str], progress: Progress = lambda done, total: None) -> Reading:
    """Read all pictures.

    names: paths below `folder`. Every picture is decoded, in as many processes as there are cores.
    """
    found = Reading({}, {}, {})
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    pool = worker_pool()
    try:
        for chunk, results in zip(chunks, pool.map(_read, [folder] * len(chunks), chunks), strict=True):
            for name, (digest, look) in zip(chunk, results, strict=True):
                if isinstance(look, str):
                    found.broken[name] = look
                else:
                    found.hashes[name], found.looks[name] = digest, look
            progress(len(found.hashes) + len(found.broken), len(names))
    finally:
        pool.shutdown(cancel_futures=True)  # what is left is not read when somebody stops the check
    return found


def looks_of(paths: Sequence[Path]) -> list[Look]:
    """Return what each picture is (absolute paths), remembered like contents; a plain look for one that is unreadable.

    Files of plain pictures are not decoded for that. A missing file is a UserError.
    """
    return [Look.parse(text) if text else Look() for text in remembered(paths, LOOKS, _glances)]


def _glances(paths: Sequence[Path]) -> list[str | None]:
    if len(paths) <= CHUNK:  # not worth a process
        return _glance(paths)
    pool = worker_pool()
    try:
        chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        return [text for texts in pool.map(_glance, chunks) for text in texts]
    finally:
        pool.shutdown(cancel_futures=True)


def _glance(paths: Sequence[Path]) -> list[str | None]:
    texts: list[str | None] = []
    for path in paths:
        try:
            texts.append(glance_at(path).text)
        except UnreadablePicture:  # said by whoever needs its pixels; it may be whole the next time
            texts.append(None)
    return texts


def _read(folder: Path, names: Sequence[str]) -> list[tuple[str, Look | str]]:
    """Return of each file its SHA-256, and its look or why it is no picture. Runs in a worker process."""
    results: list[tuple[str, Look | str]] = []
    for name in names:
        try:
            look = look_at(folder / name)
            with (folder / name).open("rb") as file:
                results.append((hashlib.file_digest(file, "sha256").hexdigest(), look))
        except UnreadablePicture as error:
            results.append(("", str(error)))
        except OSError as error:  # decoded a moment ago
            results.append(("", error.strerror or type(error).__name__))
    return results
