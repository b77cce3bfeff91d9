"""What a run needs to go on: its state in two generations, and the best weights. Each file knows its own digest.

    state.pt              the latest: method, optimizer, scheduler, scaler, progress, and within an epoch the generators
    state.previous.pt     the one before, for the day the latest is damaged
    best.safetensors      trained tensors of the epoch that counts, with their digest as metadata

A state file is a line with the SHA-256 of what follows, and then what torch saves. A disk that lies is found out
before a number depends on it.

Runs that share a training have the same state, each in its own folder: one file under several names, where the file
system has links. It says of each of them which epoch is its best.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks.runs import files
from benchmarks.runs.records import PREVIOUS, STATE
from methods.backbone.blocks import weights_digest

BEST = "best.safetensors"
RUNS = "runs"
"""Key of a state that several runs share: by run id, the fields of `Progress` that are the run's own."""
HEAD = b"czsl-bench state, SHA-256 "


@dataclass
class Progress:
    """How far training is. best_epoch is -1 before the first epoch.

    images: of epoch `next_epoch`, how many have been trained on already; more than 0 only after a stop within it. sums:
    of these, each loss term's sum over images. seconds: what they took. micro_batch: images that go through at once
    since memory ran out; None where it never did.
    """

    next_epoch: int = 0
    best_epoch: int = -1
    best_value: float = -math.inf
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    micro_batch: int | None = None

    @property
    def holds_best(self) -> bool:
        """Whether the weights of the training's own state are those of the best epoch so far."""
        return self.images == 0 and 0 <= self.best_epoch == self.next_epoch - 1

    @property
    def place(self) -> tuple[int, int]:
        """Finished epochs, and images of the next one: the larger, the further."""
        return self.next_epoch, self.images


class Damaged(Exception):
    """A file is not what was written. The text says which and why."""


def write_state(folders: Sequence[Path], state: Mapping[str, Any]) -> None:
    """Write the state of runs that share a training into their folders; in each the one before it is kept.

    Each folder has it whole or not at all.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    head = HEAD + hashlib.sha256(content).hexdigest().encode() + b"\n"

    def write(file: IO[bytes]) -> None:
        file.write(head)
        file.write(content)

    first = folders[0] / STATE
    for folder in folders:
        latest = folder / STATE
        if latest.is_file():
            with files.writing(latest):
                latest.replace(folder / PREVIOUS)
        if folder == folders[0]:
            files.write_aside(first, write)
        else:
            files.write_again(first, latest, write)


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Return a state; `Damaged` if it is not what was written."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error
    if head != HEAD + hashlib.sha256(content).hexdigest().encode():
        raise Damaged(f"{path.name} is damaged: its SHA-256 is not the one it was written with")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def states_of(folder: Path) -> list[Path]:
    """Return the folder's state files, the latest first."""
    return [path for path in (folder / STATE, folder / PREVIOUS) if path.is_file()]


def progress_of(state: Mapping[str, Any], run_id: str, own: bool) -> Progress | None:
    """Return how far a run is in a state; None for one that the state is not about.

    own: whether the state lies in the run's own folder. A state that names no runs is about that run alone.
    """
    best = state.get(RUNS, {}).get(run_id)
    if best is None and not (own and RUNS not in state):
        return None
    return Progress(**{**state["progress"], **(best or {})})


def remove(path: Path) -> None:
    """Remove a file that is of no use any more."""
    with files.writing(path):
        path.unlink(missing_ok=True)


def forget_state(folder: Path) -> None:
    """Remove what only resuming needs."""
    for name in (STATE, PREVIOUS):
        remove(folder / name)


def write_best(folder: Path, tensors: Mapping[str, Tensor], run_id: str, epoch: int) -> None:
    """Write the weights of the best epoch, whole or not at all."""
    own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    # One entry, because safetensors writes several in an order of its own each time.
    about = json.dumps({"run_id": run_id, "epoch": epoch, "digest": weights_digest(own)})
    content = save(own, {"about": about})
    files.write_aside(folder / BEST, lambda file: file.write(content))


def read_best(folder: Path, device: torch.device) -> tuple[dict[str, Tensor], int]:
    """Return the weights of the best epoch, and which it is; `Damaged` if they are not what was written."""
    try:
        with safe_open(folder / BEST, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"{BEST} cannot be read: {error}") from error
    if weights_digest(tensors) != about.get("digest"):
        raise Damaged(f"{BEST} is damaged: its SHA-256 is not the one it was written with")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, about["epoch"]


class Generators:
    """The states of the generators that a method may draw from, on the CPU and on its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state(self) -> dict[str, Tensor]:
        """Return the states, each a byte tensor on the CPU."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            states["mps"] = torch.mps.get_rng_state()
        return states

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Put the states back; those of a device that is not in use any more are left out."""
        torch.set_rng_state(states["cpu"].cpu())
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"].cpu(), self.device)
        elif self.device.type == "mps" and "mps" in states:
            torch.mps.set_rng_state(states["mps"].cpu())
