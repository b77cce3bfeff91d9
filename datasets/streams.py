"""Named random streams: the same names give the same numbers, and no stream depends on how another was used.

Seeds come from a hash of the names instead of one global seed, so that drawing more in one place changes nothing
elsewhere. No torch here: statistics and rendering need none.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _key(names: tuple[object, ...]) -> bytes:
    return hashlib.sha256("/".join(str(name) for name in names).encode()).digest()


def derived_seed(*names: object) -> int:
    """Return a 63-bit seed of a named stream: the same names, the same seed; no stream depends on another's use."""
    return int.from_bytes(_key(names)[:8], "little") >> 1


def stream(*names: object) -> np.random.Generator:
    """Return the random generator of a named stream: the same names give the same numbers, whatever else was drawn."""
    return np.random.default_rng(int.from_bytes(_key(names)[:16], "little"))
