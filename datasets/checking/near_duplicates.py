"""Images that are nearly the same in several splits: copied, scaled, mirrored or saved again.

Two steps. A perceptual hash (`imagehash.phash`, 64 bits of the cosine transform of 32 x 32 grey values) of every image
and of its mirror image finds candidates: pairs across splits with at most `BITS` different bits. Hashes of plain
pictures agree by chance, so both pictures of a candidate are then laid over each other at 32 x 32 pixels in colour, and
count if they differ by at most `DIFFERENCE` of 255 on the average.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.base import PHASES, CompositionDataset, Phase
from datasets.checking.reading import CHUNK, Progress
from datasets.pictures import UnreadablePicture, read_picture
from datasets.system import worker_pool
from errors import UserError, counted

BITS = 6
"""Different bits of 64 up to which two hashes are candidates."""

SIDE, DIFFERENCE = 32, 5.0
"""Pixels a side that candidates are compared at, and the mean difference up to which they are the same picture."""

ROWS = 2**22
"""Pairs of hashes that are compared at once."""


@dataclass(frozen=True)
class Place:
    """An image by its split, its name and its pair."""

    phase: Phase
    image: str
    pair: tuple[int, int]


@dataclass(frozen=True)
class NearDuplicate:
    """Two images that are nearly the same, the earlier split first.

    mirrored: whether one is the mirror image of the other.
    difference: mean over pixels and channels, of 255.
    """

    one: Place
    other: Place
    mirrored: bool
    difference: float


@dataclass(frozen=True)
class Thumbnail:
    """What is compared of a picture: its hash, its mirror image's hash, and its 32 x 32 pixels, uint8 [32, 32, 3]."""

    hash: int
    mirrored: int
    pixels: np.ndarray


def require_imagehash() -> None:
    """Raise a `UserError` where the package of the hash is not installed."""
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise UserError(
            "Near-duplicates cannot be looked for.",
            f"The package imagehash cannot be imported ({error}).",
            "Install it: pip install 'czsl-bench[duplicates]', or pip install imagehash.",
        ) from error


def near_duplicates(dataset: CompositionDataset, progress: Progress = lambda done, total: None) -> list[NearDuplicate]:
    """Return the near-duplicates across the splits of a data set; unreadable pictures are passed over.

    Without the package imagehash it is a `UserError`.
    """
    require_imagehash()
    places = {
        phase: [
            Place(phase, image, (int(state), int(obj)))
            for image, state, obj in zip(split.images, split.states, split.objects, strict=True)
        ]
        for phase, split in dataset.splits.items()
    }
    names = sorted({place.image for own in places.values() for place in own})
    found = thumbnails(dataset.images, names, dataset.turned, progress)
    duplicates = []
    for first, second in combinations(PHASES, 2):
        ours, theirs = ([place for place in places[phase] if place.image in found] for phase in (first, second))
        pairs = candidates([found[place.image] for place in ours], [found[place.image] for place in theirs])
        for row, column in pairs:
            one, other = ours[row], theirs[column]
            if one.image == other.image:
                continue  # one file in two splits, which the check says elsewhere
            difference, mirrored = compared(found[one.image].pixels, found[other.image].pixels)
            if difference <= DIFFERENCE:
                duplicates.append(NearDuplicate(one, other, mirrored, difference))
    return sorted(duplicates, key=lambda pair: (pair.difference, pair.one.image, pair.other.image))


def thumbnails(folder: Path, names: Sequence[str], turned: bool, progress: Progress) -> dict[str, Thumbnail]:
    """Return what is compared of each picture that can be read, by name, by several processes."""
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    made: dict[str, Thumbnail] = {}
    pool = worker_pool()
    try:
        done = 0
        for chunk, own in zip(
            chunks, pool.map(_thumbnails, [folder] * len(chunks), chunks, [turned] * len(chunks)), strict=True
        ):
            made |= {name: one for name, one in zip(chunk, own, strict=True) if one is not None}
            done += len(chunk)
            progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return made


def _thumbnails(folder: Path, names: Sequence[str], turned: bool) -> list[Thumbnail | None]:
    """Return the thumbnails of some pictures, None of one that cannot be read. Runs in a worker process."""
    made: list[Thumbnail | None] = []
    for name in names:
        try:
            made.append(thumbnail(read_picture(folder / name, turned=turned)))
        except UnreadablePicture:
            made.append(None)
    return made


def thumbnail(picture: Image.Image) -> Thumbnail:
    """Return what is compared of an RGB picture."""
    from imagehash import phash

    plain, mirrored = (int(str(phash(view)), 16) for view in (picture, ImageOps.mirror(picture)))
    return Thumbnail(plain, mirrored, np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)))


def candidates(ours: Sequence[Thumbnail], theirs: Sequence[Thumbnail], bits: int = BITS) -> Iterator[tuple[int, int]]:
    """Yield (row, column) of thumbnails whose hashes differ in at most `bits` bits, one of them mirrored or not."""
    if not ours or not theirs:
        return
    plain = np.array([one.hash for one in theirs], dtype=np.uint64)
    mirrored = np.array([one.mirrored for one in theirs], dtype=np.uint64)
    step = max(1, ROWS // len(theirs))
    for start in range(0, len(ours), step):
        own = np.array([one.hash for one in ours[start : start + step]], dtype=np.uint64)[:, None]
        near = (_ones(own ^ plain) <= bits) | (_ones(own ^ mirrored) <= bits)
        for row, column in np.argwhere(near):
            yield start + int(row), int(column)


def _ones(words: np.ndarray) -> np.ndarray:
    """Return the number of bits that are set in each of uint64 [...]."""
    table = np.array([value.bit_count() for value in range(2**16)], dtype=np.uint8)
    return table[words.view(np.uint16).reshape(*words.shape, 4)].sum(axis=-1, dtype=np.uint8)


def compared(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, bool]:
    """Return (mean difference of two thumbnails, the smaller of plain and mirrored, and whether that is mirrored)."""
    own = ours.astype(np.float32)
    plain, mirrored = (float(np.abs(own - view).mean()) for view in (theirs, theirs[:, ::-1]))
    return min(plain, mirrored), mirrored < plain


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
    """Return the list as CSV text: both images with split, state and object, whether mirrored, the difference."""
    vocabulary = dataset.vocabulary

    def words(place: Place) -> list[str]:
        return [place.phase, place.image, vocabulary.states[place.pair[0]], vocabulary.objects[place.pair[1]]]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("split", "image", "state", "object")
    writer.writerow([*names, *(f"other_{name}" for name in names), "mirrored", "difference"])
    for pair in found:
        writer.writerow([*words(pair.one), *words(pair.other), str(pair.mirrored).lower(), f"{pair.difference:.2f}"])
    return text.getvalue()
