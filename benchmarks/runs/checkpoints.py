"""What a run needs to go on: its state in two generations, and the best weights. Each file knows its own digest.

    state.pt              the latest: method, optimizer, scheduler, scaler, progress, and within an epoch the generators
    state.previous.pt     the one before, for the day the latest is damaged
    best.safetensors      trained tensors of the epoch that counts, with their digest as metadata

A state file is a line with the SHA-256 of what follows, and then what torch saves. A disk that lies is found out
before a number depends on it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks.runs import files
from benchmarks.runs.records import PREVIOUS, STATE
from methods.backbone.blocks import weights_digest

BEST = "best.safetensors"
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


class Damaged(Exception):
    """A file is not what was written. The text says which and why."""


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state whole or not at all, and keep the one before it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    head = HEAD + hashlib.sha256(content).hexdigest().encode() + b"\n"
    latest = folder / STATE
    if latest.is_file():
        with files.writing(latest):
            latest.replace(folder / PREVIOUS)
    files.write_aside(latest, lambda file: (file.write(head), file.write(content)))


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Return a state; `Damaged` if it is not what was written."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error
    if head != HEAD + hashlib.sha256(content).hexdigest().encode():
        raise Damaged(f"{path.name} is damaged: its SHA-256 is not the one it was written with")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def readable_states(folder: Path, device: torch.device, damages: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the folder's states, the latest first; a damaged one is removed and told in `damages`."""
    for path in (folder / STATE, folder / PREVIOUS):
        if path.is_file():
            try:
                state = read_state(path, device)
            except Damaged as damage:
                damages.append(str(damage))
                with files.writing(path):
                    path.unlink()
            else:
                yield state


def holds_best(state: Mapping[str, Any]) -> bool:
    """Return whether a state's own weights are those of the best epoch so far."""
    progress = Progress(**state["progress"])
    return progress.images == 0 and 0 <= progress.best_epoch == progress.next_epoch - 1


def forget_state(folder: Path) -> None:
    """Remove what only resuming needs."""
    for name in (STATE, PREVIOUS):
        with files.writing(folder / name):
            (folder / name).unlink(missing_ok=True)


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
