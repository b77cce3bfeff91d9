"""What the operating system can do. Linux is what is tried; macOS is like it; Windows lacks what is named here."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor


def is_posix() -> bool:
    """Return whether processes can be forked and asked to stop by signals, which Windows cannot."""
    return hasattr(os, "fork")


def worker_pool() -> ProcessPoolExecutor:
    """Return a pool of as many processes as there are cores, at most 8, to draw or decode pictures once.

    Forked on Linux, as torch's own loaders are: the workers touch nothing but numpy and Pillow, and a spawned worker
    would run a script without a main guard once more.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    return ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=context)


def usable_cpus() -> int | None:
    """Return how many cores the process may use, which on a shared machine is less than what is there."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
