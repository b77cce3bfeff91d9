"""Batches for a method: from images, or from frozen features that were computed once and are kept on disk.

A method that declares `frozen_image_features` needs its vision tower once per image instead of once per epoch, as long
as the image is not augmented, or comes in a fixed number of augmented views. The features are those of
`Method.image_features`, computed in the batches of an evaluation, so nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.training import stopping
from benchmarks.training.execution import Execution, Report
from benchmarks.training.frozen_features import FeatureStore, feature_key
from datasets.base import Candidates, CompositionDataset, Phase
from datasets.concept_shift import ConceptShift, Primitive, Shift
from datasets.feature_cache.folder import silent
from datasets.feature_cache.key import FeatureKey
from datasets.loaders import ImageBatch, Rows, SecondImage, ahead, epoch_order, image_batches
from datasets.transforms import Augmentation, build_transform
from methods.base import Batch, Method, SecondImages

if TYPE_CHECKING:
    from datasets.feature_cache.shards import StoredFeatures

LABELS = ("label.state", "label.object", "label.pair")


@dataclass(frozen=True)
class Views:
    """How the images of a training epoch are drawn.

    augmentation: what is done to each image
    seed: of the order of the images and of their augmented views
    views: the augmented views of an image are those of so many epochs; None draws new ones in every epoch
    """

    augmentation: Augmentation = "none"
    seed: int = 0
    views: int | None = None


def untold(what: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Surroundings:
    """What a run shares with others, and who is told of it.

    store: where frozen features are looked for and left for other runs
    report: takes in the progress of what is being done
    notify: takes in what else a user should know
    """

    store: FeatureStore = field(default_factory=FeatureStore)
    report: Report = untold
    notify: Callable[[str], None] = silent


@dataclass(frozen=True)
class _Drawn:
    """How the images of one pass are drawn.

    augmentation: what is done to each image
    view: number of the augmented views
    second: which samples get a second image; None is none
    """

    augmentation: Augmentation = "none"
    view: int = 0
    second: SecondImage | None = None


class PhaseBatches:
    """The images of one phase for one method.

    views: how the images of a training epoch are drawn
    surroundings: None keeps no features and tells nobody
    cached: whether batches came from kept features
    """

    def __init__(
        self,
        method: Method,
        dataset: CompositionDataset,
        phase: Phase,
        candidates: Candidates,
        execution: Execution,
        views: Views = Views(),  # frozen
        surroundings: Surroundings | None = None,
    ) -> None:
        self.method, self.dataset, self.phase, self.execution = method, dataset, phase, execution
        self.augmentation, self.seed, self.views = views.augmentation, views.seed, views.views
        around = Surroundings(FeatureStore(enabled=False)) if surroundings is None else surroundings
        self.store, self.report, self.notify = around.store, around.report, around.notify
        self.cached = False
        self._keys: dict[tuple[Augmentation, int, int], FeatureKey] = {}
        split = dataset.splits[phase]
        self.states = torch.from_numpy(split.states)
        self.objects = torch.from_numpy(split.objects)
        self.pairs = torch.from_numpy(candidates.index_of(split.states, split.objects))
        self.candidates = candidates
        self.shift = None if method.shifts is None else ConceptShift(method.shifts, split.states, split.objects)

    def __len__(self) -> int:
        return len(self.states)

    def ordered(self, start: int = 0) -> Iterator[Batch]:
        """Yield the images as listed from the one at `start`, not augmented, in evaluation batches.

        Of several processes each has its own.
        """
        execution = self.execution
        own = start + execution.group.evaluation_rows(len(self) - start, execution.eval_batch)
        if len(own):  # there may be fewer batches than processes
            yield from self._batches(own, execution.eval_batch, _Drawn())

    def epoch(self, epoch: int, batch_size: int, start: int = 0, micro_batch: int | None = None) -> Iterator[Batch]:
        """Yield the images of a training epoch in its own order from the one at `start`, augmented where asked for.

        Of several processes each has its shares of every micro-batch (`Group.shares`), a batch's one after the other.
        micro_batch: images of one, None for the whole batch.
        """
        order = epoch_order(len(self), self.seed, epoch)[start:]
        if not len(order):  # stopped after the last step; torch splits nothing into one batch of nothing
            return
        own, size = self.execution.group.training_rows(order, batch_size, micro_batch or batch_size)
        view = epoch if self.views is None else epoch % self.views
        second = None if self.shift is None else partial(self.shift.draw, seed=self.seed, epoch=epoch)
        yield from self._batches(own, size, _Drawn(self.augmentation, view, second))

    def _batches(self, order: Tensor, batch_size: int, drawn: _Drawn) -> Iterator[Batch]:
        kept = self._kept(drawn) if drawn.second is None else None
        self.cached = self.cached or kept is not None
        if kept is None:
            batches = self._images(order, batch_size, drawn)
        else:
            batches = ((rows, self._pinned(kept.rows(rows))) for rows in order.split(batch_size))
        labelled = ((rows, {**self._labels(rows), **tensors}) for rows, tensors in batches)
        for _, tensors in ahead(labelled, self.execution.device):
            states, objects, pairs = (tensors[name] for name in LABELS)
            if kept is None:
                yield Batch(states, objects, pairs, images=tensors["images"], second=_second_of(tensors))
            else:
                features = {name: values for name, values in tensors.items() if name not in LABELS}
                yield Batch(states, objects, pairs, features=features)

    def _labels(self, rows: Tensor) -> dict[str, Tensor]:
        values = (self.states, self.objects, self.pairs)
        return self._pinned({name: value[rows] for name, value in zip(LABELS, values, strict=True)})

    def _images(self, order: Tensor, batch_size: int, drawn: _Drawn) -> Iterator[Rows]:
        backbone, execution = self.method.backbone, self.execution
        for batch in image_batches(
            self.dataset,
            self.phase,
            build_transform(
                backbone.image_size, backbone.image_mean, backbone.image_std, drawn.augmentation, self.method.resizing
            ),
            batch_size,
            order=order,
            seed=self.seed,
            epoch=drawn.view,
            workers=execution.workers,
            pin_memory=execution.device.type == "cuda",
            second=drawn.second,
        ):
            yield batch.index, {"images": batch.images, **self._pinned(self._second(batch))}

    def _second(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Return the tensors of `SecondImages` by "second.<primitive>.<name>"."""
        tensors: dict[str, Tensor] = {}
        if batch.seconds is None:
            return tensors
        for primitive in get_args(Primitive):
            own = [(row, *item) for row, item in enumerate(batch.shifts.items()) if item[1].shifted == primitive]
            if own:
                rows, places, shifts = zip(*own, strict=True)
                tensors |= {
                    f"second.{primitive}.{name}": values
                    for name, values in (
                        ("rows", torch.tensor(places)),
                        ("images", batch.seconds[list(rows)]),
                        ("labels", torch.tensor([getattr(shift, primitive) for shift in shifts])),
                        ("pairs", self._columns(shifts)),
                    )
                }
        return tensors

    def _columns(self, shifts: Sequence[Shift]) -> Tensor:
        """Return the columns of the pairs that shifted samples have, int64 [S]."""
        states, objects = (np.array([getattr(shift, name) for shift in shifts]) for name in get_args(Primitive))
        return torch.from_numpy(self.candidates.index_of(states, objects))

    def _pinned(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors in memory that the device can copy from by itself."""
        if self.execution.device.type != "cuda":
            return tensors
        return {name: values.pin_memory() for name, values in tensors.items()}

    def _kept(self, drawn: _Drawn) -> StoredFeatures | None:
        """Return the kept features of a view of the images; None where features may not or can not be kept."""
        augmentation, view = drawn.augmentation, drawn.view
        augmented = augmentation != "none"
        if not (self.store.enabled and self.method.info.frozen_image_features and len(self)):
            return None
        if augmented and self.views is None:
            return None  # every epoch has views of its own
        place = (augmentation, view if augmented else 0, self.execution.eval_batch)
        if place not in self._keys:
            seed_and_view = (self.seed, view) if augmented else None
            key = feature_key(self.method, self.dataset, self.phase, self.execution, augmentation, seed_and_view)
            self._keys[place] = key

        def compute(start: int, stop: int) -> Iterator[dict[str, Tensor]]:
            return self._features(start, stop, drawn)

        return self.store.get(self._keys[place], len(self), compute, self.notify)

    def _features(self, start: int, stop: int, drawn: _Drawn) -> Iterator[dict[str, Tensor]]:
        """Yield the features of images start .. stop - 1 as listed, in evaluation batches, on the CPU."""
        what, size = f"image features of {self.phase}", self.execution.eval_batch
        self.report(what, start, len(self), "")
        batches = self._images(torch.arange(start, stop), size, drawn)
        for rows, tensors in stopping.watched(ahead(batches, self.execution.device)):
            with torch.no_grad(), self.execution.autocast():
                features = self.method.image_features(tensors["images"])
            yield {name: values.detach().cpu() for name, values in features.items()}
            self.report(what, int(rows[-1]) + 1, len(self), "")


def _second_of(tensors: Mapping[str, Tensor]) -> dict[Primitive, SecondImages]:
    """Return the second images by primitive, from the tensors that `_second` names."""
    there: list[Primitive] = [name for name in get_args(Primitive) if f"second.{name}.rows" in tensors]
    names = [field.name for field in fields(SecondImages)]
    return {name: SecondImages(*(tensors[f"second.{name}.{part}"] for part in names)) for name in there}
