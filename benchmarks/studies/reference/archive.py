"""Finished runs in one file and back: text as it is, per-image arrays as `columns.py` has them, xz over all.

An archive is a tar of `index.json`, `columns/<number>` (each different array once, however many runs have it) and
`<run id>/spec.json`, `result.json`, `epochs.jsonl`. Names, order and times are fixed, so the same runs give the same
bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from benchmarks.runs import files
from benchmarks.runs.records import EPOCHS, RESULT, SCORES, SPEC, RunFolder, RunRecord
from benchmarks.studies.reference.columns import (
    PHASES,
    from_differences,
    from_planes,
    kept,
    restored,
    to_differences,
    to_planes,
)
from errors import UserError

FORMAT = 1
TEXTS = (SPEC, RESULT, EPOCHS)
_PATH = re.compile(r"(?:^|[\s='\"(])(?:/[\w.-]+/|~/|[A-Za-z]:[\\/])")
"""The beginning of an absolute path somewhere in a text."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A run as an archive holds it: its texts by name, and what is kept of its arrays."""

    run_id: str
    texts: Mapping[str, bytes]
    arrays: Mapping[str, np.ndarray]


def packed(run: RunRecord, phases: tuple[str, ...] = PHASES) -> Packed:
    """Return a finished run without what belongs to a machine; a path that may not be left out is a `UserError`."""
    texts = {name: _without_paths(run.path / name) for name in TEXTS if (run.path / name).is_file()}
    return Packed(run.run_id, texts, kept(RunFolder(run.path).read_arrays(), phases))


def _without_paths(path: Path) -> bytes:
    """Return a record's text without the places of its files; any other absolute path is refused.

    In a command line such a path is cut to its last name.
    """
    if path.name == EPOCHS:
        return path.read_bytes()
    content = files.read_json(path)
    changed = False
    for start in content.get("starts", ()):
        shown = [_last_name(word) for word in start.get("command_line", ())]
        changed |= shown != start.get("command_line", [])
        start["command_line"] = shown
        changed |= start.pop("asked", None) is not None  # nothing but places, or what the specification says too
    for place, text in _strings(content, ""):
        if _PATH.search(text):
            raise UserError(
                f"The record {path} cannot be committed.",
                f"It names a path of this machine in {place}: {text}.",
                "Take the path out, or run it again elsewhere.",
            )
    return (json.dumps(content, indent=1) + "\n").encode() if changed else path.read_bytes()


def _last_name(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            value = kind(value).name
    return f"{flag}{equals}{value}"


def _strings(content: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield place, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _strings(value, f"{place}.{key}" if place else key)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _strings(value, f"{place}[{number}]")


def write(path: Path, runs: Iterable[Packed]) -> None:
    """Write runs as an archive, in the order of their names; a file that holds just these is left alone."""
    plain = _tar(sorted(runs, key=lambda run: run.run_id))
    if path.is_file() and lzma.decompress(path.read_bytes()) == plain:
        return
    data = lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_aside(path, lambda file: file.write(data))


def _tar(runs: Iterable[Packed]) -> bytes:
    members: dict[str, bytes] = {}
    columns: dict[str, str] = {}  # by digest of description and bytes: the member
    index: dict[str, Any] = {"format": FORMAT, "runs": {}}
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
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {"index.json": json.dumps(index).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def read(path: Path) -> list[Packed]:
    """Return the runs of an archive; a damaged one, or one of another format, is a `UserError`."""
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(path.read_bytes()))) as tar:
            members = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}
        index = json.loads(members["index.json"])
        if index["format"] != FORMAT:
            raise ValueError(f"it is of format {index['format']}, this release reads {FORMAT}")
        return [
            Packed(
                run_id,
                {name: members[f"{run_id}/{name}"] for name in TEXTS if f"{run_id}/{name}" in members},
                from_differences({name: from_planes(about, members[about["member"]]) for name, about in own.items()}),
            )
            for run_id, own in index["runs"].items()
        ]
    except (OSError, EOFError, ValueError, KeyError, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(
            f"The archive {path.name} cannot be read.",
            f"The reason is {type(error).__name__}: {error}.",
            "Restore it from the repository, or collect it again.",
        ) from error


def unpack(run: Packed, root: Path) -> Path:
    """Write a run as an ordinary record folder below `root` and return it; the result comes last, as in any record."""
    folder = root / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    for name in (name for name in (SPEC, EPOCHS) if name in run.texts):
        (folder / name).write_bytes(run.texts[name])
    files.write_arrays(folder / SCORES, restored(run.arrays))
    (folder / RESULT).write_bytes(run.texts[RESULT])
    return folder
