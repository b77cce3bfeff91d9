"""Decoding every picture of a data set once, in worker processes, to know which of them can be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.base import UNREADABLE, read_picture
from datasets.workers import worker_pool

Progress = Callable[[int, int], None]
"""Called with (images read, images in all)."""

CHUNK = 32  # images a worker reads before it reports


def read_all(
    folder: Path, names: Sequence[str], progress: Progress = lambda done, total: None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the SHA-256 of each picture's file, and of each file that is none why not.

    names: paths below `folder`. Every picture is decoded, in as many processes as there are cores.
    """
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
