"""Frozen image features kept on disk: computed once for a backbone, a data set, a phase and a transform, then read.

    CZSL_HOME/features/<data set>-<phase>-<backbone>-<digest>/
        shard-00000.safetensors ...    features of the images in the order listed, some hundred MB each, memory-mapped
        index.json                     what they belong to, and size and SHA-256 of each shard; written last
    CZSL_HOME/features/locks/          a lock for each folder: one process computes, the others wait and read

A folder without an index is the rest of a killed process and counts as nothing. When features are opened, sizes are
compared, and digests too where the features are small or a file was changed since its digest was last taken. A damaged
shard is computed again, alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from datasets.feature_cache import shards
from datasets.feature_cache.folder import FORMAT, INDEX, alone, read_index, root, silent, write_index, writing
from datasets.feature_cache.key import FeatureKey
from datasets.feature_cache.shards import Compute, StoredFeatures

FREE_SHARE = 0.5  # of the free disk space that the features of one phase may take


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
    folder = root() / key.name
    with alone(folder, notify, pause):
        index = read_index(folder)
        if index is None or index["count"] != count or index["key"] != key.digest:
            try:
                with writing(folder):
                    if folder.exists():
                        shutil.rmtree(folder)
                    folder.mkdir(parents=True)
                written = shards.write_all(folder, count, compute, _room(folder, count, notify))
                if written is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    return None
                index = {"format": FORMAT, "key": key.digest, "about": asdict(key), "count": count, "shards": written}
                with writing(folder):
                    write_index(folder, index)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        elif shards.repair(folder, index, compute, notify):
            with suppress(OSError):  # the shards are right; what the index says of them is found out again
                write_index(folder, index)
        with suppress(OSError):  # a cache that may only be read
            os.utime(folder / INDEX)
        return shards.StoredFeatures(folder, index)


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
