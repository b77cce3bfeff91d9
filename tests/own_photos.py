"""A folder of a user's own images, for tests of commands on them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

STATES, OBJECTS = ("dry", "old", "wet"), ("cat", "dog", "fox")


def photos(folder: Path, images: int = 3) -> Path:
    """Make a folder of own images: some of each pair, of one colour each; return it."""
    number = 0
    for state in STATES:
        for thing in OBJECTS:
            below = folder / f"{state} {thing}"
            below.mkdir(parents=True)
            for name in range(images):
                number += 1
                Image.new("RGB", (2, 2), (number, 9, 7)).save(below / f"{name}.png")
    return folder
