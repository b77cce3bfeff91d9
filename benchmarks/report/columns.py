"""Per-image arrays as bytes that compress well, and back to the last bit.

Most of a record is known once the rest of it is: where an image is right, the true pair is the champion of its group
and the true score the best score. Such columns are stored as what they differ by, which is mostly zero. Then the bytes
of an array stand in planes: all first bytes, all second ones, because the exponents of floats are alike and their last
digits are noise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.evaluation.image_scores import credit

LEFT_OUT = ("logsumexp_seen", "logsumexp_unseen")
"""Not stored, a third of the size: only the calibration is computed from them, and a result has that."""

PHASES = ("val", "test")

TEXT_LIMIT = 1 << 28
"""Bytes that a column of text may take: its lines are as wide as its type says, whatever they hold."""


def kept(arrays: Mapping[str, np.ndarray], phases: tuple[str, ...] = PHASES) -> dict[str, np.ndarray]:
    """Return what is stored of a run's arrays: of some phases, without `LEFT_OUT`, and what belongs to no phase."""
    dropped = {f"{phase}.{name}" for phase in PHASES for name in LEFT_OUT}
    others = tuple(f"{phase}." for phase in PHASES if phase not in phases)
    return {name: values for name, values in arrays.items() if name not in dropped and not name.startswith(others)}


def restored(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as records have them: with NaN in place of `LEFT_OUT`, which is what "not known" is."""
    found = dict(arrays)
    for phase in PHASES:
        if f"{phase}.is_seen" in arrays:
            nothing = np.full(len(arrays[f"{phase}.is_seen"]), np.nan)
            found |= {f"{phase}.{name}": nothing for name in LEFT_OUT}
    return found


def to_differences(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with the columns that others foretell replaced by what they differ by."""
    found = dict(arrays)
    for phase in (phase for phase in PHASES if f"{phase}.is_seen" in arrays):
        own = _Phase(arrays, phase)
        found[own.name("correct")] = _bits(own["correct"]) ^ _bits(own.credit())
        found[own.name("true_score")] = _bits(own["true_score"]) ^ _bits(own.best())
        for group, winner in own.winners():
            found[own.name(winner)] = np.where(group, own[winner] - own["true_column"], own[winner])
    return found


def from_differences(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `to_differences` was given."""
    found = dict(arrays)
    for phase in (phase for phase in PHASES if f"{phase}.is_seen" in arrays):
        own = _Phase(found, phase)
        for group, winner in own.winners():
            found[own.name(winner)] = np.where(group, own[winner] + own["true_column"], own[winner])
        found[own.name("true_score")] = (own["true_score"] ^ _bits(own.best())).view(np.float32)
        found[own.name("correct")] = (own["correct"] ^ _bits(own.credit())).view(np.float64)
    return found


class _Phase:
    """One phase's columns in a run's arrays, and what can be foretold from some of them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], phase: str) -> None:
        self.arrays, self.phase = arrays, phase

    def name(self, column: str) -> str:
        return f"{self.phase}.{column}"

    def __getitem__(self, column: str) -> np.ndarray:
        return self.arrays[self.name(column)]

    def best(self) -> np.ndarray:
        """The best score of each image's own group, the true score where the image is right."""
        return np.where(self["is_seen"], self["best_seen"], self["best_unseen"])

    def credit(self) -> np.ndarray:
        return credit(self["true_score"], self.best(), self["ties"])

    def winners(self) -> tuple[tuple[np.ndarray, str], ...]:
        return (self["is_seen"], "seen_winner"), (~self["is_seen"], "unseen_winner")


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view({4: np.uint32, 8: np.uint64}[values.dtype.itemsize])


def _dtype(name: object) -> np.dtype[Any]:
    """Return a type of plain numbers or of text; ValueError for any other."""
    if not isinstance(name, str) or re.fullmatch(r"\|b1|[<>|=]?[fiu][1248]|<U\d{1,5}", name) is None:
        raise ValueError(f"a column is of the type {name!r:.40}")
    return np.dtype(name)


def to_planes(values: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Return an array as its description for JSON and its bytes in planes; whole numbers as few bytes as they need."""
    about: dict[str, Any] = {"dtype": values.dtype.str, "shape": list(values.shape)}
    if values.dtype.kind == "U":
        about["text"] = True
        return about, "\n".join(values.ravel().tolist()).encode()
    if values.dtype.kind in "iu" and values.size:
        small = np.min_scalar_type(-1 - int(values.max())) if values.min() < 0 else np.min_scalar_type(values.max())
        small = np.promote_types(small, np.min_scalar_type(values.min()))
        about["stored"] = np.dtype(small).newbyteorder("<").str
        values = values.astype(small)
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return about, plain.view(np.uint8).reshape(-1, plain.dtype.itemsize).T.tobytes()


def from_planes(about: Mapping[str, Any], data: bytes) -> np.ndarray:
    """Return the array that `to_planes` was given; ValueError for a description that does not belong to the bytes.

    It may come from anybody: what it says is held against the bytes before any memory is taken for it.
    """
    shape, dtype = tuple(int(size) for size in about["shape"]), _dtype(about["dtype"])
    count = math.prod(shape)
    if len(shape) > 2 or min(shape, default=0) < 0:
        raise ValueError(f"a column has the shape {shape}")
    if about.get("text"):
        lines = data.decode().split("\n") if data or count == 1 else []
        if dtype.kind != "U" or len(lines) != count or dtype.itemsize * count > TEXT_LIMIT:
            raise ValueError(f"a column of {len(lines):,} lines of text is described as {shape} of {dtype}")
        return np.array(lines, dtype).reshape(shape)
    stored = _dtype(about.get("stored", about["dtype"]))
    if dtype.kind == "U" or stored.kind == "U" or stored.itemsize * count != len(data):
        raise ValueError(f"a column of {len(data):,} bytes is described as {shape} of {stored}")
    planes = np.frombuffer(data, np.uint8).reshape(stored.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(stored).reshape(shape).astype(dtype)
