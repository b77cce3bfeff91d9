"""Feasibility scores from a table of the user's own: a line for each unseen pair with its state, object and score."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.feasibility import Feasibility
from errors import UserError, counted, did_you_mean

if TYPE_CHECKING:
    from datasets.base import CompositionDataset

COLUMNS = ("state", "object", "score")
MEND = "Mend the table; docs/protocol.md says what it has to hold."


def from_table(dataset: CompositionDataset, path: Path) -> Feasibility:
    """Return the scores of a CSV file (tabs in a .tsv) with the columns state, object and score, others passed over.

    A seen pair holds 0 whatever the table says of it. An unseen pair that is missing, a word that is unknown, a pair
    that is doubled, or a score that is no finite number in single precision is a `UserError`.
    """
    vocabulary, seen = dataset.vocabulary, dataset.seen
    states = {name: index for index, name in enumerate(vocabulary.states)}
    objects = {name: index for index, name in enumerate(vocabulary.objects)}
    scores = np.full(seen.shape, np.nan, dtype=np.float32)
    for number, (state, obj, text) in _rows(path):
        for kind, word, known in (("state", state, states), ("object", obj, objects)):
            if word not in known:
                raise UserError(
                    f"Line {number} of {path} has the {kind} '{word}'.",
                    f"{dataset.name} has {counted(len(known), kind)}, and this is none of them.",
                    did_you_mean(word, known) or MEND,
                )
        place = states[state], objects[obj]
        if not np.isnan(scores[place]):
            raise UserError(f"The pair '{state} {obj}' is twice in {path}.", f"Line {number} is the second.", MEND)
        scores[place] = _score(text, number, path)
    missing = np.argwhere(np.isnan(scores) & ~seen)
    if len(missing):
        state, obj = (
            names[index] for names, index in zip((vocabulary.states, vocabulary.objects), missing[0], strict=True)
        )
        raise UserError(
            f"{counted(len(missing), 'unseen pair has', 'unseen pairs have')} no score in {path}.",
            f"The first is '{state} {obj}', of {counted(int((~seen).sum()), 'unseen pair')} of {dataset.name}.",
            "Give each a score; the lowest one for pairs that are never to be kept.",
        )
    return Feasibility(np.where(seen, np.float32(0), scores), "table", path)


def _rows(path: Path) -> list[tuple[int, tuple[str, str, str]]]:
    """Return (line, state, object and score) of each row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise UserError(
            f"The feasibility scores {path} cannot be read.",
            f"The reason: {reason}.",
            "Pass table:<CSV file>.",
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
    head = [name.strip() for name in reader.fieldnames or ()]
    for name in COLUMNS:
        if head.count(name) != 1:
            how_many = "no column" if name not in head else "several columns"
            raise UserError(
                f"The feasibility scores {path} have {how_many} '{name}'.",
                f"Its first line has {', '.join(head) or 'nothing'}.",
                did_you_mean(name, head) or f"The columns are {', '.join(COLUMNS)}.",
            )
    reader.fieldnames = head
    rows = []
    for row in reader:
        values = [row[name] for name in COLUMNS]
        if None in row:
            raise UserError(
                f"Line {reader.line_num} of {path} is too long.",
                "It has more columns than the first line; a decimal comma parts a number in two.",
                MEND,
            )
        if None in values:
            raise UserError(f"Line {reader.line_num} of {path} is too short.", "It lacks a column.", MEND)
        rows.append((reader.line_num, (values[0].strip(), values[1].strip(), values[2].strip())))
    return rows


def _score(text: str, number: int, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise UserError(f"Line {number} of {path} has the score '{text}'.", "It is no finite number.", MEND)
    return value
