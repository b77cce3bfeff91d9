"""The result of the last call, for what `Method.score` would otherwise compute again for each chunk of candidates."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

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
        return self._value  # type: ignore[return-value]  # None only before the first call
