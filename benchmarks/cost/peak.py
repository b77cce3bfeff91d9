"""The largest memory in use between two moments, of the accelerator or, on Linux, of this process."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path


def reset_peak(device: str) -> int:
    """Forget the peak of memory so far and return what is in use, bytes."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with suppress(AttributeError, OSError, TypeError):  # not every C library has it, and Windows loads none by None
        ctypes.CDLL(None).malloc_trim(0)  # what an allocator keeps would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the resident peak starts again from here
    return _status("VmRSS")


def peak(device: str) -> int:
    """Return the largest memory in use since `reset_peak`, bytes."""
    import torch

    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
