"""Many comparisons: Holm's adjustment. Holm, A simple sequentially rejective multiple test procedure, 1979."""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return the adjusted p-values of a family, float64 of the same shape.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at alpha, whatever the
    tests' dependence. In order of p, adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). NaN means that
    no test was made: it stays NaN and does not count in m. The family is to be fixed before looking: as a rule all
    comparisons of one table.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    flat, adjusted = p_values.ravel(), np.full(p_values.size, np.nan)
    made = np.flatnonzero(~np.isnan(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(order), 0, -1) * flat[order]))
    return adjusted.reshape(p_values.shape)
