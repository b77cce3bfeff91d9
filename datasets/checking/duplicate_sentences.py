"""What near-duplicates across splits are said to be, in sentences and as a list for a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from datasets.base import PHASES, CompositionDataset, Phase
from datasets.checking.near_duplicates import NearDuplicate, Place
from errors import counted


def sentences(dataset: CompositionDataset, found: Sequence[NearDuplicate], shown: int) -> list[str]:
    """Say what near-duplicates there are and what they do to the test; shown: how many are named."""
    if not found:
        return []
    split = {phase: counted(len(_of(found, phase)), f"{phase} image") for phase in PHASES}
    said = [
        f"{counted(len(found), 'near-duplicate')} across splits, of {', '.join(split.values())}: "
        f"{_named(found[:shown])}{' and so on' if len(found) > shown else ''}."
    ]
    known = {pair.other.image for pair in found if (pair.one.phase, pair.other.phase) == ("train", "test")}
    if not known:
        return [*said, "No test image is nearly a training image."]
    pairs = [pair for pair in found if pair.other.image in known and pair.one.phase == "train"]
    other = {pair.other.image for pair in pairs if pair.one.pair != pair.other.pair}
    seen = sum(
        bool(dataset.seen[state, obj])
        for image, state, obj in zip(*_columns(dataset, "test"), strict=True)
        if image in known
    )
    count = counted(len(known), "test image is", "test images are")
    share = len(known) / len(dataset.splits["test"])
    said.append(
        f"{count} nearly a training image, {share:.1%} of the test, {seen} of them of seen pairs: a model that "
        "remembers its training images has them right, so S and AUC may be too high by as much."
    )
    if other:
        count = counted(len(other), "of them has", "of them have")
        said.append(
            f"{count} another pair than the training image: one of the labels is wrong, or they only look alike."
        )
    said.append("Take them out, or give copies one name in the column 'group' and leave the split to be drawn.")
    return said


def _of(found: Iterable[NearDuplicate], phase: Phase) -> set[str]:
    return {place.image for pair in found for place in (pair.one, pair.other) if place.phase == phase}


def _named(found: Iterable[NearDuplicate]) -> str:
    return ", ".join(
        f"{pair.one.image} ({pair.one.phase}) and {pair.other.image} ({pair.other.phase}"
        f"{', mirrored' if pair.mirrored else ''})"
        for pair in found
    )


def _columns(dataset: CompositionDataset, phase: Phase) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    split = dataset.splits[phase]
    return split.images, split.states, split.objects


def near_duplicates_csv(dataset: CompositionDataset, found: Iterable[NearDuplicate]) -> str:
    """Return the list as CSV text: both images with split, state and object, whether mirrored, their correlation."""
    vocabulary = dataset.vocabulary

    def words(place: Place) -> list[str]:
        return [place.phase, place.image, vocabulary.states[place.pair[0]], vocabulary.objects[place.pair[1]]]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("split", "image", "state", "object")
    writer.writerow([*names, *(f"other_{name}" for name in names), "mirrored", "alike"])
    for pair in found:
        writer.writerow([*words(pair.one), *words(pair.other), str(pair.mirrored).lower(), f"{pair.alike:.4f}"])
    return text.getvalue()
