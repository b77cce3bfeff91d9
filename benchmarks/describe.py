"""What a method is, for a person: its description, the tensors it trains, and its settings with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.settings import resolve, resolve_open_world
from benchmarks.spec import Profile
from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from methods.base import MethodInfo


@dataclass(frozen=True)
class Description:
    """tensors: (name, shape, number of elements) of each trained tensor. settings: (key, value, where from)."""

    info: MethodInfo
    tensors: Sequence[tuple[str, tuple[int, ...], int]]
    settings: Sequence[tuple[str, Any, str]]


def describe(method: str, dataset: str, backbone: str, profile: Profile = "clean") -> Description:
    """Return a method's description on a data set and backbone; an unknown name is a `UserError`."""
    method_class = METHODS.get(method)
    training, config, provenance = resolve(method, method_class.Config, dataset, profile=profile)
    vocabulary = DATASETS.get(dataset)().vocabulary
    built = method_class(BACKBONES.get(backbone)(backbone), vocabulary, method_class.Config.model_validate(config))
    tensors = [(name, tuple(tensor.shape), tensor.numel()) for name, tensor in built.trained().items()]
    open_world, places = resolve_open_world(method, method_class.Config, dataset, profile=profile)
    values, provenance = {**training.model_dump(), **config, **open_world.model_dump()}, provenance | places
    settings = []
    for key, note in sorted(provenance.items()):
        where = ": ".join(part for part in (note.get("where"), note.get("source")) if part)
        settings.append((key, values[key], where or note["origin"]))
    return Description(built.info, tensors, settings)
