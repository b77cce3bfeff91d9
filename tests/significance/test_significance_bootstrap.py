"""The bootstraps against the evaluator on resampled images, scipy's intervals, and their invariants."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_problems import Problem, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.evaluation.metrics import evaluate
from benchmarks.significance import (
    STATISTICS,
    Resampled,
    Reweighting,
    ScoredRun,
    Units,
    average,
    bootstrap,
    difference,
    draws,
    estimate,
    over_seeds,
)
from benchmarks.significance.closed_form import auc_estimate
from benchmarks.significance.intervals import bca_interval, bootstrap_p_value, percentile_interval
from benchmarks.significance.simulation import Population
from datasets.streams import stream

EXACT = {"rel": 1e-12, "abs": 1e-12}
repeatable = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
FOUR_IMAGES = Units("images", np.arange(4), np.arange(4) < 2)


def as_run(problem: Problem, bias: float = 0.3) -> ScoredRun:
    return ScoredRun(problem.scores, problem.labels, bias)


def evaluated(run: ScoredRun, images: np.ndarray) -> list[float]:
    """The evaluator's numbers on a data set made of these images, which may repeat."""
    metrics = evaluate(run.scores.subset(images), run.labels.subset(images), bias=run.bias)
    return [attrgetter(name)(metrics) for name in STATISTICS]


def both_units(run: ScoredRun) -> tuple[Units, Units]:
    return Units.images(run.scores), Units.pairs(run.scores, run.labels)


# Reweighting equals evaluation of the resampled images


@pytest.mark.parametrize("block", range(5))
def test_every_resampled_statistic_equals_the_evaluator_on_the_resampled_images(block: int) -> None:
    for seed in range(30 * block, 30 * block + 30):  # with ties, masked pairs, absent pairs and empty groups by turns
        run = as_run(random_problem(seed))
        for units in both_units(run):
            reweighted = Reweighting(run, STATISTICS, units)
            (weights,) = draws(units.is_seen, 5, seed)
            ours = reweighted.weighted(weights)
            for column, values in zip(weights.T, ours.T, strict=True):
                images = np.repeat(np.arange(len(run)), column[units.of_image].astype(int))
                assert values == pytest.approx(evaluated(run, images), **EXACT, nan_ok=True), (seed, units.name)


def test_larger_problems_with_and_without_ties_between_the_groups() -> None:
    for number, decimals in enumerate((8, 2)):
        ((run,),) = Population((500, 700), (20, 30)).sample(stream("test", number), 1)
        coarse = run.scores.to_arrays() | {"best_seen": np.round(run.scores.best_seen, decimals)}
        run = ScoredRun(type(run.scores).from_arrays(coarse), run.labels, 0.1)
        (found,) = bootstrap([run], STATISTICS, Units.images(run.scores), resamples=15, seed=number, block=4)
        weights = np.concatenate(list(draws(run.scores.is_seen, 15, number, "images")), axis=1)
        for column, values in zip(weights.T, found.resamples.T, strict=True):
            images = np.repeat(np.arange(len(run)), column.astype(int))
            assert values == pytest.approx(evaluated(run, images), **EXACT)


@repeatable
@given(seeds)
def test_weights_of_one_are_the_evaluation(seed: int) -> None:
    run = as_run(random_problem(seed))
    for units in both_units(run):
        ours = Reweighting(run, STATISTICS, units).estimate()
        assert ours == pytest.approx(evaluated(run, np.arange(len(run))), **EXACT, nan_ok=True)


@repeatable
@given(seeds)
def test_leaving_out_a_unit_is_evaluation_without_its_images(seed: int) -> None:
    run = as_run(random_problem(seed))
    for units in both_units(run):
        ours = Reweighting(run, STATISTICS, units).leave_one_out(block=7)
        for unit, values in enumerate(ours.T):
            wanted = evaluated(run, np.flatnonzero(units.of_image != unit))
            assert values == pytest.approx(wanted, **EXACT, nan_ok=True)


@repeatable
@given(seeds)
def test_order_of_images_does_not_matter(seed: int) -> None:
    run, rng = as_run(random_problem(seed)), np.random.default_rng(seed)
    order = rng.permutation(len(run))
    shuffled = ScoredRun(run.scores.subset(order), run.labels.subset(order), run.bias)
    weights = rng.integers(0, 3, (len(run), 4)).astype(float)
    plain = Reweighting(run, STATISTICS, Units.images(run.scores)).weighted(weights)
    other = Reweighting(shuffled, STATISTICS, Units.images(shuffled.scores)).weighted(weights[order])
    np.testing.assert_allclose(other, plain, rtol=1e-12, atol=1e-12)


def test_a_run_without_a_validation_bias_has_no_statistics_at_it() -> None:
    ((run,),) = Population((20, 30), (4, 5)).sample(stream("test"), 1)
    run = ScoredRun(run.scores, run.labels)
    values = dict(zip(STATISTICS, Reweighting(run, STATISTICS, Units.images(run.scores)).estimate(), strict=True))
    assert all(np.isnan(value) == name.startswith("at_bias") for name, value in values.items())


@pytest.mark.parametrize("few", [("auc",), ("at_zero.hm", "at_bias.unseen_object"), ("gate", "at_bias.pair")])
def test_statistics_do_not_depend_on_which_others_are_asked_for(few: tuple[str, ...]) -> None:
    run = as_run(random_problem(10))
    units = Units.images(run.scores)
    every = dict(zip(STATISTICS, Reweighting(run, STATISTICS, units).leave_one_out(), strict=True))
    for name, values in zip(few, Reweighting(run, few, units).leave_one_out(), strict=True):
        np.testing.assert_array_equal(values, every[name])


def test_unknown_statistics_and_none_are_refused() -> None:
    run = as_run(random_problem(3))
    with pytest.raises(ValueError, match=r"no statistic 'acu'\. Did you mean 'auc'"):
        Reweighting(run, ["acu"], Units.images(run.scores))
    with pytest.raises(ValueError, match="no statistic was asked for"):
        Reweighting(run, [], Units.images(run.scores))


# Draws


def test_a_draw_keeps_the_numbers_of_seen_and_unseen_units() -> None:
    is_seen = np.arange(30) % 3 == 0
    blocks = list(draws(is_seen, 100, "test", block=16))
    assert [block.shape[1] for block in blocks] == [16] * 6 + [4]
    weights = np.concatenate(blocks, axis=1)
    assert (weights[is_seen].sum(axis=0) == 10).all() and (weights[~is_seen].sum(axis=0) == 20).all()
    assert weights.mean() == 1.0 and 0.9 < weights.var() < 1.1  # nearly Poisson
    one_group = np.concatenate(list(draws(np.ones(4, dtype=bool), 3, "test")), axis=1)
    assert (one_group.sum(axis=0) == 4).all()


def test_resamples_depend_on_seed_and_units_alone() -> None:
    first, second, third = (runs[0] for runs in Population((70, 90), (7, 9)).sample(stream("test"), 3))
    units = Units.images(first.scores)
    arguments = {"resamples": 50, "seed": 3}
    alone = bootstrap([second], ("auc", "best_hm"), units, **arguments)[0]
    among = bootstrap([first, second, third], ("auc", "best_hm"), units, **arguments, block=9)[1]
    np.testing.assert_array_equal(alone.resamples, among.resamples)
    np.testing.assert_array_equal(alone.leave_one_out, among.leave_one_out)
    single = bootstrap([second], ("best_hm",), units, **arguments)[0]
    np.testing.assert_array_equal(single.resamples[0], alone.resamples[1])
    other = bootstrap([second], ("auc", "best_hm"), units, resamples=50, seed=4)[0]
    assert (other.resamples != alone.resamples).mean() > 0.9


def test_pairs_are_drawn_with_all_their_images() -> None:
    ((run,),) = Population((40, 60), (4, 5)).sample(stream("test"), 1)
    units = Units.pairs(run.scores, run.labels)
    assert units.sizes.tolist() == [[10.0] * 4 + [0.0] * 5, [0.0] * 4 + [12.0] * 5]
    assert (units.of_image == run.labels.states).all() and units.is_seen.tolist() == [True] * 4 + [False] * 5
    spread = [bootstrap([run], ("auc",), unit, resamples=400)[0].resamples.std() for unit in both_units(run)]
    assert 0.3 < spread[1] / spread[0] < 2


# Intervals and p-values


def test_intervals_equal_scipys_of_two_samples() -> None:
    ((run,),) = Population((40, 60), (4, 5)).sample(stream("test"), 1)
    correct, is_seen = run.scores.correct, run.scores.is_seen
    (found,) = bootstrap([run], ("best_seen", "best_unseen"), Units.images(run.scores), resamples=999)
    # S^2 (1 + U) is curved, so that its bias and acceleration are not 0.
    curved = [values[0] ** 2 * (1 + values[1]) for values in (found.estimate, found.resamples, found.leave_one_out)]
    for level in (0.9, 0.95):
        for method, ours in (
            ("BCa", bca_interval(curved[0], curved[1], curved[2], is_seen, level)),
            ("percentile", percentile_interval(curved[1], level)),
        ):
            theirs = stats.bootstrap(
                (correct[is_seen], correct[~is_seen]),
                lambda seen, unseen, axis: seen.mean(axis=axis) ** 2 * (1 + unseen.mean(axis=axis)),
                n_resamples=0,
                bootstrap_result=SimpleNamespace(bootstrap_distribution=curved[1]),
                method=method,
                confidence_level=level,
            ).confidence_interval
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-10)
            assert (ours.level, ours.method) == (level, method)


def test_bca_undoes_the_bias_of_a_maximum() -> None:
    ((run,),) = Population((100, 100), (5, 5)).sample(stream("test", 1), 1)
    (found,) = bootstrap([run], ("best_hm",), Units.images(run.scores), resamples=1000)
    one = estimate(found)["best_hm"]
    assert (
        found.resamples.mean() > one.value and one.bca.low < one.percentile.low and one.bca.high < one.percentile.high
    )


def test_degenerate_bca_intervals() -> None:
    is_seen, constant = np.arange(6) < 3, np.ones(6)
    assert bca_interval(1.0, np.ones(50), constant, is_seen).low == 1.0
    beyond = bca_interval(0.0, np.linspace(1, 2, 50), constant, is_seen)  # below every resample
    assert 1 <= beyond.low <= beyond.high < 1.01
    skewed = np.append(np.zeros(5), 1.0)  # accelerates beyond the last quantile, in one direction or the other
    wild = [bca_interval(1.5, np.linspace(1, 2, 50), sign * skewed, is_seen, freedom=1.0) for sign in (1, -1)]
    assert (wild[0].low, wild[1].high) == (1.0, 2.0)
    lonely = np.array([np.nan, 1.0, 2.0, 4.0])  # a group of one unit leaves nothing behind
    assert np.isfinite(bca_interval(2.0, np.linspace(1, 3, 50), lonely, np.arange(4) < 1).low)
    assert np.isnan(bca_interval(np.nan, np.zeros(0), constant, is_seen).low)
    assert np.isnan(percentile_interval(np.zeros(0)).high) and np.isnan(bootstrap_p_value(np.zeros(0)))


def test_p_value_is_twice_the_smaller_share_with_one_added() -> None:
    assert bootstrap_p_value(np.array([1.0] * 97 + [-1.0, 0.0])) == 2 * (2 + 1) / 100
    assert bootstrap_p_value(np.ones(99)) == 2 / 100
    assert bootstrap_p_value(np.zeros(99)) == 1.0
    # With few degrees of freedom the same distance counts for less; nothing at 0 stays 1.
    assert bootstrap_p_value(np.ones(9999), 2) == pytest.approx(2 * stats.t.sf(stats.norm.isf(1e-4), 2))
    assert bootstrap_p_value(np.zeros(99), 2) == 1.0


@repeatable
@given(seeds, st.floats(-0.05, 0.05), st.sampled_from([np.inf, 40.0, 4.0]))
def test_interval_and_p_value_agree(seed: int, shift: float, freedom: float) -> None:
    values = np.random.default_rng(seed).normal(shift, 0.01, 9999)
    p_value, interval = bootstrap_p_value(values, freedom), percentile_interval(values, 0.95, freedom)
    if p_value <= 0.045:
        assert not interval.low <= 0 <= interval.high
    if p_value >= 0.055:
        assert interval.low <= 0 <= interval.high
    mirrored = percentile_interval(-values, 0.95, freedom)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), **EXACT)
    assert bootstrap_p_value(-values, freedom) == p_value


def test_undefined_resamples_are_counted_and_passed_over() -> None:
    values = np.append(np.linspace(1, 2, 98), [np.nan, np.nan])
    found = Resampled(("gate",), np.array([1.5]), values[None], np.ones((1, 4)), FOUR_IMAGES)
    one = estimate(found)["gate"]
    assert (one.undefined, one.percentile.low > 1, one.p_value) == (2, True, None)
    nothing = difference(Resampled(("gate",), np.array([np.nan]), values[None], np.ones((1, 4)), FOUR_IMAGES))["gate"]
    assert np.isnan([nothing.value, nothing.percentile.low, nothing.p_value, nothing.standard_error]).all()
    assert nothing.bca is None


def test_bootstrap_and_closed_form_find_one_standard_error() -> None:
    ((run,),) = Population((300, 400), (30, 40)).sample(stream("test", 2), 1)
    (found,) = bootstrap([run], ("auc", "best_seen"), Units.images(run.scores), resamples=4000)
    by_name = estimate(found)
    assert by_name["auc"].standard_error == pytest.approx(auc_estimate([run]).standard_error, rel=0.05)
    share = by_name["best_seen"].value
    assert by_name["best_seen"].standard_error == pytest.approx(np.sqrt(share * (1 - share) / 300), rel=0.05)


@repeatable
@given(seeds)
def test_differences_are_antisymmetric_and_nothing_between_equals(seed: int) -> None:
    first, second = as_run(random_problem(seed)), as_run(random_problem(seed), bias=-0.4)
    parts = bootstrap([first, second, first], STATISTICS, Units.images(first.scores), resamples=30, seed=seed)
    there, back, none = (
        difference(a - b) for a, b in ((parts[0], parts[1]), (parts[1], parts[0]), (parts[0], parts[2]))
    )
    for name in STATISTICS:
        ours, theirs, equal = there[name], back[name], none[name]
        assert ours.value == pytest.approx(-theirs.value, nan_ok=True)
        assert ours.p_value == pytest.approx(theirs.p_value, nan_ok=True)
        mirrored = (-theirs.percentile.high, -theirs.percentile.low)
        assert (ours.percentile.low, ours.percentile.high) == pytest.approx(mirrored, **EXACT, nan_ok=True)
        if not np.isnan(equal.value):
            assert (equal.value, equal.p_value, equal.percentile.low, equal.percentile.high) == (0, 1, 0, 0)


# Means over seeds, and seeds as a second level


def test_the_mean_of_runs_is_resampled_as_one_statistic() -> None:
    (runs,) = Population((60, 80), (6, 8)).sample(stream("test"), 1, seeds=3)
    parts = bootstrap(runs, ("auc", "best_hm"), Units.images(runs[0].scores), resamples=40)
    mean = average(parts)
    np.testing.assert_allclose(mean.resamples, sum(part.resamples for part in parts) / 3)
    np.testing.assert_allclose(mean.leave_one_out, sum(part.leave_one_out for part in parts) / 3)
    assert estimate(mean)["auc"].bca.method == "BCa"


def test_two_levels_equal_a_slow_draw_of_seeds_then_images() -> None:
    (runs,) = Population((60, 80), (6, 8)).sample(stream("test"), 1, seeds=3)
    parts = bootstrap(runs, ("auc",), Units.images(runs[0].scores), resamples=200)
    found = over_seeds(parts, [0, 1, 2], seed=5)
    picks = stream("significance", 5, "training seeds", 0, 1, 2).integers(0, 3, (200, 3))
    slow = [np.mean([parts[run].resamples[0, number] for run in row]) for number, row in enumerate(picks)]
    assert found.resamples[0] == pytest.approx(slow, **EXACT)
    assert found.estimate[0] == pytest.approx(np.mean([part.estimate[0] for part in parts]), **EXACT)
    assert estimate(found)["auc"].bca is None
    assert estimate(found)["auc"].percentile.method == "expanded percentile"
    assert (over_seeds(parts, [0, 1, 2], seed=6).resamples != found.resamples).any()
    assert (over_seeds(parts, [0, 1, 3], seed=5).resamples != found.resamples).any()


def constant(values: list[float], resamples: int = 4000) -> list[Resampled]:
    left_out = np.zeros((1, 4))
    return [Resampled(("auc",), np.array([v]), np.full((1, resamples), v), left_out, FOUR_IMAGES) for v in values]


def test_degrees_of_freedom_lie_between_those_of_seeds_and_infinity() -> None:
    seeds_alone = over_seeds(constant([0.1, 0.2, 0.35, 0.3]), [0, 1, 2, 3])
    assert seeds_alone.degrees_of_freedom(0) == pytest.approx(3, rel=0.1)
    noise = np.random.default_rng(0).normal(0, 1.0, (1, 4000))
    noisy = [replace(part, resamples=part.resamples + noise) for part in constant([0.1, 0.2, 0.35, 0.3])]
    assert over_seeds(noisy, [0, 1, 2, 3]).degrees_of_freedom(0) > 1000
    assert over_seeds(constant([0.2, 0.2]), [0, 1]).degrees_of_freedom(0) == np.inf
    # Unpaired seeds of two methods add up, as in Welch's test.
    both = seeds_alone - over_seeds(constant([0.1, 0.3, 0.2]), [4, 5, 6])
    assert 3 < both.degrees_of_freedom(0) < 6


def test_degrees_of_freedom_of_few_pairs() -> None:
    ((run,),) = Population((400, 300), (8, 10), by_pair=0.4).sample(stream("test"), 1)
    images, pairs = (bootstrap([run], ("best_seen", "auc"), unit, resamples=2000)[0] for unit in both_units(run))
    # S is a mean over the seen pairs, which have equally many images: exactly 7 degrees of freedom.
    assert pairs.degrees_of_freedom(0) == pytest.approx(7, rel=0.1) and 7 < pairs.degrees_of_freedom(1) < 17
    assert images.degrees_of_freedom(0) == np.inf
    found = estimate(pairs)["best_seen"]
    assert found.percentile.method == "expanded percentile"
    assert (
        found.bca.high
        > bca_interval(pairs.estimate[0], pairs.resamples[0], pairs.leave_one_out[0], pairs.units.is_seen).high
    )
    means = run.scores.correct[:400].reshape(-1, 8).mean(axis=0)  # image i is of pair i mod 8
    assert found.standard_error == pytest.approx(means.std() / np.sqrt(8), rel=0.05)


def test_one_run_is_resampled_by_its_images_alone() -> None:
    ((run,),) = Population((60, 80), (6, 8)).sample(stream("test"), 1)
    (part,) = bootstrap([run], ("auc",), Units.images(run.scores), resamples=40)
    np.testing.assert_array_equal(over_seeds([part], [0]).resamples, part.resamples)


def test_a_run_that_is_not_drawn_does_not_spread_its_undefined_values() -> None:
    parts = constant([0.1, 0.2], resamples=50)
    (undefined,) = constant([np.nan], resamples=50)
    found = over_seeds([*parts, undefined], [0, 1, 2])
    assert 0 < np.isnan(found.resamples).sum() < 50
