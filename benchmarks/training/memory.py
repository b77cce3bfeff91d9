"""Memory: how running out of it is recognised, how work is repeated in smaller parts, and how much there was."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from errors import UserError, counted

resource: Any
try:
    import resource
except ImportError:  # Windows has no such module
    resource = None

Result = TypeVar("Result")

# What torch says where it has no error class of its own for it: the CPU's allocator, MPS, cuBLAS and cuDNN.
WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def in_smaller_parts(work: Callable[[], Result], smaller: Callable[[], None]) -> Result:
    """Return what `work` returns; whenever it runs out of memory, call `smaller` and let it begin anew.

    `smaller` raises where there is nothing left to make smaller.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # After the except clause, because the error's traceback holds every tensor of the attempt.
        release()
        smaller()


def check_halving(size: int, method: str, device: torch.device, processes: int) -> None:
    """Raise the `UserError` of an evaluation of `size` images at once that cannot go on with half as many."""
    if size == 1:
        raise UserError(
            f"Memory does not suffice to evaluate {method} on {device}.",
            "It ran out with one image at once; what was trained is kept.",
            "Run the same command on a device with more memory, or with a smaller backbone.",
        )
    if processes > 1:
        raise UserError(
            f"Memory ran out with {counted(size, 'image')} at once in evaluation.",
            f"{processes} processes make this run, and they cannot change that by themselves.",
            "The same command without --devices goes on from what was trained, with fewer images at once.",
        )


def release() -> None:
    """Give memory that nothing uses back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def peak_memory(device: torch.device) -> int | None:
    """Return the largest memory in bytes: of the accelerator, or on the CPU of the whole process so far.

    None on the CPU of a system that does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
