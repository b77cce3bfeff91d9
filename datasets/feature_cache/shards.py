"""Shards of features: safetensors files that are written whole, checked, and read through the memory map of the system.

What was read stays in the system's page cache, shared by all processes, and gives way when memory is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datasets.feature_cache.folder import damage, writing
from datasets.files import write_aside

Compute = Callable[[int, int], Iterator[Mapping[str, Tensor]]]
"""(start, stop) -> features of the images start .. stop - 1 as listed, batch by batch: each [B, ...], on the CPU."""

READ_BYTES = 1024**3
"""Features up to this size are read and compared with their digests whenever they are opened; it takes a second."""

SHARD_BYTES = 128 * 1024**2
"""Size from which on a shard is closed; it holds whole batches, so that it can be computed again by itself."""


class StoredFeatures:
    """The features of a phase's images: the shards of a folder, mapped into memory.

    Build it while the folder's lock is held; afterwards the files may even be deleted.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any]) -> None:
        ends = torch.tensor([shard["rows"] for shard in index["shards"]], dtype=torch.int64).cumsum(0)
        self._ends, self._starts = ends, torch.cat([ends.new_zeros(1), ends[:-1]])
        with torch.inference_mode(False):  # else what is read while scoring could not be trained on later
            self._shards = [_mapped(folder / shard["file"]) for shard in index["shards"]]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """Return the features of images `index`, int64 [n] in any order, each [n, ...], copied out of the map."""
        shards = torch.searchsorted(self._ends, index, right=True)
        there = shards.unique().tolist()
        if len(there) == 1:
            own = index - self._starts[there[0]]
            return {name: values.index_select(0, own) for name, values in self._shards[there[0]].items()}
        found = {name: v.new_empty((len(index), *v.shape[1:])) for name, v in self._shards[0].items()}
        for shard in there:
            places = torch.nonzero(shards == shard).squeeze(1)
            own = index[places] - self._starts[shard]
            for name, values in self._shards[shard].items():
                found[name][places] = values[own]
        return found


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping


def _unreadable(path: Path) -> str | None:
    """Return what is wrong with the header of a shard, None if nothing."""
    try:
        _mapped(path)
    except SafetensorError as error:
        return f"is no file of tensors ({error})"
    return None


def write_all(
    folder: Path, count: int, compute: Compute, room: Callable[[int], bool] = lambda per_image: True
) -> list[dict[str, Any]] | None:
    """Write the features of `count` images into an empty folder and return the shards' lines of the index.

    room: asked once, with the bytes of one image; None is returned, and nothing written, where it says no.
    """
    shards: list[dict[str, Any]] = []
    batches: list[Mapping[str, Tensor]] = []
    size = done = 0
    for batch in compute(0, count):
        rows = _rows(batch)
        if done == 0 and not room(_bytes(batch) // rows):
            return None
        batches.append(_on_the_host(batch))
        size, done = size + _bytes(batch), done + rows
        if size >= SHARD_BYTES or done == count:
            shards.append(_write(folder / f"shard-{len(shards):05}.safetensors", batches))
            batches, size = [], 0
    if done != count:
        raise ValueError(f"features of {done} images were computed, there are {count}")
    return shards


def repair(folder: Path, index: dict[str, Any], compute: Compute, notify: Callable[[str], None]) -> bool:
    """Compute damaged shards again; return whether the index, which is corrected in place, has to be written anew."""
    changed, start = False, 0
    small = sum(shard["bytes"] for shard in index["shards"]) <= READ_BYTES
    for position, shard in enumerate(index["shards"]):
        path, stop = folder / shard["file"], start + shard["rows"]
        if wrong := damage(path, shard, read=small) or _unreadable(path):
            notify(f"{path} {wrong}: its {shard['rows']} images are encoded again.")
            index["shards"][position] = shard = _write(path, list(map(_on_the_host, compute(start, stop))))
            if shard["rows"] != stop - start:
                raise ValueError(f"features of {shard['rows']} images were computed, asked for were {stop - start}")
            changed = True
        elif path.stat().st_mtime_ns != shard["modified_ns"]:
            shard["modified_ns"] = path.stat().st_mtime_ns  # a copy, and its digest is right
            changed = True
        start = stop
    return changed


def _on_the_host(batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a batch in the host's memory: a whole shard may be more than an accelerator has left."""
    return {name: values.cpu() for name, values in batch.items()}


def _write(path: Path, batches: list[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Write a shard aside, force it to disk, rename it, and return its line of the index."""
    content = save({name: torch.cat([batch[name] for batch in batches]).contiguous() for name in batches[0]})
    with writing(path.parent):
        write_aside(path, lambda file: file.write(content))
    return {
        "file": path.name,
        "rows": sum(map(_rows, batches)),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "modified_ns": path.stat().st_mtime_ns,
    }


def _rows(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _bytes(batch: Mapping[str, Tensor]) -> int:
    return sum(values.numel() * values.element_size() for values in batch.values())
