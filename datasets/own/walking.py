"""The images below a folder, and what beside them is left out: one rule for own data and for predictions.

Operating systems and network storage leave files and folders beside images, some of which are pictures themselves
(thumbnails, halves of a file copied from a Mac): they would be read as images, or double them.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from heapq import heappop, heappush
from pathlib import Path

from PIL import Image

from errors import UserError

DROPPINGS = (
    ".*",  # hidden: .DS_Store, ._1.jpg, .AppleDouble, .thumbnails, .@__thumb, .Trash-1000, .ipynb_checkpoints, .git
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs*.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "@eadir",  # network storage by Synology and others: a folder of thumbnails for each image
    "syno*_thumb*",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "thumbnails",
    "__pycache__",
)
"""Names, in lower case, of what systems and storage leave beside images."""

_DROPPING = re.compile("|".join(map(translate, DROPPINGS)))
SHOWN = 5  # names in a sentence

NO_IMAGES = "because they are no images"
DOUBLE = "because these links lead to what is read already"
AROUND = "because these links lead back to a folder that holds the data"
NOWHERE = "because these links lead nowhere"


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    images: in the order of their names
    folders: names of the folders directly in it
    droppings: how often each name of `DROPPINGS` occurs, those of a Mac as "._*"
    left_out: paths below the folder of what else is passed over, by the reason
    """

    images: tuple[Path, ...]
    folders: tuple[str, ...] = ()
    droppings: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Return a sentence on each kind of thing that is left out: how many, why, and the first names."""
        said = []
        if self.droppings:
            most = sorted(self.droppings.items(), key=lambda item: (-item[1], item[0]))
            total = sum(self.droppings.values())
            names = (f"{count:,} x {name}" for name, count in most[:SHOWN])
            said.append(sentence("because systems or storage left them there", names, total, len(most) - SHOWN))
        for reason, paths in self.left_out.items():
            said.append(sentence(reason, sorted(paths)[:SHOWN], len(paths), len(paths) - SHOWN))
        return said


def sentence(reason: str, names: Iterable[str], total: int, more: int) -> str:
    """Return the sentence on what is left out; more: how many names are not shown."""
    return f"Left out, {reason}: {total:,} ({', '.join(names)}{f' and {more:,} more' if more > 0 else ''})."


def is_dropping(name: str) -> bool:
    """Return whether a file or folder of this name is left by a system or storage and is no image of anybody.

    >>> [is_dropping(name) for name in ("._1.jpg", "@eaDir", "Thumbs.db", "1.jpg")]
    [True, True, True, False]
    """
    return _DROPPING.match(name.lower()) is not None


def image_endings() -> set[str]:
    """Return the endings, in lower case, of files that Pillow can read."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def images_below(folder: Path) -> Found:
    """Return the images in a folder and in the folders below it.

    Links are followed, to files and to folders. A link to what is read anyway counts once, and one to a folder around
    the data not at all, so no loop of links is endless. A file that is an image by its name and whose link leads
    nowhere is returned: reading it says so. A folder that cannot be listed is a `UserError`.
    """
    return _Walk(folder).found()


class _Walk:
    """A walk through a folder: first what is really there, then what links lead to, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.endings = image_endings()
        self.images: dict[Path, tuple[int, int] | None] = {}  # the file's identity where it was reached by a link
        self.files: set[tuple[int, int]] = set()  # identities of the images that are no links
        self.entered: set[tuple[int, int]] = set()
        self.links: list[Path] = []
        self.folders: list[str] = []
        self.droppings: Counter[str] = Counter()
        self.left_out: dict[str, list[str]] = {}

    def found(self) -> Found:
        around = {_identity(parent) for parent in Path(os.path.realpath(self.root)).parents}
        self._enter(self.root)
        while self.links:
            link = heappop(self.links)
            own = _identity(link)
            if own in around or own == _identity(self.root):
                self._leave(AROUND, link)
            elif own in self.entered:
                self._leave(DOUBLE, link)
            else:
                self._enter(link)
        for path in [path for path, own in self.images.items() if own in self.files]:
            del self.images[path]
            self._leave(DOUBLE, path)
        left_out = {reason: tuple(names) for reason, names in self.left_out.items()}
        return Found(tuple(sorted(self.images)), tuple(sorted(self.folders)), dict(self.droppings), left_out)

    def _enter(self, folder: Path) -> None:
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            own = _identity(here)
            if own in self.entered:
                continue  # what a link leads to may hold a folder that another link led to
            self.entered.add(own)
            if here.parent == self.root != here:
                self.folders.append(here.name)
            for entry in _listed(here):
                path = Path(entry.path)
                if is_dropping(entry.name):
                    self.droppings["._*" if entry.name.startswith("._") else entry.name] += 1
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_symlink() and os.path.isdir(path):  # noqa: PTH112 - false for a circle or a closed door
                    heappush(self.links, path)
                elif path.suffix.lower() in self.endings:
                    self._image(path, entry)
                elif entry.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - likewise
                    self._leave(NOWHERE, path)
                else:
                    self._leave(NO_IMAGES, path)

    def _image(self, path: Path, entry: os.DirEntry[str]) -> None:
        try:
            state = path.stat()
        except OSError:
            self.images[path] = None  # a link to nowhere, which the user should hear of when it is read
            return
        if not stat.S_ISREG(state.st_mode):
            self._leave(NO_IMAGES, path)  # a pipe or device, which would wait for ever
        elif entry.is_symlink():
            self.images[path] = (state.st_dev, state.st_ino)
        else:
            self.images[path] = None
            self.files.add((state.st_dev, state.st_ino))

    def _leave(self, reason: str, path: Path) -> None:
        self.left_out.setdefault(reason, []).append(path.relative_to(self.root).as_posix())


def _identity(path: Path) -> tuple[int, int]:
    """Return what is the same for every path that leads to one file or folder."""
    state = path.stat()
    return state.st_dev, state.st_ino


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be listed.",
            f"The system says: {error.strerror or error}.",
            "Give yourself the right to read it, or move it away.",
        ) from error
