"""One rule of equality: the same runs in another order are equal in every test, real differences stay differences."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from benchmarks.report.table_model import Cell, Column, ranked
from benchmarks.significance import friedman, nemenyi, pairwise_wilcoxon
from benchmarks.significance.equality import differences, settled, signed
from benchmarks.significance.intervals import bca_interval, bootstrap_p_value
from benchmarks.significance.paired import compare_over_seeds, mean_over_seeds, sign_flip
from benchmarks.significance.ranks import wilcoxon

UP, DOWN = 0.20000000000000004, 0.19999999999999998
"""Means of the same three seeds in two orders."""


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e9])
def test_numbers_equal_but_for_rounding_become_equal(scale):
    values = np.array([0.3, UP, 0.1, DOWN, 0.2, np.nan, 0.2 + 1e-9, -np.inf]) * scale
    found = settled(values)
    assert found[1] == found[3] == found[4] == DOWN * scale
    kept = [0, 2, 5, 6, 7]
    assert np.array_equal(found[kept], values[kept], equal_nan=True), "others keep every bit"
    assert len(settled(np.zeros(0))) == 0
    for order in permutations(range(4)):
        assert np.array_equal(settled(values[:4][list(order)]), found[:4][list(order)])


def test_no_grid_parts_neighbours_and_equality_is_transitive():
    edges = (np.arange(1, 2000) + 0.5) * 1e-12
    for edge in edges[::97]:
        low, middle, high = settled(np.array([edge - 4e-16, edge, edge + 4e-16]))
        assert low == middle == high
    assert signed(np.array([1e-17, -1e-17, -0.25, 0.25 + 1e-16])).tolist() == [0, 0, -0.25, 0.25]
    assert differences(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.4])).tolist() == [0, 0.5 - 0.4]


def noisy(first: np.ndarray) -> np.ndarray:
    """The same values as means of the same runs in another order would be: the last bits differ, up and down."""
    return np.nextafter(first, np.where(np.arange(first.size).reshape(first.shape) % 2, 1, -1))


@pytest.mark.parametrize("datasets", [2, 6, 12, 20])
def test_rounding_errors_have_no_ranks(datasets):
    rng = np.random.default_rng(datasets)
    column = np.round(rng.uniform(0.1, 0.6, datasets), 3)
    for table in (np.tile([UP, DOWN], (datasets, 1)), np.stack([column, noisy(column)], axis=1)):
        assert friedman(table).p_value == 1.0 and friedman(table).chi2 == 0
        assert friedman(table).average_ranks.tolist() == [1.5, 1.5]
        assert nemenyi(table).p_values.tolist() == [[1, 1], [1, 1]]
        assert pairwise_wilcoxon(table).p_values.tolist() == [[1, 1], [1, 1]]


def test_every_test_of_ranks_takes_rounding_for_what_it_is():
    rng = np.random.default_rng(0)
    table = np.round(rng.uniform(0.1, 0.6, (8, 4)), 2)  # two digits, so that there are real ties too
    other = noisy(table)
    assert friedman(table).p_value == friedman(other).p_value
    assert np.array_equal(friedman(table).average_ranks, friedman(other).average_ranks)
    assert np.array_equal(nemenyi(table).p_values, nemenyi(other).p_values)
    assert nemenyi(table).groups == nemenyi(other).groups
    assert np.array_equal(pairwise_wilcoxon(table).p_values, pairwise_wilcoxon(other).p_values)


@pytest.mark.parametrize("size", [1e-6, 1e-9])
def test_real_differences_stay_differences(size):
    table = np.linspace(0.1, 0.6, 12)[:, None] + [0.0, size]
    assert friedman(table).average_ranks.tolist() == [2, 1] and friedman(table).p_value < 0.001
    assert pairwise_wilcoxon(table).p_values[0, 1] == 2 / 2**12
    found = compare_over_seeds([0.2 + size, 0.3 + size, 0.4 + size], [0.2, 0.3, 0.4])
    assert found.flip_p_value == 0.25 and found.improvement == 6 / 9
    assert bootstrap_p_value(np.full(999, size)) == 2 / 1000
    cells = ranked([Cell(0.2), Cell(0.2 + size), Cell(0.1)], Column("AUC"))
    assert [(cell.best, cell.second) for cell in cells] == [(False, True), (True, False), (False, False)]


def test_seeds_in_another_order_are_the_same_to_the_last_bit():
    first, second = [0.1, 0.7, 0.3, 0.2000001], [0.15, 0.5, 0.35, 0.1]
    expected = compare_over_seeds(first, second)
    for order in permutations(range(4)):
        assert compare_over_seeds([first[i] for i in order], [second[i] for i in order]) == expected
        assert mean_over_seeds([first[i] for i in order]) == mean_over_seeds(first)


def test_equal_runs_are_equal_over_seeds():
    ours = np.array([0.1 + 0.2, 0.4, 0.5])
    found = compare_over_seeds(ours, noisy(ours))
    assert (found.t_p_value, found.flip_p_value, found.improvement) == (1.0, 1.0, 0.5)
    assert found.standard_deviation == 0 and np.isnan(found.effect_size)
    # The same difference in every seed, but for rounding: no spread to judge it by, and no d_z of 1e15.
    shifted = compare_over_seeds(np.array([0.3, 0.5, 0.7]), np.array([0.2, 0.4, 0.6]))
    assert shifted.standard_deviation == 0 and np.isnan([shifted.effect_size, shifted.t_p_value]).all()
    assert np.isnan(mean_over_seeds([UP, DOWN, 0.2]).low), "runs that do not vary"
    assert sign_flip(np.array([4e-17, 5e-17, 6e-17]))[0] == 1.0
    assert wilcoxon(np.array([0.1, -0.1 - 2e-17, 0.1 + 3e-17, -0.1])) == 1.0


def test_resamples_equal_but_for_rounding_are_ties():
    rounding = np.where(np.arange(999) % 3, 3e-17, -3e-17)
    assert bootstrap_p_value(rounding) == 1.0
    assert bootstrap_p_value(np.append(rounding, np.full(5, 0.1))) == 1.0
    groups = np.arange(40) < 20
    leave_one_out = np.full(40, 0.2)
    resamples = np.append(np.full(500, 0.2), np.linspace(0.1, 0.3, 499))
    expected = bca_interval(0.2, resamples, leave_one_out, groups)
    assert bca_interval(UP, resamples, leave_one_out, groups) == expected


def test_equal_means_share_the_mark():
    cells = ranked([Cell(UP), Cell(0.1), Cell(DOWN), Cell(0.05), Cell(0.1 + 1e-17), Cell(text="–")], Column("AUC"))
    assert [cell.best for cell in cells] == [True, False, True, False, False, False]
    assert [cell.second for cell in cells] == [False, True, False, False, True, False]
    assert cells[0].value == UP, "what is shown and written keeps every bit"
