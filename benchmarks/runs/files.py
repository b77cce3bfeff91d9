"""Files that are whole or not there: JSON and arrays written aside and renamed, JSON lines that survive a kill.

Every failure of the file system becomes a `UserError` that names the folder. Numbers keep full precision; a number
that is not finite is stored as null and named under "not_finite": JSON has no NaN, and a silent null explains nothing.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import ValidationError

import datasets.files
from errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The record {path.name} cannot be written.",
            f"The folder {path.parent} answers: {error.strerror or error}.",
            "Free space there or make it writable, or choose another results folder.",
        ) from error


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Have `write` fill a file, whole or not at all; a refusal of the file system is a `UserError`."""
    with writing(path):
        datasets.files.write_aside(path, write)


def write_again(source: Path, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Put at `path` what `write` has put at `source`: as a second name of that file, or written again without links."""
    try:
        datasets.files.link_aside(source, path)
    except OSError:
        write_aside(path, write)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    text = json.dumps(with_finite_numbers(content), indent=1, allow_nan=False) + "\n"
    write_aside(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; anything else there is a `UserError`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise _unreadable(path, "it is not a JSON object")
    return content


def with_finite_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` for JSON: NumPy scalars as numbers; what is not finite as null, named under "not_finite".

    >>> with_finite_numbers({"auc": 0.5, "error": {"hm": float("nan")}})
    {'auc': 0.5, 'error': {'hm': None}, 'not_finite': {'error.hm': 'nan'}}
    """
    not_finite: dict[str, str] = {}

    def convert(value: Any, place: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Mapping):
            return {str(key): convert(item, f"{place}.{key}" if place else str(key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [convert(item, f"{place}.{index}") for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            not_finite[place] = str(value)
            return None
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise TypeError(f"{place} is a {type(value).__name__}, which a record cannot hold")

    converted = convert(content, "")
    return {**converted, "not_finite": not_finite} if not_finite else converted


def with_all_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `with_finite_numbers` was given, from what was read: without "not_finite", its numbers in place.

    >>> with_all_numbers({"auc": 0.5, "error": {"hm": None}, "not_finite": {"error.hm": "nan"}})
    {'auc': 0.5, 'error': {'hm': nan}}
    """
    not_finite = content.get("not_finite", {})

    def convert(value: Any, place: str) -> Any:
        if value is None and place in not_finite:
            return float(not_finite[place])
        if isinstance(value, dict):
            return {key: convert(item, f"{place}.{key}" if place else key) for key, item in value.items()}
        if isinstance(value, list):
            return [convert(item, f"{place}.{index}") for index, item in enumerate(value)]
        return value

    return {key: convert(value, key) for key, value in content.items() if key != "not_finite"}


def around(page: Path, begin: str, end: str) -> tuple[str, str]:
    """Return what a document has before and after a place between two marks; a `UserError` where it has none."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"'{page}' cannot be read.", f"{reason}.", "Name a document that is there.") from error
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last) or begin in rest:
        raise UserError(
            f"'{page}' has no place for what is made.",
            f"It lacks the lines '{begin}' and '{end}', once and in this order.",
            "Put them where it should stand.",
        )
    return before, after


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between the lines of two marks in a document; both stay. `UserError` as of `around`."""
    before, after = around(page, begin, end)
    content = f"{before}{begin}\n{text}\n{end}{after}".encode()
    write_aside(page, lambda file: file.write(content))


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append one JSON line and force it to disk; what a kill left of a line before is cut off first."""
    line = _line(content)
    whole = _whole_lines(path)[1]
    with writing(path), path.open("ab") as file:
        file.truncate(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, contents: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines anew, whole or not at all."""
    text = b"".join(_line(content) for content in contents)
    write_aside(path, lambda file: file.write(text))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, without a torn last one; no file is no lines."""
    return _whole_lines(path)[0]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as compressed npz, whole or not at all; Python objects are refused, as they need pickle."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"array '{name}' holds Python objects; give it a plain dtype")
    write_aside(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]  # numpy's `allow_pickle`: no array of ours is called that


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file; a missing or damaged one, or one with pickled objects, is a `UserError`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, f"it is damaged ({error})") from error


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(with_finite_numbers(content), allow_nan=False).encode() + b"\n"


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records of the whole lines, and how many bytes these are.

    A last line without its newline, or one that is not JSON, was torn by a kill or a power cut and never counted. A bad
    line before others was damaged otherwise, and dropping it would hide that.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    records: list[dict[str, Any]] = []
    length = 0
    lines = data.split(b"\n")[:-1]  # what follows the last newline is no whole line
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            if number == len(lines) and length + len(line) + 1 == len(data):
                break
            raise _unreadable(path, f"its line {number} is damaged")
        records.append(record)
        length += len(line) + 1
    return records, length


def incomplete(path: Path, error: Exception, within: str = "") -> UserError:
    """Return what a user is told of a record in which a field is missing or wrong. within: what `error` is about."""
    return UserError(
        f"The record {path} is not complete.",
        f"The reason is {first_fault(error, within)}.",
        "Restore the file, or remove the folder and run it again.",
    )


def first_fault(error: Exception, within: str = "") -> str:
    """Return what is wrong with content that was refused: of a failed validation the first field, after `within`."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{within}{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"The record {path} cannot be read.",
        f"The reason: {reason}.",
        "Restore the file, or remove its folder and run it again.",
    )
