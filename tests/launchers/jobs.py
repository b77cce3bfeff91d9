"""Runs for the tests of launchers: long enough to be interrupted, short enough for a test."""

from __future__ import annotations

from pathlib import Path

TOY = "toy_jobs"
SLOW = ("coop.augmentation=clip", "coop.batch_size=2", "coop.epochs=6")
"""Settings by which a run of CoOp takes a few seconds, most of them in training."""


def epochs(folder: Path) -> int:
    """Return how many epochs of a run are finished."""
    path = folder / "epochs.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
