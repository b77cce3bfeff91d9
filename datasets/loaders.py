"""Batches of images with their labels, in a reproducible order, decoded in worker processes.

The order of an epoch is a function of (seed, epoch); the augmented view of an image of (seed, epoch, image). Neither
depends on the number of workers or on what ran before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.base import CompositionDataset, Phase
from datasets.transforms import Transform, derived_seed, with_stream
from errors import UserError


@dataclass(frozen=True)
class ImageBatch:
    """images: float [B, 3, H, W], normalised. index: int64 [B], rows of the split."""

    images: Tensor
    index: Tensor


class _Images(Dataset):
    """The images of a split under a transform, each view from its own random stream."""

    def __init__(self, dataset: CompositionDataset, phase: Phase, transform: Transform, seed: int, epoch: int) -> None:
        self.dataset, self.phase, self.transform, self.seed, self.epoch = dataset, phase, transform, seed, epoch

    def __len__(self) -> int:
        return len(self.dataset.splits[self.phase])

    def __getitem__(self, index: int) -> tuple[Tensor | str, int]:
        try:
            picture = self.dataset.load_image(self.phase, index)
        except UserError as error:
            # A worker's exception reaches the parent as text with a traceback; sentences travel as data instead.
            return "\n".join((error.asked, error.there, error.next_step)), index
        view = with_stream(self.transform, picture, "view", self.seed, self.epoch, self.phase, index)
        return view, index


def _collate(items: list[tuple[Tensor | str, int]]) -> ImageBatch | str:
    broken = next((view for view, _ in items if isinstance(view, str)), None)
    if broken is not None:
        return broken
    return ImageBatch(torch.stack([view for view, _ in items]), torch.tensor([index for _, index in items]))


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of `count` images in an epoch, int64 [count]: a permutation from its own named stream."""
    generator = torch.Generator().manual_seed(derived_seed("order", seed, epoch))
    return torch.randperm(count, generator=generator)


def image_batches(
    dataset: CompositionDataset,
    phase: Phase,
    transform: Transform,
    batch_size: int,
    *,
    order: Tensor | None = None,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[ImageBatch]:
    """Yield the images of a split in batches (the last may be smaller), in the order given or as listed.

    Raises UserError naming the file when an image is missing or cannot be decoded.
    """
    images = _Images(dataset, phase, transform, seed, epoch)
    rows = list(range(len(images))) if order is None else order.tolist()
    loader = DataLoader(
        images,
        batch_size=batch_size,
        sampler=rows,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        # Spawned workers would import the program anew for each epoch; forked ones hold no device here.
        multiprocessing_context="fork" if workers > 0 else None,
        generator=torch.Generator().manual_seed(0),  # else the loader draws from the global one
    )
    for batch in loader:
        if isinstance(batch, str):
            raise UserError(*batch.split("\n"))
        yield batch
