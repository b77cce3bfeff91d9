"""Batches of images, in a reproducible order, decoded in worker processes and handed to the device one batch ahead.

The order of an epoch is a function of (seed, epoch); the augmented view of an image of (seed, epoch, image). Neither
depends on the number of workers or on what ran before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.base import CompositionDataset, Phase
from datasets.concept_shift import Shift
from datasets.transforms import Transform, derived_seed, with_stream
from errors import UserError


@dataclass(frozen=True)
class ImageBatch:
    """Decoded images of a split.

    images: float [B, 3, H, W], normalised
    index: int64 [B], rows of the split
    shifts: of the samples that have a second image, by their place in the batch
    seconds: float [S, 3, H, W], these images in order of place, None if there are none
    """

    images: Tensor
    index: Tensor
    shifts: Mapping[int, Shift] = field(default_factory=dict)
    seconds: Tensor | None = None

    def pin_memory(self) -> ImageBatch:
        """Return the batch in memory that a device can copy from by itself; the loader calls this by its name."""
        seconds = None if self.seconds is None else self.seconds.pin_memory()
        return replace(self, images=self.images.pin_memory(), seconds=seconds)


class DeadWorker(UserError):
    """A decoding process died; `error` is torch's word of it."""

    def __init__(self, error: BaseException) -> None:
        shared = Path("/dev/shm")
        room = f", of which {shutil.disk_usage(shared).free / 1e9:.1f} GB are free" if shared.is_dir() else ""
        super().__init__(
            f"A process that decodes images died ({str(error).rstrip('. ').splitlines()[0]}).",
            f"Most often memory ran out, or the shared memory that batches are handed over in{room}.",
            "Run the same command with fewer decoding processes or none (--workers 0), or give the machine more memory "
            "(a container: --shm-size=4g).",
        )


def dead_worker(error: BaseException) -> DeadWorker | None:
    """Return what to tell a user if `error` is torch's word that a decoding process died, else None.

    torch raises it where the death is noticed: at the next batch, or out of a signal handler in the middle of anything.
    """
    died = isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
    return DeadWorker(error) if died else None


SecondImage = Callable[[int], Shift | None]
"""Which second image a sample has, by its row of the split; None is none."""

_Sample = tuple[Tensor, int, tuple[Tensor, Shift] | None]


class _Images(Dataset):
    """The images of a split under a transform, each view from its own random stream, and the second ones of some."""

    def __init__(
        self,
        dataset: CompositionDataset,
        phase: Phase,
        transform: Transform,
        seed: int,
        epoch: int,
        second: SecondImage | None,
    ) -> None:
        self.dataset, self.phase, self.transform, self.seed, self.epoch = dataset, phase, transform, seed, epoch
        self.second = second

    def __len__(self) -> int:
        return len(self.dataset.splits[self.phase])

    def __getitem__(self, index: int) -> _Sample | str:
        try:
            picture = self.dataset.load_image(self.phase, index)
            shift = None if self.second is None else self.second(index)
            other = None if shift is None else self.dataset.load_image(self.phase, shift.image)
        except UserError as error:
            # A worker's exception reaches the parent as text with a traceback; sentences travel as data instead.
            return "\n".join((error.asked, error.there, error.next_step))
        names = (self.seed, self.epoch, self.phase, index)
        view = with_stream(self.transform, picture, "view", *names)
        if shift is None or other is None:
            return view, index, None
        return view, index, (with_stream(self.transform, other, "second view", *names), shift)


def _collate(samples: list[_Sample | str]) -> ImageBatch | str:
    whole: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, str):
            return sample
        whole.append(sample)
    views, rows, others = zip(*whole, strict=True)
    second = {place: other for place, other in enumerate(others) if other is not None}
    return ImageBatch(
        torch.stack(views),
        torch.tensor(rows),
        {place: shift for place, (_, shift) in second.items()},
        torch.stack([view for view, _ in second.values()]) if second else None,
    )


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
    second: SecondImage | None = None,
) -> Iterator[ImageBatch]:
    """Yield the images of a split in batches (the last may be smaller), in the order given or as listed.

    second: which samples get a second image, with an augmented view of its own.

    Raises UserError naming the file when an image is missing or cannot be decoded, and `DeadWorker` when one of
    `workers` processes dies. Neither the order nor the views depend on `workers`.
    """
    images = _Images(dataset, phase, transform, seed, epoch, second)
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
    batches = iter(loader)
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            raise dead_worker(error) or error from error
        if batch is None:
            return
        if isinstance(batch, str):
            raise UserError(*batch.split("\n"))
        yield batch


Rows = tuple[Tensor, Mapping[str, Tensor]]
"""int64 [B], the rows of the split on the CPU, and named tensors [B, ...] of them."""


def ahead(batches: Iterable[Rows], device: torch.device) -> Iterator[Rows]:
    """Yield the batches with their tensors on the device; on cuda the next one is copied while this one is computed on.

    That takes pinned memory, as the loader gives it there, and a stream of the device's own for copies. Elsewhere
    batches are moved as they are asked for.
    """
    if device.type != "cuda":
        for rows, tensors in batches:
            yield rows, {name: values.to(device, non_blocking=True) for name, values in tensors.items()}
        return
    copies = torch.cuda.Stream(device)
    waiting: tuple[Rows, torch.cuda.Event] | None = None
    for rows, tensors in batches:
        with torch.cuda.stream(copies):
            moved = {name: values.to(device, non_blocking=True) for name, values in tensors.items()}
        copied = copies.record_event()
        if waiting is not None:
            yield _arrived(*waiting, device)
        waiting = (rows, moved), copied
    if waiting is not None:
        yield _arrived(*waiting, device)


def _arrived(batch: Rows, copied: torch.cuda.Event, device: torch.device) -> Rows:
    """Have the computing stream wait for the copy, and keep its memory from being used again before that is done."""
    computing = torch.cuda.current_stream(device)
    computing.wait_event(copied)
    for values in batch[1].values():
        values.record_stream(computing)
    return batch
