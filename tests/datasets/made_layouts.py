"""Small data sets in the published layout, to be read as they are or after something is spoilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.layout import MINIATURE, LayoutReader
from datasets.metadata import SPLIT, STEM, read_metadata
from datasets.miniature import make, write_metadata, write_miniature
from registry import DATASETS

REAL = ("mit_states", "ut_zappos", "cgqa")

# Words with blanks, as VAW-CZSL has them, beside one that is a state and an object.
BLANK_LISTS = {
    "train": (("light blue", "tea pot"), ("light blue", "orange"), ("orange", "shirt"), ("worn out", "shirt")),
    "val": (("orange", "tea pot"), ("light blue", "orange")),
    "test": (("worn out", "tea pot"), ("orange", "shirt")),
}


def reader(name: str) -> LayoutReader:
    """The reader of a data set."""
    return DATASETS.get(name)


def small(name: str, root: Path, **options: object) -> Path:
    """The folder of a miniature; without pictures unless they are asked for."""
    return make(name, root, **{"pictures": False, **options})


def small_vaw(root: Path, **options: object) -> Path:
    """The folder of a VAW-CZSL with words of our own."""
    return write_miniature(reader("vaw_czsl").published, root, BLANK_LISTS, **{"pictures": False, **options})


def unmark(folder: Path) -> None:
    """Make a miniature pass for the real thing."""
    (folder / MINIATURE).unlink()


def pair_file(folder: Path, phase: str) -> Path:
    return folder / SPLIT / f"{phase}_pairs.txt"


def add_line(folder: Path, phase: str, line: str) -> None:
    """Append a line to a pair list."""
    with pair_file(folder, phase).open("a") as file:
        file.write(f"{line}\n")


def rewrite(folder: Path, change: Callable[[list[dict]], Sequence[dict] | None]) -> None:
    """Change the entries of a .t7 metadata file."""
    rows = read_metadata(folder / f"{STEM}.t7")
    write_metadata(folder / f"{STEM}.t7", change(rows) or rows)
