"""What is published about a data set: its size split by split, where it comes from, and its real pair lists.

The pair lists of MIT-States, UT-Zappos and C-GQA ship with the suite (`splits/pairs`, sources in `splits/SOURCE.md`):
`data check` compares with them, `data info` counts them, and made fixtures are built from them. Nothing here needs the
images or imports torch.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.base import PHASES, Pair, Phase

SHIPPED = Path(__file__).parent / "splits" / "pairs"

PairLists = Mapping[Phase, Sequence[Pair]]
"""The three pair lists; those of val and test hold seen and unseen pairs together."""


@dataclass(frozen=True)
class PhaseCounts:
    """Size of a split: pairs that have training images, pairs that have none, images, images of unseen pairs."""

    seen: int
    unseen: int
    images: int
    unseen_images: int | None = None


@dataclass(frozen=True)
class Published:
    """A data set as its authors describe it.

    folders: the names its folder goes by, the one `data fetch` makes first
    separator: what parts state and object in its pair lists, None for white space
    certain: false where the sizes were never compared with the files themselves
    special: what a user should know, a sentence each
    """

    name: str
    title: str
    folders: tuple[str, ...]
    states: int
    objects: int
    pairs: int | None
    train: PhaseCounts
    val: PhaseCounts
    test: PhaseCounts
    source: str
    licence: str
    homepage: str
    special: tuple[str, ...] = ()
    separator: str | None = None
    certain: bool = True

    def counts(self) -> dict[str, int]:
        """Return the published sizes under the names that `list_counts` and `image_counts` use."""
        found = {"states": self.states, "objects": self.objects}
        if self.pairs is not None:
            found["pairs"] = self.pairs
        for phase in PHASES:
            own: PhaseCounts = getattr(self, phase)
            found |= _phase_pairs(phase, own.seen, own.unseen) | {f"{phase} images": own.images}
            if own.unseen_images is not None:
                found[f"{phase} images of unseen pairs"] = own.unseen_images
        return found


def _phase_pairs(phase: Phase, seen: int, unseen: int) -> dict[str, int]:
    if phase == "train":
        return {"train pairs": seen}
    return {f"{phase} pairs seen": seen, f"{phase} pairs unseen": unseen}


def list_counts(lists: PairLists) -> dict[str, int]:
    """Return the sizes that follow from pair lists."""
    train, every = set(lists["train"]), {pair for phase in PHASES for pair in lists[phase]}
    found = {
        "states": len({state for state, _ in every}),
        "objects": len({obj for _, obj in every}),
        "pairs": len(every),
    }
    for phase in PHASES:
        seen = len(train.intersection(lists[phase]))
        found |= _phase_pairs(phase, seen, len(lists[phase]) - seen)
    return found


def image_counts(lists: PairLists, labels: PairLists) -> dict[str, int]:
    """Return the numbers of images; labels: the pair of every image of each phase."""
    train = set(lists["train"])
    found = {}
    for phase in PHASES:
        found[f"{phase} images"] = len(labels[phase])
        if phase != "train":
            found[f"{phase} images of unseen pairs"] = sum(pair not in train for pair in labels[phase])
    return found


def differences(there: Mapping[str, int], about: Published) -> list[str]:
    """Return a text for every size that both know and that differs."""
    return [
        f"{key} {there[key]:,} instead of {value:,}"
        for key, value in about.counts().items()
        if key in there and there[key] != value
    ]


def shipped_lists(name: str) -> dict[Phase, tuple[Pair, ...]] | None:
    """Return the real pair lists of a data set, each sorted; None where they do not ship with the suite.

    A line of the packed text is a state and its objects, each with the sum of 1 (train), 2 (val) and 4 (test).
    """
    path = SHIPPED / f"{name}.txt.xz"
    if not path.is_file():
        return None
    lists: dict[Phase, list[Pair]] = {phase: [] for phase in PHASES}
    for line in lzma.decompress(path.read_bytes()).decode().splitlines():
        state, *objects = line.split(" ")
        for item in objects:
            obj, _, places = item.rpartition(":")
            for bit, phase in enumerate(PHASES):
                if int(places) >> bit & 1:
                    lists[phase].append((state, obj))
    return {phase: tuple(sorted(pairs)) for phase, pairs in lists.items()}
