"""Where a method is right: tables by the tags that a data set gives its images (kind of state, clutter, frequency)."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.captions import caption
from benchmarks.report.cells import LABELS, known, lines
from benchmarks.report.groups import Reader, Row
from benchmarks.report.table_model import Column, Table
from benchmarks.runs.numbers import defined
from benchmarks.runs.records import RunRecord


def slice_tables(rows: Sequence[Row]) -> list[Table]:
    """Return a table per tag, with a column for each of its values and groups that has test images."""
    runs = [run for row in rows for run in row.runs]
    sizes: dict[str, dict[tuple[str, str], int]] = {}  # by tag, then value and group
    for result in (run.result for run in runs if run.result is not None):
        for entry in result.slices:
            # An unseen pair has no training images, so some values belong to one group alone.
            if known(entry.own_pair):
                sizes.setdefault(entry.tag, {})[entry.value, entry.group] = entry.images
    return [_slice_table(tag, parts, rows, runs) for tag, parts in sizes.items()]


def _slice_table(tag: str, parts: dict[tuple[str, str], int], rows: Sequence[Row], runs: Sequence[RunRecord]) -> Table:
    metrics = [(Column(f"{value} {group}"), _reader(tag, value, group)) for value, group in parts]
    images = ", ".join(f"{value} {group} {count:,}" for (value, group), count in parts.items() if count)
    texts = (
        f"Pair accuracy inside an image's own group (seen or unseen), by {tag}, test split, percent.",
        caption(runs),
        f"Images: {images}." if images else "",
    )
    heads = [*LABELS, *(column for column, _ in metrics)]
    return Table(f"Slices by {tag}", " ".join(text for text in texts if text), heads, lines(rows, metrics))


def _reader(tag: str, value: str, group: str) -> Reader:
    def read(run: RunRecord) -> float | None:
        for entry in run.finished.slices:
            if (entry.tag, entry.value, entry.group) == (tag, value, group):
                return defined(entry.own_pair)
        return None

    return read
