"""Frozen image features kept on disk: computed once for a backbone, a data set, a phase and a transform, then read.

    CZSL_HOME/features/<data set>-<phase>-<backbone>-<digest>/
        shard-00000.safetensors ...    features of the images in the order listed, some hundred MB each, memory-mapped
        index.json                     what they belong to, and size and SHA-256 of each shard; written last
    CZSL_HOME/features/locks/          a lock for each folder: one process computes, the others wait and read

A folder without an index is the rest of a killed process and counts as nothing. When features are opened, sizes are
compared, and digests too where the features are small or a file was changed since its digest was last taken. A damaged
shard is computed again, alone.
Nothing here imports torch until features are read or written, so that `cache list` answers at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from datasets import cache
from datasets.base import CompositionDataset, Phase
from datasets.content import content_hashes
from datasets.files import write_whole
from errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from datasets.feature_cache.shards import StoredFeatures

FORMAT = 1
"""Version of the files. Raise it when the same key would mean other features than before."""

INDEX = "index.json"
FREE_SHARE = 0.5  # of the free disk space that the features of one phase may take
PATIENCE = 0.5  # seconds between two looks at a lock that another process holds
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a file system answers that has no locks, or that may only be read."""

Compute = Callable[[int, int], Iterator[Mapping[str, "Tensor"]]]
"""(start, stop) -> features of the images start .. stop - 1 as listed, batch by batch: each [B, ...], on the CPU."""


def silent(message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class FeatureKey:
    """All that changes the features of a phase's images.

    data: digest of the data set. images: see `images_digest`. weights: digest of the backbone's. what: the function
    that computes them. code: digest of the source it runs through. transform: the image transform in words. view: seed
    and number of an augmented view, None without augmentation. precision: of the forward pass. batch: images at once.
    made_with: versions of libraries and the kind of processor. The last three change no more than rounding, but that
    is what keeps a run the same bit by bit whoever filled the cache.
    """

    dataset: str
    data: str
    phase: str
    images: str
    backbone: str
    weights: str
    what: str
    code: str
    transform: str
    view: tuple[int, int] | None
    precision: str
    batch: int
    made_with: str

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all fields and the format."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of the folder: readable parts, then the start of the digest, which decides."""
        parts = [self.dataset, self.phase, *([] if self.view is None else ["view-{}-{}".format(*self.view)])]
        readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part)[:40].strip("-") for part in [*parts, self.backbone])
        return f"{readable}-{self.digest[:16]}"


def images_digest(dataset: CompositionDataset, phase: Phase) -> str:
    """Return the SHA-256 of a phase's list of images, of each file's content, and of whether pictures are turned.

    The digest of a data set of photographs covers its lists and not every pixel; a picture that was replaced since its
    features were computed is noticed here. Contents are read once and remembered (`content.py`).
    """
    names = dataset.splits[phase].images
    try:
        contents = content_hashes([dataset.image_path(phase, index).absolute() for index in range(len(names))])
    except UserError:
        contents = [""] * len(names)  # no such files: pictures of another kind, or whoever decodes them will say it
    lines = [*map("\0".join, zip(names, contents, strict=True)), *(["turned upright"] if dataset.turned else [])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def root() -> Path:
    """Return the folder of all features; it is made when something is written."""
    return cache.home() / "features"


def obtain(
    key: FeatureKey,
    count: int,
    compute: Compute,
    *,
    notify: Callable[[str], None] = silent,
    pause: Callable[[], None] = lambda: None,
) -> StoredFeatures | None:
    """Return the features of a key's `count` images, from the cache or computed now; None if the disk is too small.

    One process computes; others that want the same wait, and call `pause` meanwhile, which may raise. notify: told of
    waiting, of damaged shards and of too small a disk. An error in between leaves no folder behind. A file system that
    refuses is a `UserError`.
    """
    from datasets.feature_cache import shards as feature_shards

    folder = root() / key.name
    with alone(folder, notify, pause):
        index = read_index(folder)
        if index is None or index["count"] != count or index["key"] != key.digest:
            try:
                with writing(folder):
                    if folder.exists():
                        shutil.rmtree(folder)
                    folder.mkdir(parents=True)
                shards = feature_shards.write_all(folder, count, compute, _room(folder, count, notify))
                if shards is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    return None
                index = {"format": FORMAT, "key": key.digest, "about": asdict(key), "count": count, "shards": shards}
                with writing(folder):
                    write_index(folder, index)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        elif feature_shards.repair(folder, index, compute, notify):
            with suppress(OSError):  # the shards are right; what the index says of them is found out again
                write_index(folder, index)
        with suppress(OSError):  # a cache that may only be read
            os.utime(folder / INDEX)
        return feature_shards.StoredFeatures(folder, index)


def _room(folder: Path, count: int, notify: Callable[[str], None]) -> Callable[[int], bool]:
    """Return a judge of whether `count` images of so many bytes each may be written."""

    def suffices(per_image: int) -> bool:
        wanted, free = per_image * count, shutil.disk_usage(folder).free
        if wanted <= free * FREE_SHARE:
            return True
        notify(
            f"The image features of {folder.name} would take {wanted / 1e9:.1f} GB, more than half of the "
            f"{free / 1e9:.1f} GB that are free in {root()}: they are computed anew each time."
        )
        return False

    return suffices


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The image features {folder.name} cannot be kept.",
            f"The folder {folder.parent} answers: {error.strerror or error}; nothing half written was left there.",
            "Free space there (see 'bench.py cache list'), choose another CZSL_HOME, or pass --no-feature-cache.",
        ) from error


@contextmanager
def alone(
    folder: Path, notify: Callable[[str], None] = silent, pause: Callable[[], None] = lambda: None, wait: bool = True
) -> Iterator[None]:
    """Hold the lock of a folder of features; `wait` False raises filelock's Timeout if another process holds it.

    The system drops the lock when a process ends in any way. Where the file system knows none, or may only be read, it
    is not held: two processes may then compute the same, and each file is whole all the same.
    """
    place = folder.parent / "locks" / f"{folder.name}.lock"
    lock: FileLock | None = FileLock(place)
    told = False
    while lock is not None:
        try:
            with suppress(FileExistsError):
                place.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE if wait else 0)
            break
        except Timeout:
            if not wait:
                raise
            if not told:
                notify(f"Another process is computing the image features {folder.name}; this one waits for it.")
            told = True
            pause()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                with writing(folder):
                    raise
            lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def read_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of a folder; None if there is none that can be read."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        whole = index["format"] == FORMAT and index["count"] == sum(shard["rows"] for shard in index["shards"])
        return index if whole and isinstance(index["about"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write the index, whole or not at all; from then on the folder counts."""
    write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")


def damage(path: Path, shard: Mapping[str, Any], *, read: bool = False) -> str | None:
    """Return what is wrong with a shard, None if nothing.

    shard: its line of the index. read: take its digest in any case, not only where its time of change is another.
    """
    try:
        state = path.stat()
        if state.st_size != shard["bytes"]:
            return f"has {state.st_size} bytes instead of {shard['bytes']}"
        if not read and state.st_mtime_ns == shard["modified_ns"]:
            return None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if digest == shard["sha256"] else "does not have the digest that the index notes"
