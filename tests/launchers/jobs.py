"""Runs for the tests of launchers: long enough to be interrupted, short enough for a test."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import Forked
from test_bench import results_of

TOY = "toy_jobs"
SLOW = ("coop.augmentation=clip", "coop.batch_size=2", "coop.epochs=6")
"""Settings by which a run of CoOp takes a few seconds, most of them in training."""
PACE = {"TEST_PACE": "0.04"}
"""Environment variables by which each training step waits (see `PACED`), so that a signal never comes too late."""
PACED = """

import os

if os.environ.get("TEST_PACE"):
    import time

    from methods.coop import CoOp

    step = CoOp.training_loss

    def paced(*arguments, **named):
        time.sleep(float(os.environ["TEST_PACE"]))
        return step(*arguments, **named)

    CoOp.training_loss = paced
"""
PATIENCE = 300.0
"""Seconds that the tests wait for a run to get somewhere; a few are enough on a machine with nothing else to do."""


def epochs(folder: Path) -> int:
    """Return how many epochs of a run are finished."""
    path = folder / "epochs.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def numbers_of(results: Path) -> dict[str, tuple[dict, str, str]]:
    """Return what finished runs gave, by name: the result without its cost, digests of scores and trained weights."""
    found = {}
    for name, result in results_of(results).items():
        digests = [
            hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
            for path in (results / name / "scores.npz", results / name / "best.safetensors")
        ]
        found[name] = (result, digests[0], digests[1])
    return found


@contextmanager
def started(*arguments: object) -> Iterator[Forked]:
    """Start a paced command line and yield its process; what of it is still there at the end is ended."""
    process = Forked(*arguments, env=PACE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def signal_before(own: Callable[..., object], number: int = signal.SIGTERM) -> Callable[..., object]:
    """Return what a function does, after a signal to this process."""

    def more(*arguments, **keywords):
        os.kill(os.getpid(), number)
        return own(*arguments, **keywords)

    return more


def until(ready: Callable[[], object]) -> None:
    """Wait until something is true; fail where that takes for ever."""
    from slurm_node import wait_until

    assert wait_until(ready, PATIENCE), f"waited {PATIENCE:.0f} s for nothing"
