"""Made miniatures of the published data sets: their layout, words and pair lists, with tiny drawn pictures.

    python -m datasets.miniature mit_states OUT                     # a few pairs and some dozen images
    python -m datasets.miniature cgqa OUT --pairs all               # every real pair
    CZSL_DATA=OUT python bench.py run --dataset mit_states --epochs 1

They try out everything that happens to the real data without having it. A mark in the folder says what it is, so that
sizes are not taken for an error and numbers not for results.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.base import PHASES, Pair, Phase
from datasets.layout import MINIATURE, LayoutReader
from datasets.metadata import ENDINGS, FIELDS, NONE, SPLIT, STEM
from datasets.published import PairLists, PhaseCounts, Published, shipped_lists
from datasets.streams import stream
from errors import UserError
from registry import DATASETS

VERSION = 1  # raise when the same options draw other pictures or choose other pairs
PER_PAIR: dict[Phase, int] = {"train": 3, "val": 2, "test": 2}

Row = dict[str, str]


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


def plan_images(
    about: Published, lists: PairLists, images: Mapping[Phase, int] | Literal["published"] = PER_PAIR
) -> list[Row]:
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


def paint(state: str, obj: str, number: int, pixels: int) -> Image.Image:
    """Draw a picture whose colours come from the state and whose stripes come from the object, with noise.

    pixels: the shorter side; every other picture is wider than high.
    """
    rng = stream("miniature", VERSION, "picture", state, obj, number)
    colours = stream("miniature", VERSION, "state", state).uniform(0, 255, size=(2, 3))
    angle, waves = stream("miniature", VERSION, "object", obj).uniform((0, 1), (np.pi, 6))
    y, x = np.mgrid[0:pixels, 0 : pixels + number % 2 * pixels // 4] / pixels
    phase = 2 * np.pi * (waves * (x * np.cos(angle) + y * np.sin(angle)) + rng.random())
    mix = (0.5 + 0.5 * np.sin(phase))[..., None]
    picture = mix * colours[0] + (1 - mix) * colours[1] + rng.normal(0, 12, size=(*x.shape, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def write_miniature(
    about: Published,
    root: Path,
    lists: PairLists,
    *,
    images: Mapping[Phase, int] | Literal["published"] = PER_PAIR,
    pixels: int = 32,
    metadata: str = ".t7",
    pictures: bool = True,
) -> Path:
    """Write a made data set below `root` (what `CZSL_DATA` will name) and return its folder.

    metadata: the ending of its file, see `metadata.ENDINGS`. pictures: False writes none, for what reads words alone. A
    miniature that is there already is replaced; anything else there is a `UserError`.
    """
    folder = root / about.folders[0]
    if folder.exists() and not (folder / MINIATURE).is_file():
        raise UserError(
            f"The miniature of {about.name} is not written.",
            f"{folder} is there and is no miniature.",
            "Choose another folder.",
        )
    work = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(work, ignore_errors=True)
    (work / SPLIT).mkdir(parents=True)
    for phase in PHASES:
        lines = (f"{state}{about.separator or ' '}{obj}\n" for state, obj in lists[phase])
        (work / SPLIT / f"{phase}_pairs.txt").write_text("".join(lines), encoding="utf-8")
    rows = plan_images(about, lists, images)
    write_metadata(work / f"{STEM}{metadata}", rows)
    (work / "images").mkdir()
    if pictures:
        for number, row in enumerate(rows):
            path = work / "images" / row["image"]
            path.parent.mkdir(exist_ok=True)
            paint(row["attr"], row["obj"], number, pixels).save(path, quality=90)
    mark = {"miniature of": about.name, "version": VERSION, "pixels": pixels, "pictures": pictures}
    (work / MINIATURE).write_text(json.dumps(mark) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return folder


def write_metadata(path: Path, rows: Iterable[Row]) -> None:
    """Write metadata rows in the form that the path's ending names; a .txt is parted by blanks."""
    rows = list(rows)
    if path.suffix == ".t7":
        import torch

        torch.save(rows, path)
    elif path.suffix == ".txt":
        lines = [" ".join(FIELDS), *(" ".join(row[name] for name in FIELDS) for row in rows)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "," if path.suffix == ".csv" else "\t"
            writer = csv.DictWriter(file, FIELDS, delimiter=delimiter, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def make(name: str, root: Path, pairs: int | None = 4, **options: object) -> Path:
    """Write the miniature of a registered data set and return its folder; see `write_miniature` for the options.

    pairs: see `choose_pairs`; None takes all the real ones. A data set without real pair lists here is a `UserError`.
    """
    reader = DATASETS.get(name)
    lists = shipped_lists(name)
    if not isinstance(reader, LayoutReader) or lists is None:
        raise UserError(
            f"There is no miniature of '{name}'.",
            "Miniatures are made from real pair lists, which this data set has none of here.",
            "Choose mit_states, ut_zappos or cgqa.",
        )
    chosen = lists if pairs is None else choose_pairs(lists, pairs)
    return write_miniature(reader.published, root, chosen, **options)  # type: ignore[arg-type]  # passed through


def positive(word: str) -> int:
    """Return a number of 1 or more; argparse words the error of anything else."""
    if int(word) < 1:
        raise ValueError
    return int(word)


def pair_count(word: str) -> int | None:
    """Return a number of pairs; None is all of them."""
    return None if word == "all" else positive(word)


def main() -> None:
    """Write a miniature as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="mit_states, ut_zappos or cgqa")
    parser.add_argument("out", type=Path, help="the folder that CZSL_DATA will name")
    parser.add_argument(
        "--pairs",
        type=pair_count,
        default=4,
        help="unseen and seen pairs of val and of test, or 'all'",
    )
    parser.add_argument(
        "--images", type=positive, nargs=3, metavar=("TRAIN", "VAL", "TEST"), default=list(PER_PAIR.values())
    )
    parser.add_argument("--pixels", type=positive, default=32, help="shorter side of a picture")
    parser.add_argument("--metadata", choices=ENDINGS, default=".t7", help="kind of metadata file")
    options = parser.parse_args()
    try:
        folder = make(
            options.name,
            options.out,
            options.pairs,
            images=dict(zip(PHASES, options.images, strict=True)),
            pixels=options.pixels,
            metadata=options.metadata,
        )
    except UserError as error:
        parser.error(str(error))
    print(f"{folder} is written: CZSL_DATA={options.out} python bench.py run --dataset {options.name} --epochs 1")


if __name__ == "__main__":
    main()
