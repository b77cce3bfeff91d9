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
import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

# Before there is a group: its functions keep the one that is there when they are imported, which could not close then.
import torch.distributed.nn
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.thresholds import ThresholdScores
from benchmarks.runs.records import RunFolder
from benchmarks.training.processes import on_this_machine, processes
from errors import UserError, counted
from methods.base import Method
from methods.parts import own_draws, shares
from methods.parts.shares import Share

PATIENCE = datetime.timedelta(hours=2)  # for a first process that renders a data set or writes a report
GRACE = 20.0  # seconds that the others give the first process to record why the run ended
FAILURE, SETTLED = "failure", "settled"

Record = TypeVar("Record", ImageScores, ThresholdScores)


class ProcessLost(UserError):
    """Another process of the run has ended, so that nothing can be exchanged with it any more."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"One of the {size} processes of this run has ended without a word.",
            "Its launcher says how.",
            "The same command goes on from the last finished epoch.",
        )


@dataclass(frozen=True)
class Group:
    """The processes that make one run: this one's rank, how many there are, and what connects them.

    device: of the tensors that are exchanged. store: where a failing process leaves word. The default is one process,
    for which everything here does nothing.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    store: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the processes."""
        return {"processes": self.size} | ({"communication": dist.get_backend()} if self.size > 1 else {})

    # Shares -----------------------------------------------------------------------------------------------------------

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
        for module in method.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(_before_norm)
                module.register_forward_hook(_after_norm)

    # Exchange ---------------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sums([0.0])

    def sums(self, values: Iterable[float]) -> list[float]:
        """Return the sums of the numbers over all processes, in double precision."""
        values = list(values)
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._exchange(dist.all_reduce, total)
        return total.tolist()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum over all processes in the place of each gradient; they are of one type and travel together."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        buffer = torch.cat([gradient.flatten() for gradient in gradients])
        self._exchange(dist.all_reduce, buffer)
        for gradient, total in zip(gradients, buffer.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def gather(self, content: bytes) -> list[bytes]:
        """Return what every process gave, in the order of their ranks."""
        if self.size == 1:
            return [content]
        own = torch.tensor([len(content)], device=self.device)
        lengths = [torch.empty_like(own) for _ in range(self.size)]
        self._exchange(dist.all_gather, lengths, own)
        sizes = [int(length) for length in lengths]
        padded = np.zeros(max(1, *sizes), dtype=np.uint8)
        padded[: len(content)] = np.frombuffer(content, dtype=np.uint8)
        sent = torch.from_numpy(padded).to(self.device)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        self._exchange(dist.all_gather, parts, sent)
        return [part.cpu().numpy()[:size].tobytes() for part, size in zip(parts, sizes, strict=True)]

    def join(self, record: Record) -> Record:
        """Return a record of all images from each process's record of its own.

        Arrays [N] or [T, N] are joined along their last axis in the order of the ranks; other fields are kept.
        """
        if self.size == 1:
            return record
        joined: dict[str, Any] = {}
        for item in fields(record):
            own = getattr(record, item.name)
            if isinstance(own, np.ndarray):
                parts = self.gather(np.ascontiguousarray(own).tobytes())
                arrays = [np.frombuffer(part, dtype=own.dtype).reshape(*own.shape[:-1], -1) for part in parts]
                joined[item.name] = np.concatenate(arrays, axis=-1)
        return replace(record, **joined)

    def check_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError if a tensor is not the same, bit for bit, in every process."""
        if self.size == 1:
            return
        digests = {name: _digest(tensor) for name, tensor in tensors.items()}
        first = json.loads(self.gather(json.dumps(digests).encode())[0])
        differing = [name for name in digests if digests[name] != first[name]]
        if self.sums([len(differing)])[0]:
            raise RuntimeError(f"the processes' tensors have drifted apart: {', '.join(differing) or 'elsewhere'}")

    def _join(self, values: Tensor, share: Share) -> Tensor:
        return _Join.apply(values, share, self)

    def _exchange(self, operation: Any, *tensors: Any, **options: Any) -> None:
        try:
            operation(*tensors, **options)
        except RuntimeError as error:  # what gloo and nccl raise when a process has gone
            raise ProcessLost(self.size) from error

    # Order and failure ------------------------------------------------------------------------------------------------

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process go through alone: what it prepares on disk the others find."""
        if not self.leads:
            self.barrier()
        yield
        if self.leads:
            self.barrier()

    def agree(self, choices: Sequence[tuple[str, str]]) -> list[str]:
        """Return the first process's second words, once all have them; unlike first words are a `UserError`."""
        if self.size == 1:
            return [choice for _, choice in choices]
        every = [json.loads(content) for content in self.gather(json.dumps(list(choices)).encode())]
        if any([name for name, _ in found] != [name for name, _ in every[0]] for found in every):
            raise UserError(
                f"The {self.size} processes do not plan the same runs.",
                "They see other files, settings or plug-ins.",
                "Start them from one folder with one command line.",
            )
        return [choice for _, choice in every[0]]

    def folder(self, folder: RunFolder) -> RunFolder:
        """Return the folder for this process: the first one writes, the others only read."""
        return folder if self.leads else ReadOnlyFolder(folder.path)

    def end(self, error: Exception, folder: RunFolder | None = None) -> None:
        """Record in `folder` why the run ends, once, and tell the other processes; the caller raises the error again.

        The first process records its own error, or what another left word of before it ended: then that is raised. The
        others wait until that is done and exit in silence. If the first does not answer, because it is lost itself or
        waits where nothing can wake it, a process that failed records its own error.
        """
        if self.size == 1:
            return _fail(folder, error)
        own = not isinstance(error, ProcessLost)
        if self.leads:
            told = json.loads(self.store.get(FAILURE)) if not own and self.store.check([FAILURE]) else None
            cause = error
            if told is not None:
                cause = UserError(*told["sentences"])
                cause.add_note(told["traceback"])  # for the record; it is not part of the message
            _fail(folder, cause)
            self.store.set(SETTLED, "yes")
            self.close()
            if cause is not error:
                raise cause from None
            return
        if own:
            told = {"sentences": _sentences(error, self.rank)}
            told["traceback"] = "".join(traceback.format_exception(error))
            self.store.compare_set(FAILURE, "", json.dumps(told))
        self.close()  # over gloo the others notice at once
        deadline = time.monotonic() + GRACE
        while not self.store.check([SETTLED]):
            if time.monotonic() > deadline:
                return _fail(folder if folder is None else RunFolder(folder.path), error) if own else None
            time.sleep(0.05)
        raise SystemExit(0)  # the first process ends with the code

    def close(self) -> None:
        """Leave the group in good order."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Group()
"""One process, the usual case."""

_group: Group | None = None


class ReadOnlyFolder(RunFolder):
    """A run folder for the processes that write nothing: they read what the first one wrote."""

    def start(self, *_: Any, **__: Any) -> None:
        """Write nothing."""

    note = append_epoch = resume_at = write_arrays = finish = interrupt = fail = tidy = clear = start


def _fail(folder: RunFolder | None, error: Exception) -> None:
    if folder is not None:
        with suppress(UserError):  # the disk that failed the run may not take in why
            folder.fail(error)


def _sentences(error: Exception, rank: int) -> list[str]:
    """Return what a process says of its failure in the three sentences of a `UserError`."""
    if isinstance(error, UserError):
        return [error.asked, error.there, error.next_step]
    reason = " ".join(str(error).split()).rstrip(".")
    return [
        f"Process {rank} of this run failed.",
        f"{type(error).__name__}: {reason}.",
        "The same command goes on from the last finished epoch.",
    ]


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


class _Join(torch.autograd.Function):
    """Rows of all processes from this one's: a sum of buffers in which every process has filled its own rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: Share, group: Group) -> Tensor:
        ctx.share, ctx.group = share, group
        whole = values.new_zeros(share.total, *values.shape[1:])
        whole[share.first : share.first + share.count] = values[: share.count]
        group._exchange(dist.all_reduce, whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        ctx.group._exchange(dist.all_reduce, gradient)
        own = gradient[ctx.share.rows]
        return (own if ctx.share.count else torch.zeros_like(own)), None, None


def _before_norm(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (shares.all_rows(inputs[0]), *inputs[1:]) if module.training else None


def _after_norm(module: _BatchNorm, _: Any, output: Tensor) -> Tensor | None:
    return shares.own_rows(output) if module.training else None


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()
