"""Sources of images: a split that keeps each together, and how many of them a given split tears apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets.base import PHASES, Phase, Split
from datasets.content import content_hashes
from datasets.own.grouped_split import draw_grouped_split
from datasets.own.images import Row
from datasets.own.split import SplitOptions
from errors import counted

SHOWN = 5
"""Groups that are named."""


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


def crossing(splits: Mapping[Phase, Split]) -> dict[str, tuple[Phase, ...]]:
    """Return the groups with images in several splits, and which splits these are."""
    places: dict[str, set[Phase]] = {}
    for phase, split in splits.items():
        for group in filter(None, split.groups):
            places.setdefault(group, set()).add(phase)
    return {
        group: tuple(phase for phase in PHASES if phase in found)
        for group, found in sorted(places.items())
        if len(found) > 1
    }


def crossing_sentence(splits: Mapping[Phase, Split]) -> str:
    """Say how many groups cross the splits and what that does to the test, "" where none does."""
    torn = crossing(splits)
    if not torn:
        return ""
    every = {group for split in splits.values() for group in filter(None, split.groups)}
    trained = {group for group, phases in torn.items() if "train" in phases}
    test = splits["test"]
    known = sum(group in trained for group in test.groups)
    names = ", ".join(f"{group} ({', '.join(phases)})" for group, phases in list(torn.items())[:SHOWN])
    return (
        f"{len(torn):,} of {counted(len(every), 'group')} have images in several splits: {names}"
        f"{' and so on' if len(torn) > SHOWN else ''}. {known:,} of {counted(len(test), 'test image')} are of a group "
        "that training has too, so a model may recognise the source instead of the pair, and the test says too much; "
        "leave out the column 'split' to have a split drawn that keeps groups together."
    )
