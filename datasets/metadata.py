"""Which image belongs to which pair and split: the metadata file beside the pair lists.

The published file is a `torch.save` of a list of dictionaries of strings, despite its ending `.t7`. In its place there
may be a table with a head line of the columns image, attr, obj, set: `.csv`, `.tsv`, or `.txt` (tabs, commas, blanks).
docs/datasets.md describes both.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datasets.base import PHASES, Pair, Phase
from errors import UserError, did_you_mean

SPLIT = "compositional-split-natural"
STEM = f"metadata_{SPLIT}"
ENDINGS = (".t7", ".csv", ".tsv", ".txt")
FIELDS = ("image", "attr", "obj", "set")
NONE = "NA"
"""What stands for a state that nobody knows, or for an image of no split."""

MEND = "Get the archive of the splits once more, or mend the file if it is your own."


class Entry(NamedTuple):
    """An image of a split: its path below `images/`, its pair, its phase."""

    image: str
    pair: Pair
    phase: Phase


def find_metadata(folder: Path) -> Path:
    """Return the metadata file of a data set's folder, the published kind first; none is a `UserError`."""
    for ending in ENDINGS:
        path = folder / f"{STEM}{ending}"
        if path.is_file():
            return path
    raise UserError(
        f"The data set in {folder} has no metadata.",
        f"There is no {STEM}.t7, nor a table {STEM}.csv, .tsv or .txt.",
        "Put the file there; it comes with the pair lists.",
    )


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a metadata file as they stand there, whatever its kind; see `entry` for their check.

    A file that cannot be read, or holds something else than a list of dictionaries, is a `UserError`.
    """
    if path.suffix == ".t7":
        return _read_saved(path)
    text = read_text(path)
    rows = _blank_rows(text, path) if _separator(path, text) is None else _table_rows(text, path)
    if not rows:
        raise UserError(f"The metadata {path} is empty.", "It has no line below its head.", MEND)
    return rows


def _read_saved(path: Path) -> list[dict[str, Any]]:
    import torch

    problem = "it is not a list of dictionaries"
    entries = None
    try:
        entries = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises nearly anything for a file that is not its own
        # Not torch's own words: they advise to load without weights_only, which would run what the file says.
        problem = "it was not written by torch.save, or it is damaged"
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            problem = "it holds more than lists, dictionaries and strings, which could run code and is never loaded"
    if not isinstance(entries, list) or not entries or not all(isinstance(item, dict) for item in entries):
        raise UserError(f"The metadata {path} cannot be read.", f"The reason: {problem}.", MEND)
    return entries


def read_text(path: Path, step: str = MEND) -> str:
    """Return a text file's content, with or without a byte-order mark; what cannot be read is a `UserError`.

    step: what to do then.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"The file {path.name} is missing.", f"It should lie in {path.parent}.", step) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"The file {path} cannot be read.", f"The reason: {reason}.", step) from error


def _separator(path: Path, text: str) -> str | None:
    """Return what parts the columns: by the file's ending, or in a .txt by its head line; None for blanks."""
    if path.suffix in (".csv", ".tsv"):
        return "," if path.suffix == ".csv" else "\t"
    head = text.partition("\n")[0]
    return next((separator for separator in ("\t", ",") if separator in head), None)


def _table_rows(text: str, path: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_separator(path, text) or ",")
    _check_head(reader.fieldnames or (), path)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise _bad_line(path, reader.line_num, len(reader.fieldnames or ()))
        rows.append(row)
    return rows


def _blank_rows(text: str, path: Path) -> list[dict[str, Any]]:
    """Read a table parted by blanks; the image is the first column, and its name alone may hold blanks."""
    head, *lines = text.splitlines() or [""]
    columns = head.split()
    _check_head(columns, path)
    rows = []
    for number, line in enumerate(lines, start=2):
        values = line.rsplit(None, len(columns) - 1)
        if not values:
            continue
        if len(values) != len(columns):
            raise _bad_line(path, number, len(columns))
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def _check_head(columns: Sequence[str], path: Path) -> None:
    for name in FIELDS:
        if name not in columns:
            raise UserError(
                f"The metadata {path} has no column '{name}'.",
                f"Its head line has {', '.join(columns) or 'nothing'}.",
                did_you_mean(name, columns) or f"The columns are {', '.join(FIELDS)}.",
            )


def _bad_line(path: Path, number: int, columns: int) -> UserError:
    return UserError(f"Line {number} of {path} is not as its head line says.", f"It has not {columns} columns.", MEND)


def entry(raw: dict[str, Any], number: int, path: Path) -> Entry | None:
    """Return an entry, checked; None where its state or its split is NA. What is wrong with it is a `UserError`.

    number: its place in the file, from 1.
    """
    for name in FIELDS:
        value = raw.get(name)
        if not isinstance(value, str) or not value:
            there = f"It has the fields {', '.join(map(str, raw))}"
            if name in raw:
                there = f"The field is {value!r}, not a word"
            raise UserError(f"Entry {number} of {path} has no usable '{name}'.", f"{there}.", MEND)
    image, state, obj, phase = (raw[name] for name in FIELDS)
    if phase not in (*PHASES, NONE):
        raise UserError(
            f"Entry {number} of {path} ({image}) is of the split '{phase}'.",
            "A split is train, val, test or NA.",
            did_you_mean(phase, PHASES) or MEND,
        )
    if re.match(r"[/\\]|[A-Za-z]:", image) or ".." in PurePosixPath(image.replace("\\", "/")).parts:
        raise UserError(
            f"Entry {number} of {path} names the image '{image}'.",
            "That leads out of the folder of images.",
            "Use a file from a source you trust.",
        )
    return None if NONE in (state, phase) else Entry(image, (state, obj), phase)


def entries(raw: Iterable[dict[str, Any]], path: Path) -> tuple[list[Entry], int]:
    """Return the images of splits, in file order, and the number of entries that are NA."""
    every = [entry(item, number, path) for number, item in enumerate(raw, start=1)]
    kept = [item for item in every if item is not None]
    return kept, len(every) - len(kept)
