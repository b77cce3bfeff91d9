"""A finished run as it is packed: its texts without what belongs to a machine, and what is kept of its arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from benchmarks.report.archive import TEXTS, Packed
from benchmarks.report.columns import PHASES, kept
from benchmarks.runs import files
from benchmarks.runs.records import EPOCHS, RunFolder, RunRecord
from errors import UserError

_PATH = re.compile(r"(?:^|[\s='\"(])(?:/[\w.-]+/|~/|[A-Za-z]:[\\/])")
"""The beginning of an absolute path somewhere in a text."""

_WHOLE_PATH = re.compile(r"(^|[\s='\"(])(?:~|[A-Za-z]:)?(?:[\\/][\w.+-]+)*[\\/]([\w.+-]+)")
"""An absolute path somewhere in a text, and its last name."""


def packed(run: RunRecord, phases: tuple[str, ...] = PHASES, *, shorten: bool = False) -> Packed:
    """Return a finished run without what belongs to a machine.

    shorten: cut absolute paths to their last names wherever they stand; else one outside of a command line is a
    `UserError`.
    """
    texts = {name: _without_paths(run.path / name, shorten) for name in TEXTS if (run.path / name).is_file()}
    return Packed(run.run_id, texts, kept(RunFolder(run.path).read_arrays(), phases))


def _without_paths(path: Path, shorten: bool) -> bytes:
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
    if shorten:
        short = _shortened(content)
        changed, content = changed or short != content, short
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


def _shortened(content: Any) -> Any:
    if isinstance(content, str):
        return _WHOLE_PATH.sub(r"\1\2", content)
    if isinstance(content, Mapping):
        return {key: _shortened(value) for key, value in content.items()}
    return [_shortened(value) for value in content] if isinstance(content, list) else content


def _strings(content: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield place, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _strings(value, f"{place}.{key}" if place else key)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _strings(value, f"{place}[{number}]")
