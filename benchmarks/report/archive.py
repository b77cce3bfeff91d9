"""Finished runs in one file and back: text as it is, per-image arrays as `columns.py` has them, xz over all.

An archive is a tar of `index.json`, `columns/<number>` (each different array once, however many runs have it) and
`<run id>/spec.json`, `result.json`, `epochs.jsonl`. Names, order and times are fixed, so the same runs give the same
bytes. The index has the SHA-256 of every other member; those of committed records were written before it did.

Nobody need trust an archive: it is taken apart in memory up to a limit, only members of these names count, and nothing
in it is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.columns import (
    from_differences,
    from_planes,
    restored,
    to_differences,
    to_planes,
)
from benchmarks.runs import files
from benchmarks.runs.reading import ASIDE
from benchmarks.runs.records import EPOCHS, RESULT, SCORES, SPEC
from errors import UserError

PLAIN, CHECKED = 1, 2
"""Formats: without and with the digests of members."""

ENDING = ".tar.xz"
LIMIT = 1 << 30
"""Bytes that an archive may have when it is taken apart: some thousand runs."""

_MEMBER = re.compile(
    r"index\.json|columns/\d{1,9}|[A-Za-z0-9_][A-Za-z0-9_-]*/(?:spec\.json|result\.json|epochs\.jsonl)"
)

TEXTS = (SPEC, RESULT, EPOCHS)


@dataclass(frozen=True, eq=False)
class Packed:
    """A run as an archive holds it: its texts by name, and what is kept of its arrays."""

    run_id: str
    texts: Mapping[str, bytes]
    arrays: Mapping[str, np.ndarray]


def write(path: Path, runs: Iterable[Packed], form: int = CHECKED) -> None:
    """Write runs as an archive, in the order of their names; a file that holds just these is left alone.

    form: `CHECKED`, or `PLAIN` as the committed records are. More than can be read again is a `UserError`.
    """
    plain = _tar(sorted(runs, key=lambda run: run.run_id), form)
    if len(plain) > LIMIT:
        raise UserError(
            f"The runs do not fit into {path.name}.",
            f"They take {len(plain) / 1e9:.1f} GB before they are compressed, and {LIMIT / 1e9:.1f} GB can be read.",
            "Pack them into several files.",
        )
    if path.is_file() and _expanded(path) == plain:
        return
    data = lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write_aside(path, lambda file: file.write(data))


def _tar(runs: Iterable[Packed], form: int) -> bytes:
    members: dict[str, bytes] = {}
    columns: dict[str, str] = {}  # by digest of description and bytes: the member
    index: dict[str, Any] = {"format": form, "runs": {}}
    for run in runs:
        described = {}
        for name, values in to_differences(run.arrays).items():
            about, data = to_planes(values)
            digest = hashlib.sha256(json.dumps(about).encode() + data).hexdigest()
            if digest not in columns:
                columns[digest] = f"columns/{len(columns):04}"
                members[columns[digest]] = data
            described[name] = {**about, "member": columns[digest]}
        index["runs"][run.run_id] = described
        members |= {f"{run.run_id}/{name}": text for name, text in run.texts.items()}
    if form == CHECKED:
        index["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {"index.json": json.dumps(index).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def is_archive(path: Path) -> bool:
    """Return whether a file begins as an archive does."""
    with path.open("rb") as file:
        return file.read(6) == b"\xfd7zXZ\x00"


def _expanded(path: Path) -> bytes:
    """Return the tar in an archive; ValueError where it is larger than `LIMIT` or something follows it."""
    if path.stat().st_size > LIMIT:
        raise ValueError(f"it is larger than {LIMIT:,} bytes")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 28)
    plain = decompressor.decompress(path.read_bytes(), max_length=LIMIT + 1)
    if len(plain) > LIMIT:
        raise ValueError(f"it takes more than {LIMIT:,} bytes when it is taken apart")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("it is cut, or something follows it")
    return plain


def _members(plain: bytes) -> dict[str, bytes]:
    """Return the members of a tar by name; ValueError for a link, a device, or a name that no archive of ours has."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for entry in tar:
            if not entry.isreg() or _MEMBER.fullmatch(entry.name) is None or entry.name in members:
                raise ValueError(f"it has a member '{entry.name[:80]}'")
            file = tar.extractfile(entry)
            members[entry.name] = file.read() if file is not None else b""
    return members


def _check_digests(index: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """ValueError where a member is not the one that the index names."""
    if index["format"] == PLAIN:
        return
    if index["format"] != CHECKED:
        raise ValueError(f"it is of format {index['format']}, this release reads {PLAIN} and {CHECKED}")
    digests = index["sha256"]
    for name, data in members.items():
        if name != "index.json" and digests.get(name) != hashlib.sha256(data).hexdigest():
            raise ValueError(f"its member '{name}' has been altered")


def read(path: Path) -> list[Packed]:
    """Return the runs of an archive; a damaged or altered one, or one of another format, is a `UserError`."""
    try:
        members = _members(_expanded(path))
        index = json.loads(members["index.json"])
        _check_digests(index, members)
        return [
            Packed(
                run_id,
                {name: members[f"{run_id}/{name}"] for name in _texts(run_id, members)},
                from_differences({name: from_planes(about, members[about["member"]]) for name, about in own.items()}),
            )
            for run_id, own in index["runs"].items()
        ]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _unreadable(path, error) from error
    except (lzma.LZMAError, tarfile.TarError, RecursionError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _texts(run_id: str, members: Mapping[str, bytes]) -> list[str]:
    """Return which texts a run has; only that of its epochs may lack."""
    return [name for name in TEXTS if name != EPOCHS or f"{run_id}/{name}" in members]


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return UserError(
        f"The archive {path.name} cannot be read.",
        f"The reason: {reason}.",
        "Restore it, or pack the runs again.",
    )


def unpack(run: Packed, root: Path) -> Path:
    """Write a run as an ordinary record folder below `root` and return it, whole or not at all.

    It is written aside and renamed. Where its folder is there already, with what a launcher left, the files are moved
    into it, the specification last: a folder without one holds no run, and is taken for new when it is unpacked again.
    """
    folder = root / run.run_id
    aside = root / f".{run.run_id}.{os.getpid()}{ASIDE}"
    try:
        with files.writing(folder / SPEC):
            aside.mkdir(parents=True, exist_ok=True)
            for name, text in run.texts.items():
                (aside / name).write_bytes(text)
        files.write_arrays(aside / SCORES, restored(run.arrays))
        with files.writing(folder / SPEC):
            if folder.is_dir():
                for path in sorted(aside.iterdir(), key=lambda path: path.name == SPEC):
                    path.replace(folder / path.name)
                aside.rmdir()
            else:
                aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder
