"""What the processes of one run exchange: sums, gradients, bytes, records, and the rows of a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

# Before there is a group: its functions keep the one that is there when they are imported, which could not close then.
import torch.distributed.nn
from torch import Tensor, nn

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.thresholds import ThresholdScores
from errors import UserError
from methods.parts.shares import Share

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
class Processes:
    """The processes that make one run, and what connects them.

    rank: of this process
    size: how many there are
    device: of the tensors that are exchanged
    store: where a failing process leaves word
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    store: dist.Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the processes."""
        return {"processes": self.size} | ({"communication": dist.get_backend()} if self.size > 1 else {})

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
        """Replace each gradient by its sum over all processes.

        All are of one dtype, because they are sent in one buffer.
        """
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

    def close(self) -> None:
        """Leave the group in good order."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class _Join(torch.autograd.Function):
    """Rows of all processes from this one's: a sum of buffers in which every process has filled its own rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: Share, group: Processes) -> Tensor:
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


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()
