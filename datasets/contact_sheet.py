"""A contact sheet of a data set: what its states and objects look like.

    python -m datasets.contact_sheet docs/icon_states.png --by state

One row per state (or object) with images of seen training pairs, for a person to name what they see.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datasets.base import CompositionDataset
from datasets.icons.render import stream
from registry import DATASETS

CELL, MARGIN = 66, 84


def sheet(dataset: CompositionDataset, by: str = "state", columns: int = 10, halves: int = 2) -> Image.Image:
    """Return the sheet: rows named by state or object, `columns` training images of different pairs each.

    halves: blocks of rows set side by side, to keep the sheet from growing tall.
    """
    split = dataset.splits["train"]
    names = dataset.vocabulary.states if by == "state" else dataset.vocabulary.objects
    own, other = (split.states, split.objects) if by == "state" else (split.objects, split.states)
    rows = -(-len(names) // halves)
    width = MARGIN + columns * CELL
    picture = Image.new("RGB", (width * halves, rows * CELL), (24, 24, 28))
    pen = ImageDraw.Draw(picture)
    for place, name in enumerate(names):
        half, row = divmod(place, rows)
        x, y = half * width, row * CELL
        pen.text((x + 6, y + CELL // 2 - 6), name, fill=(230, 230, 230))
        order = stream("sheet", name).permutation(np.flatnonzero(own == place))
        _, first = np.unique(other[order], return_index=True)
        chosen = order[np.sort(first)][:columns]
        for column, index in enumerate(chosen):
            image = dataset.load_image("train", int(index)).resize((CELL - 2, CELL - 2))
            picture.paste(image, (x + MARGIN + column * CELL, y + 1))
    return picture


def main() -> None:
    """Write a sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", default="icon_states")
    parser.add_argument("--by", choices=("state", "object"), default="state")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--halves", type=int, default=2)
    options = parser.parse_args()
    picture = sheet(DATASETS.get(options.dataset)(), options.by, options.columns, options.halves)
    # A palette keeps the file at a third of its size, and nobody measures colours on a contact sheet.
    picture.quantize(256, dither=Image.Dither.NONE).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
