"""When two numbers are equal: one rule for every test, rank, mark of the best and count of wins.

Means of the same runs in another order differ in their last bits, 1e-16; the smallest real difference of two AUCs, one
image more or less on the largest data set and a mean over seeds, is 1e-9. Between the two lies `TOLERANCE`.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-12
"""Neighbours nearer than this are equal; of numbers above 1 this times the largest of those that are compared."""


def slack(values: np.ndarray) -> float:
    """Return how far two of some numbers may lie apart and be equal."""
    known = np.abs(values[np.isfinite(values)])
    return TOLERANCE * max(1.0, float(known.max(initial=0.0)))


def settled(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return numbers, float64 of any shape, in which those that are equal but for rounding are equal to the last bit.

    In order of size, numbers without a gap above `slack` between neighbours form a cluster and become its smallest:
    the outcome does not depend on their order, equality is transitive as ranks need it, and no grid parts neighbours.
    Numbers that equal no other one stay as they are, to the last bit. axis: each line along it for itself.
    """
    values = np.asarray(values, dtype=np.float64)
    if axis is not None:
        return np.apply_along_axis(settled, axis, values) if values.size else values
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = ~((np.diff(ordered) <= slack(flat)) | (ordered[1:] == ordered[:-1]))
    first = np.concatenate([[0], np.flatnonzero(apart) + 1]) if len(flat) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.append(first, len(flat)))
    found = np.empty_like(flat)
    found[order] = np.repeat(ordered[first], sizes)
    return found.reshape(values.shape)


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return `first` less `second`, float64 [n] each, exactly 0 where the two are equal and alike where they are."""
    both = settled(np.stack([first, second]))
    return signed(both[0] - both[1])


def signed(values: np.ndarray) -> np.ndarray:
    """Return differences, float64 [n], with those that are 0 but for rounding 0, and equal sizes equal, signs kept."""
    sizes = settled(np.append(0.0, np.abs(values)))[1:]
    return np.copysign(sizes, values)
