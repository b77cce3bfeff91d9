"""Frozen image features of a method: what they belong to, and the store that runs share.

What is kept where is `datasets/feature_cache/cache.py`; here is what a key is made of, which needs to know methods
and backbones.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING

import torch

from benchmarks.runs.environment import package_version
from benchmarks.training import stopping
from benchmarks.training.execution import Execution
from datasets import base, conversions, deep_grey, pictures, resizing, transforms
from datasets.base import CompositionDataset, Phase
from datasets.feature_cache.cache import obtain
from datasets.feature_cache.folder import silent
from datasets.feature_cache.key import FeatureKey, images_digest
from datasets.feature_cache.shards import Compute
from datasets.resizing import USUAL
from datasets.transforms import Augmentation
from errors import counted
from methods.backbone import blocks, clip, feed, heads, vision
from methods.base import Method

if TYPE_CHECKING:
    from datasets.feature_cache.shards import StoredFeatures

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pillow")
"""Packages whose release may change a feature in its last bits."""


@dataclass
class FeatureStore:
    """What the runs of a process share of the feature cache. enabled: False has every run compute features anew.

    opened: by a key's digest, None where the disk is too small. seconds: spent on features so far, to compute or to
    open them.
    """

    enabled: bool = True
    opened: dict[str, StoredFeatures | None] = field(default_factory=dict)
    seconds: float = 0.0

    def get(
        self, key: FeatureKey, count: int, compute: Compute, notify: Callable[[str], None] = silent
    ) -> StoredFeatures | None:
        """Return the features of a key's `count` images, from memory, the cache, or `compute`; None: they have no room.

        notify: told of waiting for another process, of damaged shards and of too small a disk. See
        `datasets.feature_cache.cache.obtain`.
        """
        if key.digest not in self.opened:
            start = time.perf_counter()
            self.opened[key.digest] = obtain(key, count, compute, notify=notify, pause=stopping.check)
            self.seconds += time.perf_counter() - start
        return self.opened[key.digest]


def feature_key(
    method: Method,
    dataset: CompositionDataset,
    phase: Phase,
    execution: Execution,
    augmentation: Augmentation = "none",
    view: tuple[int, int] | None = None,
) -> FeatureKey:
    """Return what the frozen features of a phase depend on. view: (seed, number) of an augmented view."""
    backbone = method.backbone
    function = type(method).image_features
    transform = f"{augmentation}, {backbone.image_size} pixels, mean {backbone.image_mean}, std {backbone.image_std}"
    if method.resizing != USUAL:
        transform += f", {method.resizing}"
    return FeatureKey(
        dataset=dataset.name,
        data=dataset.digest,
        phase=phase,
        images=images_digest(dataset, phase),
        backbone=backbone.name,
        weights=backbone.digest,
        what=f"{function.__module__}.{function.__qualname__}",
        code=_code_digest(function),
        transform=transform,
        view=view,
        precision=execution.precision,
        batch=execution.eval_batch,
        made_with=_made_with(execution.device.type, torch.get_num_threads()),
    )


@cache
def _code_digest(function: FunctionType) -> str:
    """Return the SHA-256 of the source that a feature runs through.

    That is more than changes it, but features of an older source would be wrong without a word.
    """
    digest = hashlib.sha256()
    reading = (base, pictures, deep_grey, conversions, resizing, transforms)
    for module in (*reading, blocks, clip, feed, heads, vision, sys.modules.get(function.__module__)):
        try:
            if module is None:
                raise TypeError("the module of the function is not loaded any more")
            digest.update(inspect.getsource(module).encode())
        except (OSError, TypeError):  # made without a file
            digest.update(function.__code__.co_code + repr(function.__code__.co_consts).encode())
    return digest.hexdigest()


@cache
def _made_with(device: str, threads: int) -> str:
    processor = (
        torch.cuda.get_device_name() if device == "cuda" else f"{device} {torch.backends.cpu.get_cpu_capability()}"
    )
    if device == "cpu":  # sums round otherwise with another number
        processor += f", {counted(threads, 'thread')}"
    return ", ".join([*(f"{name} {package_version(name)}" for name in LIBRARIES), processor])
