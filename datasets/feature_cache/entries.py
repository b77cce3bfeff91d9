"""What the feature cache holds, for people: list it, check it, clear it. No torch is imported here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from datasets.feature_cache.folder import INDEX, alone, damage, read_index, root, writing
from errors import UserError, did_you_mean

State = Literal["whole", "damaged", "incomplete", "in use"]


@dataclass(frozen=True)
class Entry:
    """A folder of features.

    about: the fields of its key, {} where it has no index
    bytes: on disk
    used: seconds since the epoch
    state: by the sizes of its files; "in use" while a process holds its lock
    """

    path: Path
    about: Mapping[str, Any]
    count: int
    bytes: int
    used: float
    state: State

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name


def entries() -> list[Entry]:
    """Return what is in the cache, the last used first."""
    folder = root()
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name != "locks":
            with suppress(FileNotFoundError):  # somebody clears the cache
                found.append(_entry(path))
    return sorted(found, key=lambda entry: (-entry.used, entry.name))


def _entry(path: Path) -> Entry:
    files = {file.name: file.stat() for file in path.iterdir() if file.is_file()}
    index = read_index(path)
    state: State = "incomplete"
    if index is not None:
        sizes = [(shard["file"], shard["bytes"]) for shard in index["shards"]]
        whole = all(name in files and files[name].st_size == size for name, size in sizes)
        state = "whole" if whole else "damaged"
    try:
        with alone(path, wait=False):
            pass
    except Timeout:
        state = "in use"
    used = files[INDEX].st_mtime if INDEX in files else path.stat().st_mtime
    total = sum(file.st_size for file in files.values())
    about, count = ({}, 0) if index is None else (index["about"], index["count"])
    return Entry(path, about, count, total, used, state)


def select(name: str | None) -> list[Entry]:
    """Return the entries of that name, of the data set or of the backbone of that name; all of them for None.

    A name that fits none is a `UserError`.
    """
    there = entries()
    if name is None:
        return there
    found = [entry for entry in there if name in (entry.name, entry.about.get("dataset"), entry.about.get("backbone"))]
    if not found:
        names = [entry.name for entry in there]
        known = sorted({entry.about[kind] for entry in there for kind in ("dataset", "backbone") if entry.about})
        raise UserError(
            f"The feature cache has nothing called '{name}'.",
            f"It has {len(there)} folders, of {', '.join(known)}." if known else f"It has {len(there)} folders.",
            did_you_mean(name, [*names, *known]) or "See 'python bench.py cache list'.",
        )
    return found


def remove(entry: Entry) -> bool:
    """Delete an entry; False, and nothing is done, if another process is at it."""
    with writing(entry.path):
        try:
            with alone(entry.path, wait=False):
                (entry.path / INDEX).unlink(missing_ok=True)  # first, so that a kill in between leaves no half entry
                shutil.rmtree(entry.path)
        except Timeout:
            return False
        except FileNotFoundError:
            pass  # somebody else was faster
    return True


def damages(entry: Entry) -> list[str]:
    """Read an entry in full and return what is wrong with it, a sentence for each shard."""
    index = read_index(entry.path)
    if index is None:
        return [f"{entry.name} has no index: it was never finished."]
    found = []
    for shard in index["shards"]:
        if wrong := damage(entry.path / shard["file"], shard, read=True):
            found.append(f"{entry.name}/{shard['file']} {wrong}.")
    return found
