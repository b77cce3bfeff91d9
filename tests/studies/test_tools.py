"""The pixel probe and contact sheets, on toy data."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies import pixel_probe
from datasets.contact_sheet import CELL, sheet


def test_ridge_equals_the_normal_equations():
    rng = np.random.default_rng(0)
    x, y, other = rng.normal(size=(20, 7)), rng.normal(size=(20, 3)), rng.normal(size=(5, 7))
    for penalty, (output,) in zip((0.1, 10.0), pixel_probe.ridge(x, y, [other], (0.1, 10.0)), strict=True):
        centred = x - x.mean(axis=0)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(7), centred.T @ (y - y.mean(axis=0)))
        assert np.allclose(output, (other - x.mean(axis=0)) @ weights + y.mean(axis=0))


def test_the_probe_is_judged_by_the_exact_evaluator(toy):
    penalty, val, test = pixel_probe.probe(toy, side=16)
    assert penalty in pixel_probe.PENALTIES
    assert (val.images, test.images) == (24, 24)
    assert 0.0 <= test.auc <= 1.0


@pytest.mark.parametrize(("by", "rows"), [("state", 4), ("object", 4)])
def test_a_contact_sheet_has_a_row_for_each_word(toy, by, rows):
    picture = sheet(toy, by, columns=2, halves=1)
    assert picture.height == rows * CELL
