"""A split of own images that keeps those of one source together, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from datasets.content import content_hashes
from datasets.own.grouped_split import draw_grouped_split
from datasets.own.images import Row
from datasets.own.split import SplitOptions
from errors import counted


def by_groups(rows: Sequence[Row], options: SplitOptions, where: str) -> tuple[list[Row], list[str]]:
    """Return the rows with the phases of a split that keeps groups together, without those that are left out.

    The second part are sentences on what was done. An image without a group is a group of its own.
    """
    contents = content_hashes([row.path for row in rows])
    groups = [f"group {row.group}" if row.group else f"image {own}" for row, own in zip(rows, contents, strict=True)]
    labels = [row.pair for row in rows]
    phases = draw_grouped_split(labels, contents, groups, options, where)
    kept = [replace(row, phase=phase) for row, phase in zip(rows, phases, strict=True) if phase is not None]
    number = len({row.group for row in rows if row.group})
    said = f"Its {counted(number, 'group')} stay together: no group has images in two splits."
    if lost := len(rows) - len(kept):
        said += (
            f" {counted(lost, 'image is', 'images are')} left out, because they show an unseen pair in a group of "
            "another split, such as one of training."
        )
    return kept, [said]
