"""What is kept instead of being computed again: the result of the last call, and what belongs to an object.

`LastCall` is for what `Method.score` would otherwise compute for each chunk of candidates, `PerObject` for what a list
of candidates decides in every training step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, Self, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from datasets.base import Candidates

T = TypeVar("T")


class LastCall(Generic[T]):
    """Keeps one value, and computes it anew when it is asked for other objects.

    Objects are compared by identity and held weakly, so that neither a finished batch nor an old `Prepared` lives on
    because of it. What is kept does not follow the parameters, as little as a `Prepared` does.
    """

    def __init__(self) -> None:
        self._keys: tuple[weakref.ref, ...] = ()
        self._value: T | None = None

    def get(self, keys: tuple[object, ...], compute: Callable[[], T]) -> T:
        """Return the kept value if it was computed for these very objects, else compute and keep it."""
        if len(keys) != len(self._keys) or any(ref() is not key for ref, key in zip(self._keys, keys, strict=True)):
            self._value = compute()
            self._keys = tuple(map(weakref.ref, keys))
        return cast(T, self._value)  # None only before the first call


class PerObject(Generic[T]):
    """Keeps a value for each object, on a device, as long as the object lives.

    Made of index tensors alone, such a value saves an accelerator the copies and the waiting that making it takes.
    Objects are compared by identity and must not be changed.
    """

    def __init__(self) -> None:
        self._kept = WeakIdKeyDictionary()

    def get(self, key: object, device: torch.device, compute: Callable[[], T]) -> T:
        """Return the object's value for a device; `compute` makes it where there is none."""
        kept: dict[torch.device, T] = self._kept.setdefault(key, {})
        if device not in kept:
            # Training goes on with what an evaluation made first, which autograd does not take from inference mode.
            with torch.inference_mode(False), torch.no_grad():
                kept[device] = compute()
        return kept[device]

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()


class PairIndices(PerObject[Tensor]):
    """Keeps which state and which object each candidate has."""

    def of(self, candidates: Candidates, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the states and the objects of the candidates on a device, int64 [K] each."""
        states, objects = self.get(candidates, device, lambda: torch.as_tensor(candidates.pairs, device=device)).unbind(
            1
        )
        return states, objects
