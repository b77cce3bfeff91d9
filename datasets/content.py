"""SHA-256 of files' contents, remembered by path, size and time of change, so that a folder is read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.cache import home
from datasets.files import write_whole
from errors import UserError


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the hexadecimal SHA-256 of each file (absolute paths); one that cannot be read is a UserError.

    What is remembered lies below the cache folder, a file per folder of images. A file changed without a change of its
    size and of its time in nanoseconds would go unnoticed.
    """
    remembered: dict[Path, dict[str, Any]] = {}
    changed: set[Path] = set()
    hashes = []
    for path in paths:
        try:
            state = path.stat()
            if path.parent not in remembered:
                remembered[path.parent] = _load(path.parent)
            known = remembered[path.parent]
            entry = known.get(path.name)
            if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                known[path.name] = entry = [state.st_size, state.st_mtime_ns, digest]
                changed.add(path.parent)
        except OSError as error:
            raise UserError(
                f"The image {path} cannot be read.",
                f"The system says: {error.strerror or error}.",
                "Restore the file, or take it out of the data.",
            ) from error
        hashes.append(entry[2])
    for folder in changed:
        _save(folder, remembered[folder])
    return hashes


def _store(folder: Path) -> Path:
    return home() / "content" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"


def _load(folder: Path) -> dict[str, Any]:
    """Return what is remembered of a folder's files; a store that is missing or spoilt is an empty one."""
    try:
        content = json.loads(_store(folder).read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        return {}
    return {n: e for n, e in content.items() if isinstance(e, list) and [type(x) for x in e] == [int, int, str]}


def _save(folder: Path, known: dict[str, Any]) -> None:
    """Remember; a cache that cannot be written only costs time, so that is no error."""
    with contextlib.suppress(OSError):
        write_whole(_store(folder), json.dumps(known))
