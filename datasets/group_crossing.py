"""Which sources of images (a photograph, a video, a patient) a split tears apart."""

from __future__ import annotations

from collections.abc import Mapping

from datasets.base import PHASES, Phase, Split
from errors import counted

SHOWN = 5
"""Groups that are named."""


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
