"""Images that are nearly the same in several splits: copied, scaled, mirrored or saved again.

Two steps. A perceptual hash (`imagehash.phash`, 64 bits of the cosine transform of 32 x 32 grey values) of every image
and of its mirror image finds candidates: pairs across splits with at most `BITS` different bits. That is wide, because
saving a plain picture again changes many bits, and other pictures agree as much by chance. So both pictures of a
candidate are then laid over each other at 32 x 32 pixels in colour, and count if these correlate by `ALIKE` or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.base import PHASES, CompositionDataset, Phase
from datasets.checking.reading import CHUNK, Progress
from datasets.pictures import UnreadablePicture, read_picture
from datasets.system import worker_pool
from errors import UserError

BITS = 16
"""Different bits of 64 up to which two hashes are candidates."""

SIDE, ALIKE = 32, 0.97
"""Pixels a side that candidates are compared at, and the correlation from which on they are the same picture."""

AT_ONCE = 2048
"""Candidates that are compared at once."""

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
    alike: correlation of their pixels at 32 x 32, the larger of plain and mirrored.
    """

    one: Place
    other: Place
    mirrored: bool
    alike: float


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
        one_side, other_side = ([found[place.image] for place in own] for own in (ours, theirs))
        for row, column, alike, mirrored in compared(one_side, other_side, candidates(one_side, other_side)):
            one, other = ours[row], theirs[column]
            if alike >= ALIKE and one.image != other.image:  # one file in two splits the check says elsewhere
                duplicates.append(NearDuplicate(one, other, mirrored, alike))
    return sorted(duplicates, key=lambda pair: (-pair.alike, pair.one.image, pair.other.image))


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


def compared(
    ours: Sequence[Thumbnail], theirs: Sequence[Thumbnail], pairs: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, float, bool]]:
    """Yield of each (row, column) also the correlation of both pictures, and whether that is of the mirrored one."""
    todo = iter(pairs)
    while part := list(islice(todo, AT_ONCE)):
        own = _standard(np.stack([ours[row].pixels for row, _ in part]))
        other = np.stack([theirs[column].pixels for _, column in part])
        plain, mirrored = (np.einsum("ni,ni->n", own, _standard(view)).tolist() for view in (other, other[:, :, ::-1]))
        for (row, column), one, turned in zip(part, plain, mirrored, strict=True):
            yield row, column, max(one, turned), turned > one


def _standard(pixels: np.ndarray) -> np.ndarray:
    """Return pictures [N, ...] as rows of mean 0 and length 1, float64; a picture of one colour is all 0."""
    rows = pixels.reshape(len(pixels), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
