"""A folder of frozen features: where it lies, its lock, its index, and whether a shard is what the index says.

Nothing here imports torch, so that `cache list` answers at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from datasets import cache
from datasets.files import acquire, write_whole
from errors import UserError

FORMAT = 1
"""Version of the files. Raise it when the same key would mean other features than before."""

INDEX = "index.json"
PATIENCE = 0.5  # seconds between two looks at a lock that another process holds
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a file system answers that may only be read."""


def silent(message: str) -> None:
    """Tell nobody."""


def root() -> Path:
    """Return the folder of all features; it is made when something is written."""
    return cache.home() / "features"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The image features {folder.name} cannot be kept.",
            f"The folder {folder.parent} answers: {error.strerror or error}; nothing half written was left there.",
            "Free space there (see 'bench.py cache list'), choose another CZSL_HOME, or pass --no-feature-cache.",
        ) from error


@contextmanager
def alone(
    folder: Path, notify: Callable[[str], None] = silent, pause: Callable[[], None] = lambda: None, wait: bool = True
) -> Iterator[None]:
    """Hold the lock of a folder of features; `wait` False raises filelock's Timeout if another process holds it.

    The system drops the lock when a process ends in any way. Where the file system knows none, or may only be read, it
    is not held: two processes may then compute the same, and each file is whole all the same.
    """
    place = folder.parent / "locks" / f"{folder.name}.lock"
    lock, told = None, False
    while True:
        try:
            with suppress(FileExistsError):
                place.parent.mkdir(parents=True, exist_ok=True)
            lock = acquire(place, PATIENCE if wait else 0)
            break
        except Timeout:
            if not wait:
                raise
            if not told:
                notify(f"Another process is computing the image features {folder.name}; this one waits for it.")
            told = True
            pause()
        except OSError as error:
            if error.errno in READ_ONLY:
                break
            with writing(folder):
                raise
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def read_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of a folder; None if there is none that can be read."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        whole = index["format"] == FORMAT and index["count"] == sum(shard["rows"] for shard in index["shards"])
        return index if whole and isinstance(index["about"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write the index, whole or not at all; from then on the folder counts."""
    write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")


def damage(path: Path, shard: Mapping[str, Any], *, read: bool = False) -> str | None:
    """Return what is wrong with a shard, None if nothing.

    shard: its line of the index
    read: take its digest in any case, not only where its time of change is another
    """
    try:
        state = path.stat()
        if state.st_size != shard["bytes"]:
            return f"has {state.st_size} bytes instead of {shard['bytes']}"
        if not read and state.st_mtime_ns == shard["modified_ns"]:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if digest == shard["sha256"] else "does not have the digest that the index notes"
