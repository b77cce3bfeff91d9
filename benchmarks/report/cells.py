"""Rows of runs as cells of a table: means, spreads and differences over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.report.captions import seeds, wanted_seeds
from benchmarks.report.evidence import bounds
from benchmarks.report.groups import Reader, Row, test_metric
from benchmarks.report.table_model import GAP, Cell, Column, ranked

if TYPE_CHECKING:
    from benchmarks.significance import Difference

Metric = tuple[Column, Reader]

MAIN: tuple[Metric, ...] = (
    (Column("AUC"), test_metric("auc")),
    (Column("HM"), test_metric("best_hm")),
    (Column("S"), test_metric("best_seen")),
    (Column("U"), test_metric("best_unseen")),
    (Column("G"), test_metric("gate")),
    (Column("HM@val"), test_metric("at_bias.hm")),
    (Column("state"), test_metric("at_zero.state")),
    (Column("object"), test_metric("at_zero.object")),
)

LABELS = (Column("method"), Column("seeds"))
"""The heads of the two columns that `lines` begins with."""


def known(value: float | None) -> bool:
    """Return whether there is a number."""
    return value is not None and not math.isnan(value)


def mean(row: Row, read: Reader) -> Cell:
    """Return the mean over a row's finished runs with its spread, or a gap."""
    return mean_of([value for value in map(read, row.done) if value is not None and not math.isnan(value)])


def mean_of(values: Sequence[float]) -> Cell:
    """Return the mean of numbers with their standard deviation where there are two; a gap for none."""
    if not values:
        return Cell(text=GAP)
    return Cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def number(value: float | None) -> Cell:
    """Return a cell of a number that may be unknown."""
    return Cell(text=GAP) if value is None or math.isnan(value) else Cell(float(value))


def difference_cell(row: Row, baseline: Row, read: Reader, difference: Difference | None) -> Cell:
    """Return a row's mean less the baseline's, with its interval where it is known."""
    ours, theirs = mean(row, read).value, mean(baseline, read).value
    if ours is None or theirs is None:
        return Cell(text=GAP)
    interval = None if difference is None else bounds(difference.sources[difference.decided_by])
    return Cell(ours - theirs, interval=interval)


def lines(
    rows: Sequence[Row], metrics: Sequence[Metric], given: Mapping[str, Sequence[Cell]] | None = None
) -> list[list[Cell]]:
    """Return a line of cells per row: label, seeds, then each metric, the best two of each marked.

    given: cells to show instead of the plain means, by column name, in order of rows.
    """
    made = [[Cell(text=row.label), Cell(text=seeds(row, wanted_seeds(row, rows)))] for row in rows]
    for column, read in metrics:
        cells = (given or {}).get(column.name) or [mean(row, read) for row in rows]
        for line, cell in zip(made, ranked(cells, column), strict=True):
            line.append(cell)
    return made
