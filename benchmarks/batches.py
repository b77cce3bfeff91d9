"""Batches for a method: from images, or from frozen features that were computed once and kept in memory.

A method that declares `frozen_image_features` needs its vision tower once per image instead of once per epoch, as long
as the image is not augmented. The features are those of `Method.image_features`, so nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.distributed import ALONE, Group
from benchmarks.spec import Precision
from datasets.base import Candidates, CompositionDataset, Phase
from datasets.loaders import epoch_order, image_batches
from datasets.transforms import Augmentation, Transform, build_transform
from methods.base import Batch, Method

FEATURE_LIMIT = 2 * 1024**3  # bytes of features of one phase kept in memory; above it they are computed again each time
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """Where and how a run is computed; of these only the precision belongs to its identity.

    workers: decoding processes, 0 decodes in the training process. eval_batch: images scored at once. pair_chunk:
    candidates scored at once. group: the processes that share the run, see `distributed.py`.
    """

    device: torch.device
    precision: Precision = "fp32"
    workers: int = 0
    eval_batch: int = 256
    pair_chunk: int = 2048
    group: Group = ALONE

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass: mixed precision, or nothing at fp32."""
        enabled = self.precision != "fp32"
        dtype = DTYPES[self.precision] if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)


FeatureStore = dict[tuple[Any, ...], dict[str, Tensor] | None]
"""Frozen features of earlier runs, by everything they depend on."""


class PhaseBatches:
    """The images of one phase for one method.

    seed: of the order and the augmented views. store: where frozen features are looked for and left for other runs.
    """

    def __init__(
        self,
        method: Method,
        dataset: CompositionDataset,
        phase: Phase,
        candidates: Candidates,
        execution: Execution,
        *,
        augmentation: Augmentation = "none",
        seed: int = 0,
        store: FeatureStore | None = None,
    ) -> None:
        self.method, self.dataset, self.phase, self.execution = method, dataset, phase, execution
        self.augmentation, self.seed = augmentation, seed
        self.store: FeatureStore = {} if store is None else store
        split = dataset.splits[phase]
        self.states = torch.from_numpy(split.states)
        self.objects = torch.from_numpy(split.objects)
        self.pairs = torch.from_numpy(candidates.index_of(split.states, split.objects))

    def __len__(self) -> int:
        return len(self.states)

    def ordered(self) -> Iterator[Batch]:
        """Yield the images as listed, not augmented, in evaluation batches: of several processes each has its own."""
        execution = self.execution
        rows = execution.group.evaluation_rows(len(self), execution.eval_batch)
        if len(rows):  # there may be fewer batches than processes
            yield from self._batches(rows, execution.eval_batch, self._transform("none"), epoch=0)

    def epoch(self, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield the images of a training epoch in its own order, augmented where that is asked for.

        Of several processes each has its share of every batch (`Group.shares`).
        """
        order = epoch_order(len(self), self.seed, epoch)
        rows, size = self.execution.group.training_rows(order, batch_size)
        yield from self._batches(rows, size, self._transform(self.augmentation), epoch)

    def _transform(self, augmentation: Augmentation) -> Transform:
        backbone = self.method.backbone
        return build_transform(backbone.image_size, backbone.image_mean, backbone.image_std, augmentation)

    def _batches(self, order: Tensor, batch_size: int, transform: Transform, epoch: int) -> Iterator[Batch]:
        if self.augmentation == "none" and self._features is not None:
            for rows in order.split(batch_size):
                features = {name: self._to_device(values[rows]) for name, values in self._features.items()}
                yield self._batch(rows, features=features)
            return
        for rows, images in self._images(order, batch_size, transform, epoch):
            yield self._batch(rows, images=images)

    def _batch(
        self, rows: Tensor, *, images: Tensor | None = None, features: Mapping[str, Tensor] | None = None
    ) -> Batch:
        labels = (self._to_device(values[rows]) for values in (self.states, self.objects, self.pairs))
        return Batch(*labels, images=images, features=features)

    def _images(
        self, order: Tensor, batch_size: int, transform: Transform, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        execution = self.execution
        for batch in image_batches(
            self.dataset,
            self.phase,
            transform,
            batch_size,
            order=order,
            seed=self.seed,
            epoch=epoch,
            workers=execution.workers,
            pin_memory=execution.device.type == "cuda",
        ):
            yield batch.index, self._to_device(batch.images)

    def _to_device(self, values: Tensor) -> Tensor:
        return values.to(self.execution.device, non_blocking=True)

    @cached_property
    def _features(self) -> dict[str, Tensor] | None:
        """The frozen features of every image in the order listed, on the CPU; None where they cannot be kept."""
        if not self.method.info.frozen_image_features:
            return None
        backbone, execution = self.method.backbone, self.execution
        key = (
            *(type(self.method).image_features, backbone.name, backbone.digest, self.dataset.digest, self.phase),
            *(execution.device, execution.precision, execution.eval_batch),
        )
        if key not in self.store:
            self.store[key] = self._compute_features()
        return self.store[key]

    def _compute_features(self) -> dict[str, Tensor] | None:
        parts: dict[str, list[Tensor]] = {}
        order = torch.arange(len(self))
        for _, images in self._images(order, self.execution.eval_batch, self._transform("none"), epoch=0):
            with torch.no_grad(), self.execution.autocast():
                features = self.method.image_features(images)
            if not parts:
                size = sum(values[0].numel() * values.element_size() for values in features.values()) * len(self)
                if size > FEATURE_LIMIT:
                    return None
            for name, values in features.items():
                # Cloned, because tensors made in inference mode could not enter a training graph later.
                parts.setdefault(name, []).append(values.detach().cpu().clone())
        return {name: torch.cat(values) for name, values in parts.items()}
