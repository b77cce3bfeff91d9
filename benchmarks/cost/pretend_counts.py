"""What is counted on the pretended accelerator: waiting, copies, kernels and views, and where they happen."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SYNCHRONISING = {
    *("_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "equal"),
    *("is_nonzero", "masked_select", "bincount", "repeat_interleave.Tensor"),
}
"""Operations that make the host wait, because a number or a shape depends on what the device computes."""
VIEWS = {"_unsafe_view", "_reshape_alias", "lift_fresh"}
"""Views that the schema does not tell."""
NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "_fused_sdp_choice"),
    "_local_scalar_dense",
}
"""Operations that compute nothing on the device."""
ROOT = Path(__file__).parents[2]
OWN = {__file__, str(Path(__file__).with_name("pretend_device.py"))}
"""Files that are no place where something happens."""
PACKAGES = ("benchmarks", "datasets", "methods", "tests")
"""Folders of the root whose files are places."""


@dataclass
class Counted:
    """What happened on the device.

    synchronisations: times that the host had to wait for the device, by operation
    copies: of tensors between host and device, by direction, "to device" and "to host"
    kernels: operations that compute on the device, by name; a view computes nothing
    views: operations that only look at a tensor otherwise, by name; they cost the host time
    places: where all but views happened, as "file:line operation", if with_places
    """

    synchronisations: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    with_places: bool = False

    def clear(self) -> None:
        """Begin at zero."""
        for counter in (self.synchronisations, self.copies, self.kernels, self.views, self.places):
            counter.clear()


in_force: list[Counted] = []
"""What counts, the innermost last; that one alone does."""


def looks_at(func: Any) -> bool:
    """Return whether an operation gives views of what it is given."""
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


def count(func: Any, args: Sequence[Any], out: Any) -> None:
    """Count an operation; one that makes an empty tensor starts nothing."""
    name = func._schema.name.removeprefix("aten::")
    looks = looks_at(func)
    empty = isinstance(out, Tensor) and out.numel() == 0
    for counted in in_force[-1:]:
        if looks or name in VIEWS:
            counted.views[name] += 1
        elif not empty and name not in NO_KERNEL:
            counted.kernels[name] += 1
            if counted.with_places:
                counted.places[f"{_place()} {name}"] += 1
    by_mask = name in ("index", "index_put_", "index_put", "_index_put_impl_") and any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )
    if name in SYNCHRONISING or f"{name}.{func._overloadname}" in SYNCHRONISING or by_mask:
        synchronised("item" if name == "_local_scalar_dense" else f"{name} by mask" if by_mask else name)


def synchronised(what: str) -> None:
    """Count that the host waits."""
    for counted in in_force[-1:]:
        counted.synchronisations[what] += 1
        if counted.with_places:
            counted.places[f"{_place()} SYNC {what}"] += 1


def copied(direction: str) -> None:
    """Count a copy."""
    for counted in in_force[-1:]:
        counted.copies[direction] += 1
        if counted.with_places:
            counted.places[f"{_place()} COPY {direction}"] += 1


def _place() -> str:
    """Return the innermost line of the suite that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        if (file := own_file(frame.f_code.co_filename)) is not None:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None at the outermost
    return "backward"


@cache
def own_file(name: str) -> str | None:
    """Return the path of a file of the suite or its tests from the root on; None for any other, this file included.

    A virtual environment may lie in the root, or beside it in a folder whose name begins as the root's does.
    """
    path = Path(name)
    if name in OWN or not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return None
    return path.relative_to(ROOT).as_posix()
