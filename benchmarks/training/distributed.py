"""One run over several processes, one per device: torchrun's processes share every batch and end with equal weights.

    torchrun --nproc-per-node 2 bench.py run --methods troika
    python bench.py run --methods troika --devices 2

The numbers are those of one process up to the rounding of sums (docs/distributed.md). Each process computes on its
share of a micro-batch; what a batch has as a whole is exchanged: the rows that BatchNorm sees, and once per optimizer
step the sum of all gradients in one buffer. Trained tensors are few, so that one all-reduce after backward costs little
and needs nothing of what DistributedDataParallel brings (buckets, hooks, unused parameters, a mean over processes,
which is wrong where shares are unequal). Evaluation batches are dealt out whole; the first process alone writes.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from benchmarks.runs.records import RunFolder
from benchmarks.training import batch_norm, failing
from benchmarks.training.collectives import Processes
from benchmarks.training.processes import on_this_machine, processes
from errors import UserError, counted
from methods.base import Method
from methods.parts import own_draws, shares
from methods.parts.shares import Share

PATIENCE = datetime.timedelta(hours=2)  # for a first process that renders a data set or writes a report


@dataclass(frozen=True)
class Group(Processes):
    """The processes that make one run, and how they share its work.

    The default is one process, for which everything here does nothing.
    """

    def shares(self, images: int, micro_batch: int) -> Iterator[Share]:
        """Yield this process's share of every micro-batch of an epoch, the first processes taking what is left over."""
        for start in range(0, images, micro_batch):
            total = min(micro_batch, images - start)
            count, over = divmod(total, self.size)
            first = self.rank * count + min(self.rank, over)
            own = count + (self.rank < over)
            yield Share(first if own else 0, own, total, self._join)

    def training_rows(self, order: Tensor, batch_size: int, micro_batch: int) -> tuple[Tensor, int]:
        """Return this process's images of the effective batches in `order`, int64 [n], and how many make a batch of it.

        Cut into batches of that size, each holds this process's shares of the micro-batches of one effective batch, one
        after the other; only the last may be smaller.
        """
        if self.size == 1:
            return order, batch_size
        own: list[Tensor] = []
        for batch in order.split(batch_size):
            parts = zip(batch.split(micro_batch), self.shares(len(batch), micro_batch), strict=True)
            own.append(torch.cat([part[share.rows] for part, share in parts]))
        return (torch.cat(own), len(own[0])) if own else (order, batch_size)

    def evaluation_rows(self, images: int, batch: int) -> Tensor:
        """Return the images that this process scores, int64 [n]: whole batches in their order, so none changes."""
        batches = torch.arange(images).split(batch)
        count, over = divmod(len(batches), self.size)
        first = self.rank * count + min(self.rank, over)
        own = batches[first : first + count + (self.rank < over)]
        return torch.cat(own) if own else torch.arange(0)

    @contextmanager
    def sharing(self, share: Share) -> Iterator[None]:
        """Compute on the images of `share`; forward and backward belong in it."""
        with shares.in_force(share if self.size > 1 else None):
            yield

    @contextmanager
    def watching(self, method: Method, watch: bool = True) -> Iterator[None]:
        """Raise `UserError` after what is within if the method drew random numbers other than through `shares.py`.

        watch: whether to look, which takes time at every operation; in one process nothing is looked for.
        """
        if self.size == 1 or not watch:
            yield
            return
        with own_draws.Watch(method) as found:
            yield
        if found.found is not None:
            raise self._draws_for_itself(method, found.found)

    def _draws_for_itself(self, method: Method, what: str) -> UserError:
        return UserError(
            f"The method {method.info.name} cannot be trained by {self.size} processes.",
            f"There {what} draws random numbers for itself, the same ones for different images of each process.",
            "Draw through methods/parts/shares.py (ImageDropout, image_dropout, image_noise; CommonDropout and "
            "common_draws for what all images have in common; see docs/add_a_method.md), or run it in one process.",
        )

    def attach(self, method: Method, micro_batch: int) -> None:
        """Start all processes from the same tensors, and give BatchNorm the rows of all of them from now on.

        A method that mixes the images of a batch or has a module that draws random numbers for itself, or a micro-batch
        with fewer images than processes, is a `UserError`.
        """
        if self.size == 1:
            return
        if not method.info.batch_independent:
            raise UserError(
                f"The method {method.info.name} cannot be trained by {self.size} processes with these settings.",
                "It mixes the images of a batch, and each process has only its share of them.",
                "Run it in one process.",
            )
        if micro_batch < self.size:
            raise UserError(
                f"A micro-batch of {micro_batch} images cannot be shared by {self.size} processes.",
                "Each of them needs an image at least.",
                f"Use at most {micro_batch} processes, or raise batch_size or micro_batch.",
            )
        if drawing := own_draws.drawing_modules(method):
            (name, module), *more = drawing.items()
            others = f" and {counted(len(more), 'other module')}" if more else ""
            raise self._draws_for_itself(method, f"its module '{name}' ({type(module).__name__}){others}")
        with torch.no_grad():
            for tensor in method.checkpoint().values():
                self._exchange(dist.broadcast, tensor, src=0)
        batch_norm.see_all_rows(method)

    def folder(self, folder: RunFolder) -> RunFolder:
        """Return the folder for this process: the first one writes, the others only read."""
        return folder if self.leads else failing.ReadOnlyFolder(folder.path)

    def end(self, error: Exception, folder: RunFolder | None = None) -> None:
        """Record in `folder` why the run ends, see `failing.end`; the caller raises the error again."""
        failing.end(self, error, folder)


ALONE = Group()
"""One process, the usual case."""

_group: Group | None = None


def start_group(device: torch.device) -> Group:
    """Return the group that the launcher's environment describes, connected; outside of a launcher one process.

    nccl connects cuda devices, gloo processors.
    """
    global _group
    if processes() == 1:
        return ALONE
    if _group is None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store, rank, size = next(rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        _group = Group(rank, size, device, dist.PrefixStore("czsl-bench", store))
        atexit.register(_leave)  # threads of a group that is still there when the interpreter ends abort the process
    return _group


def _leave() -> None:
    """Leave the group, if there is one still."""
    global _group
    if _group is not None:
        _group.close()
        _group = None


def own_device(device: torch.device, count: int | None = None) -> torch.device:
    """Return this process's device of the kind that was chosen: of several cuda devices the one of its local rank.

    count: of the processes on this machine, None for those that there are. Too few cuda devices for them, one that all
    were to use, or devices that cannot be connected, are a `UserError`.
    """
    count = on_this_machine() if count is None else count
    if (count == 1 and processes() == 1) or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(
            f"{count} processes cannot train on the device '{device}'.",
            "Processes exchange gradients between cuda devices (nccl) or processors (gloo).",
            "Pass --device cuda or --device cpu.",
        )
    there = torch.cuda.device_count()
    if device.index is not None or there < count:
        raise UserError(
            f"Each of {count} processes needs a device of its own, with '{device}' asked for.",
            f"There are {there} cuda devices on this machine.",
            f"Start at most {there} processes with --device cuda.",
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
