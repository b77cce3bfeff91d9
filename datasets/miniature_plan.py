"""What a made miniature of a published data set holds: its pairs and the rows of its metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from datasets.base import PHASES, Pair, Phase
from datasets.metadata import NONE
from datasets.published import PairLists, PhaseCounts, Published
from datasets.streams import stream

VERSION = 1  # raise when the same options draw other pictures or choose other pairs
PER_PAIR: dict[Phase, int] = {"train": 3, "val": 2, "test": 2}

Row = dict[str, str]
ImageCounts = Mapping[Phase, int] | Literal["published"]


def choose_pairs(lists: PairLists, count: int, seed: int = 0) -> dict[Phase, tuple[Pair, ...]]:
    """Return a small part of real pair lists that is a split of the same kind.

    count: unseen pairs of val, unseen pairs of test, seen pairs of val, and of test; each of these four, or as many as
    there are. The training pairs are those seen ones and, for every unseen pair, one with its state and one with its
    object.
    """
    order = {phase: _shuffled(lists[phase], seed, phase) for phase in PHASES}
    train = set(lists["train"])
    chosen: dict[Phase, list[Pair]] = {"train": []}
    for phase in ("val", "test"):
        unseen = [pair for pair in order[phase] if pair not in train][:count]
        seen = [pair for pair in order[phase] if pair in train][:count]
        for state, obj in unseen:
            chosen["train"].append(next(pair for pair in order["train"] if pair[0] == state))
            chosen["train"].append(next(pair for pair in order["train"] if pair[1] == obj))
        chosen["train"] += seen
        chosen[phase] = unseen + seen
    return {phase: tuple(sorted(set(pairs))) for phase, pairs in chosen.items()}


def _shuffled(pairs: Sequence[Pair], seed: int, phase: Phase) -> list[Pair]:
    return [pairs[i] for i in stream("miniature", VERSION, seed, phase).permutation(len(pairs))]


def plan_images(about: Published, lists: PairLists, images: ImageCounts = PER_PAIR) -> list[Row]:
    """Return the metadata: rows of image, attr, obj, set, as the published file has them.

    images: how many each pair has in each split; "published" spreads the published numbers over the pairs, few of them
    frequent and most of them rare. Two more rows are NA, as the real files have them.
    """
    rows: list[Row] = []
    train = set(lists["train"])
    for phase in PHASES:
        pairs = lists[phase]
        if images == "published":
            counts = _spread(getattr(about, phase), pairs, [pair in train for pair in pairs], phase)
        else:
            counts = [images[phase]] * len(pairs)
        for pair, many in zip(pairs, counts, strict=True):
            rows += [_row(about, pair, phase, len(rows) + number) for number in range(many)]
    state, obj = lists["train"][0]
    rows.append(_row(about, (NONE, obj), NONE, len(rows)))
    rows.append(_row(about, (state, obj), NONE, len(rows)))
    return rows


def _spread(counts: PhaseCounts, pairs: Sequence[Pair], seen: Sequence[bool], phase: Phase) -> list[int]:
    """Return a number of images, 1 or more, for each pair; their sums are the published ones."""
    groups = {True: counts.images - (counts.unseen_images or 0), False: counts.unseen_images or 0}
    if counts.unseen_images is None:
        groups, seen = {True: counts.images}, [True] * len(pairs)
    many = np.ones(len(pairs), dtype=np.int64)
    for group, total in groups.items():
        rows = np.flatnonzero(np.array(seen) == group)
        if len(rows):
            rng = stream("miniature", VERSION, phase, group)
            weights = 1.0 / (1.0 + rng.permutation(len(rows)))
            many[rows] += rng.multinomial(total - len(rows), weights / weights.sum())
    return many.tolist()


def _row(about: Published, pair: Pair, phase: str, number: int) -> Row:
    """Return a metadata row; the names of the files are of the kind that the published ones are."""
    state, obj = pair
    row = {"attr": state, "obj": obj, "set": phase}
    mark = hashlib.sha256(f"{number}/{state}/{obj}".encode()).hexdigest()
    if about.name == "cgqa":
        return {"image": f"{2_300_000 + number}-{number % 37}-{state}-{obj}.jpg", **row}
    folder = f"{'adj' if state == NONE else state}_{obj}".replace(" ", "_")
    if about.name == "ut_zappos":
        file = f"{7_000_000 + number}.{int(mark[:6], 16)}.jpg"
        return {"image": f"{folder}/{file}", "_image": f"{obj.replace('.', '/')}/Maker/{file}", **row}
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in mark[:10])
    return {"image": f"{folder}/{letters}{number}.jpg", **row}
