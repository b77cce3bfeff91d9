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
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from PIL import Image

from datasets.base import PHASES
from datasets.layout import MINIATURE, LayoutReader
from datasets.metadata import ENDINGS, FIELDS, SPLIT, STEM
from datasets.miniature_plan import PER_PAIR, VERSION, ImageCounts, Row, choose_pairs, plan_images
from datasets.published import PairLists, Published, shipped_lists
from datasets.streams import stream
from errors import UserError
from registry import DATASETS


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


class Options(TypedDict, total=False):
    """How a miniature is written.

    images: see `miniature_plan.plan_images`.
    pixels: the shorter side of a picture.
    metadata: the ending of its file, see `metadata.ENDINGS`.
    pictures: False writes none, for what reads words alone.
    """

    images: ImageCounts
    pixels: int
    metadata: str
    pictures: bool


DEFAULTS: Options = {"images": PER_PAIR, "pixels": 32, "metadata": ".t7", "pictures": True}


def write_miniature(about: Published, root: Path, lists: PairLists, **options: Unpack[Options]) -> Path:
    """Write a made data set below `root` (what `CZSL_DATA` will name) and return its folder; options: over `DEFAULTS`.

    A miniature that is there already is replaced; anything else there is a `UserError`.
    """
    how: Options = {**DEFAULTS, **options}
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
    rows = plan_images(about, lists, how["images"])
    write_metadata(work / f"{STEM}{how['metadata']}", rows)
    (work / "images").mkdir()
    if how["pictures"]:
        for number, row in enumerate(rows):
            path = work / "images" / row["image"]
            path.parent.mkdir(exist_ok=True)
            paint(row["attr"], row["obj"], number, how["pixels"]).save(path, quality=90)
    mark = {"miniature of": about.name, "version": VERSION, "pixels": how["pixels"], "pictures": how["pictures"]}
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


def make(name: str, root: Path, pairs: int | None = 4, **options: Unpack[Options]) -> Path:
    """Write the miniature of a registered data set and return its folder; options: see `Options`.

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
    return write_miniature(reader.published, root, chosen, **options)


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
