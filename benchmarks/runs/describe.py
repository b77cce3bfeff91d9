"""What a method is, for a person: its description, the tensors it trains, and its settings with their sources."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.runs.resolution import resolve
from benchmarks.runs.spec import Profile
from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from methods.base import MethodInfo


@dataclass(frozen=True)
class Tensors:
    """Trained tensors of one shape whose names differ in a number alone, which `name` shows as "*"."""

    name: str
    shape: tuple[int, ...]
    count: int
    numbers: int


@dataclass(frozen=True)
class Description:
    """settings: (key, value, where from). sources: what each of these places says of its values."""

    info: MethodInfo
    tensors: Sequence[Tensors]
    settings: Sequence[tuple[str, Any, str]]
    sources: Mapping[str, str]


def describe(method: str, dataset: str, backbone: str, profile: Profile = "clean") -> Description:
    """Return a method's description on a data set and backbone; an unknown name is a `UserError`."""
    method_class = METHODS.get(method)
    resolved = resolve(method, method_class.Config, dataset, profile=profile, world="open")
    vocabulary = DATASETS.get(dataset)().vocabulary
    built = method_class(BACKBONES.get(backbone)(), vocabulary, method_class.Config.model_validate(resolved.method))
    notes = dict(sorted(resolved.provenance.items()))
    settings = [(key, resolved.values[key], note.get("where", note["origin"])) for key, note in notes.items()]
    sources = {note["where"]: note["source"] for note in notes.values() if note.get("source")}
    return Description(built.info, grouped(built.trained()), settings, dict(sorted(sources.items())))


def grouped(tensors: Mapping[str, Tensor]) -> list[Tensors]:
    """Return the tensors by name, with those of many blocks or layers in one row.

    >>> import torch
    >>> grouped({"a_0.w": torch.ones(2, 3), "b": torch.ones(4), "a_1.w": torch.ones(2, 3)})
    [Tensors(name='a_*.w', shape=(2, 3), count=2, numbers=12), Tensors(name='b', shape=(4,), count=1, numbers=4)]
    """
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((re.sub(r"\d+", "*", name), tuple(tensor.shape)), []).append(name)
    return [
        Tensors(pattern if len(names) > 1 else names[0], shape, len(names), len(names) * math.prod(shape))
        for (pattern, shape), names in groups.items()
    ]
