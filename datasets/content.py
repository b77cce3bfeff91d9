"""What is known of files, such as the SHA-256 of their contents: remembered by path, size and time of change.

So a folder is read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets.cache import home
from datasets.files import write_whole
from errors import UserError


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the hexadecimal SHA-256 of each file (absolute paths); one that cannot be read is a UserError."""
    return remembered(paths, "content", _hashes)


def remembered(
    paths: Sequence[Path], kind: str, find_out: Callable[[Sequence[Path]], Sequence[str | None]]
) -> list[str]:
    """Return a text about each file (absolute paths): what is remembered of this kind, else what `find_out` returns.

    find_out: given files, returns a text of each, or None for what is "" now and not to be remembered. A file that is
    not there is a UserError.

    What is remembered lies below the cache folder, by kind a file per folder of images. A file changed without a change
    of its size and of its time in nanoseconds would go unnoticed.
    """
    stores: dict[Path, dict[str, Any]] = {}
    texts: dict[Path, str] = {}
    unknown: dict[Path, list[int]] = {}
    for path in paths:
        try:
            state = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        if path.parent not in stores:
            stores[path.parent] = _load(kind, path.parent)
        entry = stores[path.parent].get(path.name)
        if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
            unknown[path] = [state.st_size, state.st_mtime_ns]
        else:
            texts[path] = entry[2]
    changed: set[Path] = set()
    for path, text in zip(unknown, find_out(list(unknown)) if unknown else (), strict=True):
        texts[path] = text or ""
        if text is not None:
            stores[path.parent][path.name] = [*unknown[path], text]
            changed.add(path.parent)
    for folder in changed:
        _save(kind, folder, stores[folder])
    return [texts[path] for path in paths]


def _hashes(paths: Sequence[Path]) -> list[str]:
    hashes = []
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise _unreadable(path, error) from error
    return hashes


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"The image {path} cannot be read.",
        f"The system says: {error.strerror or error}.",
        "Restore the file, or take it out of the data.",
    )


def _store(kind: str, folder: Path) -> Path:
    return home() / kind / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"


def _load(kind: str, folder: Path) -> dict[str, Any]:
    """Return what is remembered of a folder's files; a store that is missing or spoilt is an empty one."""
    try:
        content = json.loads(_store(kind, folder).read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        return {}
    return {n: e for n, e in content.items() if isinstance(e, list) and [type(x) for x in e] == [int, int, str]}


def _save(kind: str, folder: Path, known: dict[str, Any]) -> None:
    """Remember; a cache that cannot be written only costs time, so that is no error."""
    with contextlib.suppress(OSError):
        write_whole(_store(kind, folder), json.dumps(known))
