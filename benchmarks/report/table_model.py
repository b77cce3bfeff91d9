"""The one model of a table. It is filled from records by the modules beside it and drawn by `render.py`, `formats.py`
and `page.py`; nothing is rounded before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.evaluation.empty_groups import GAP as GAP
from benchmarks.significance.equality import settled


@dataclass(frozen=True)
class Cell:
    """A number with its spread and interval, all in the column's unit, or a text.

    best, second: whether it is the largest of its column, or the second of more than two. interval: low and high.
    mark: what stands behind the number, "*" for a significant difference.
    """

    value: float | None = None
    spread: float | None = None
    text: str = ""
    best: bool = False
    second: bool = False
    interval: tuple[float, float] | None = None
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A column's head and how its numbers are shown: "percent" of a fraction, or plain with some digits.

    signed: with a plus before positive numbers. p_value: shown as such. exact: every digit means something; what comes
    of resampling has its own error, and a file needs only eight digits of it. Intervals always do.
    """

    name: str
    percent: bool = True
    digits: int = 1
    larger_is_better: bool | None = True
    signed: bool = False
    p_value: bool = False
    exact: bool = True


@dataclass(frozen=True)
class Table:
    """A table with all it needs to be understood: the caption says data, backbone, profile, selection and seeds.

    notes: gaps and what else a reader must know. sources: where numbers that were not measured here come from; too long
    for a terminal. name: of its files, the title if empty.
    """

    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=list)
    sources: Sequence[str] = field(default_factory=list)
    name: str = ""


def ranked(cells: Sequence[Cell], column: Column) -> list[Cell]:
    """Return a column's cells, the best two marked where there is something to compare; equal ones share a mark."""
    numbers = iter(settled(np.array([cell.value for cell in cells if cell.value is not None])).tolist())
    values = [None if cell.value is None else next(numbers) for cell in cells]
    known = sorted({value for value in values if value is not None}, reverse=True)
    compared = column.larger_is_better and sum(value is not None for value in values) > 1
    best = known[0] if compared else None
    second = known[1] if compared and len(known) > 2 else None
    return [
        cell if value is None else replace(cell, best=value == best, second=value == second)
        for cell, value in zip(cells, values, strict=True)
    ]
