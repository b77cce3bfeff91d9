"""Closed form, McNemar, tests over seeds, ranks and Holm against scipy, statsmodels and slow brute force."""

from __future__ import annotations

import dataclasses
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from evaluation_problems import naive_biased, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from benchmarks.significance import (
    ScoredRun,
    auc_difference,
    auc_estimate,
    compare_over_seeds,
    friedman,
    holm,
    mcnemar,
    mcnemar_by_group,
    mean_over_seeds,
    nemenyi,
    pairwise_wilcoxon,
    predictions,
    right_at_own_bias,
    sign_flip,
    wilcoxon,
)
from benchmarks.significance.simulation import Population
from datasets.streams import stream

EXACT = {"rel": 1e-12, "abs": 1e-12}
repeatable = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


# Holm


@settings(repeatable, max_examples=20)
@given(st.lists(st.sampled_from(np.linspace(0, 1, 41).tolist()), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert holm(np.array(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1], **EXACT)


def test_holm_by_hand_and_what_was_not_tested_does_not_count() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([[0.01, np.nan], [0.04, 0.03]])).ravel() == pytest.approx(
        [0.03, np.nan, 0.06, 0.06], nan_ok=True
    )
    assert holm(np.zeros(0)).shape == (0,)


# The closed form


def test_closed_form_of_a_difference_equals_the_sums_over_all_couples() -> None:
    for seed in range(40):
        scores = random_problem(seed).scores
        shifted = random_problem(seed).scores.to_arrays() | {"best_unseen": scores.best_unseen - 0.4}
        runs = [ScoredRun(s, random_problem(seed).labels) for s in (scores, type(scores).from_arrays(shifted))]
        unseen, seen = np.flatnonzero(~scores.is_seen), np.flatnonzero(scores.is_seen)
        if min(len(unseen), len(seen)) < 2:
            continue
        kernels = []
        for run in runs:
            t, c = run.scores.margins, run.scores.correct
            order = (t[unseen, None] < t[None, seen]) + 0.5 * (t[unseen, None] == t[None, seen])
            kernels.append(c[unseen, None] * c[None, seen] * order)
        kernel = kernels[0] - kernels[1]
        variance = kernel.mean(axis=1).var(ddof=1) / len(unseen) + kernel.mean(axis=0).var(ddof=1) / len(seen)
        found = auc_difference(runs[:1], runs[1:])
        assert (found.value, found.standard_error) == pytest.approx((kernel.mean(), np.sqrt(variance)), **EXACT)
        if variance > 0:
            assert found.p_value == pytest.approx(2 * stats.norm.cdf(-abs(kernel.mean()) / np.sqrt(variance)))
            assert found.interval.high - found.value == pytest.approx(1.959963985 * np.sqrt(variance))
        mean = auc_estimate(runs)
        assert mean.value == pytest.approx(np.mean([kernel.mean() for kernel in kernels]), **EXACT)
        assert mean.p_value is None


@repeatable
@given(seeds)
def test_closed_form_is_antisymmetric_and_nothing_between_equals(seed: int) -> None:
    first, second = (runs[0] for runs in Population((20, 30), (4, 5)).sample(np.random.default_rng(seed), 2))
    there, back = auc_difference([first], [second]), auc_difference([second], [first])
    assert (there.value, there.p_value) == (-back.value, back.p_value)
    equal = auc_difference([first], [first])
    assert (equal.value, equal.standard_error, equal.p_value) == (0, 0, 1)


def test_closed_form_is_undefined_where_there_is_nothing_to_judge_by() -> None:
    ((run,),) = Population((3, 3), (2, 2)).sample(stream("test"), 1)
    one = ScoredRun(run.scores.subset([0, 3]), run.labels.subset([0, 3]))
    assert np.isnan(auc_estimate([one]).standard_error) and not np.isnan(auc_estimate([one]).value)
    seen = ScoredRun(run.scores.subset([0, 1]), run.labels.subset([0, 1]))
    assert np.isnan(auc_difference([seen], [seen]).value) and np.isnan(auc_difference([seen], [seen]).p_value)
    right = run.scores.to_arrays() | {"correct": np.ones(6), "best_seen": np.arange(6)[::-1]}
    wrong = right | {"correct": np.zeros(6)}
    always, never = (ScoredRun(type(run.scores).from_arrays(arrays), run.labels) for arrays in (right, wrong))
    sure = auc_difference([always], [never])
    assert (sure.value, sure.standard_error) == (1, 0) and np.isnan(sure.p_value)


# McNemar


@repeatable
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_mcnemar_equals_statsmodels_and_the_binomial_sum(first_only: int, second_only: int, both: int) -> None:
    first = np.repeat([True, False, True], [first_only, second_only, both])
    second = np.repeat([False, True, True], [first_only, second_only, both])
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only, found.images) == (first_only, second_only, len(first))
    table = [[both, first_only], [second_only, 0]]
    if first_only + second_only:
        assert found.p_value == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
        n, k = first_only + second_only, min(first_only, second_only)
        assert found.p_value == pytest.approx(min(1, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n))
        assert found.discordant == (first_only + second_only) / len(first)
        assert found.accuracy_difference == (first_only - second_only) / len(first)
    else:
        assert found.p_value == 1.0
    assert mcnemar(second, first).p_value == found.p_value


def test_mcnemar_of_no_images() -> None:
    nothing = mcnemar(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    assert (nothing.images, nothing.p_value) == (0, 1.0) and np.isnan(
        [nothing.discordant, nothing.accuracy_difference]
    ).all()


@pytest.mark.parametrize("bias", [0.0, 0.37, -1.2])
def test_predictions_equal_a_naive_argmax(bias: float) -> None:
    for seed in (seed for seed in range(90) if seed % 3):  # without ties
        problem = random_problem(seed)
        biased = naive_biased(problem, bias)
        wanted = np.where(biased.max(axis=1) > -np.inf, biased.argmax(axis=1), -1)
        assert (predictions(problem.scores, bias) == wanted).all()
        right = right_at_own_bias(ScoredRun(problem.scores, problem.labels, bias))
        assert (right == ((wanted == problem.true_columns) & (wanted >= 0))).all()


@pytest.mark.parametrize(
    ("best_seen", "best_unseen", "bias", "column"),
    [
        (1.0, 0.5, 0.5, 3),  # a tie between the groups
        (1.0, 0.5, 0.75, 7),
        (1.0, 0.5, np.nan, 3),
        (1.0, -np.inf, np.inf, 3),
        (-np.inf, 0.5, 0.0, 7),
        (-np.inf, 0.5, -np.inf, 7),
        (-np.inf, 0.5, np.nan, 7),
        (-np.inf, -np.inf, 0.0, -1),
        (-np.inf, -np.inf, np.inf, -1),
    ],
)
def test_predictions_of_ties_and_empty_groups(best_seen, best_unseen, bias, column) -> None:
    winners = {"seen_winner": 3 if best_seen > -np.inf else -1, "unseen_winner": 7 if best_unseen > -np.inf else -1}
    best = {"best_seen": np.float32([best_seen]), "best_unseen": np.float32([best_unseen])}
    one = random_problem(1).scores.subset(np.array([0]))
    scores = dataclasses.replace(one, **best, **{name: np.array([winner]) for name, winner in winners.items()})
    assert predictions(scores, bias).tolist() == [column]


def test_mcnemar_takes_each_model_at_its_own_bias_and_the_groups_apart() -> None:
    first, second = (runs[0] for runs in Population((40, 50), (4, 5)).sample(stream("test"), 2))
    second = ScoredRun(second.scores, second.labels, 0.8)
    found = mcnemar_by_group(first, second)
    one, other = right_at_own_bias(first), right_at_own_bias(second)
    assert found["all"] == mcnemar(one, other)
    assert found["seen"] == mcnemar(one[:40], other[:40]) and found["unseen"] == mcnemar(one[40:], other[40:])
    assert found["seen"].first_only + found["unseen"].first_only == found["all"].first_only
    with pytest.raises(ValueError, match="no bias"):
        right_at_own_bias(ScoredRun(first.scores, first.labels))


# Seeds


@repeatable
@given(seeds, st.integers(2, 9))
def test_paired_seeds_equal_scipy(seed: int, runs: int) -> None:
    first, second = np.random.default_rng(seed).normal(size=(2, runs))
    found = compare_over_seeds(first, second)
    theirs = stats.ttest_rel(first, second)
    limits = theirs.confidence_interval(0.95)
    assert found.t_p_value == pytest.approx(theirs.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((limits.low, limits.high))
    assert found.effect_size == pytest.approx(theirs.statistic / np.sqrt(runs))
    permuted = stats.permutation_test((first, second), lambda a, b: (a - b).mean(), permutation_type="samples")
    assert found.flip_p_value == pytest.approx(permuted.pvalue)
    assert (found.outcomes, found.smallest_p) == (2**runs, 2 / 2**runs)
    assert found.improvement == np.mean([a > b for a, b in product(first, second)])
    back = compare_over_seeds(second, first)
    assert (back.mean_difference, back.t_p_value, back.flip_p_value) == pytest.approx(
        (-found.mean_difference, found.t_p_value, found.flip_p_value)
    )
    assert back.improvement == pytest.approx(1 - found.improvement)


def test_five_seeds_cannot_reach_five_percent_by_permutation() -> None:
    found = compare_over_seeds([2, 3, 4, 5, 6], [1, 1, 1, 1, 1])
    assert (found.flip_p_value, found.smallest_p, found.improvement) == (0.0625, 0.0625, 1.0)


def test_seeds_that_do_not_vary() -> None:
    equal = compare_over_seeds([0.1, 0.2, 0.4], [0.1, 0.2, 0.4])
    assert (equal.mean_difference, equal.t_p_value, equal.flip_p_value, equal.interval.low) == (0, 1, 1, 0)
    assert np.isnan(equal.effect_size) and equal.improvement == 0.5
    steady = compare_over_seeds([0.3] * 3, [0.1] * 3)
    assert np.isnan([steady.t_p_value, steady.effect_size, steady.interval.low]).all()
    assert (steady.standard_deviation, steady.flip_p_value, steady.smallest_p) == (0, 0.25, 0.25)
    single = compare_over_seeds([0.3], [0.1])
    assert np.isnan([single.t_p_value, single.flip_p_value, single.standard_deviation, single.interval.low]).all()
    assert (single.runs, single.improvement, single.smallest_p) == (1, 1.0, 1.0)
    undefined = compare_over_seeds([0.3, np.nan], [0.1, 0.2])
    assert np.isnan([undefined.mean_difference, undefined.flip_p_value, undefined.t_p_value]).all()
    assert np.isnan([undefined.improvement, undefined.standard_deviation, undefined.interval.low]).all()
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_over_seeds([1, 2], [1])


def test_mean_over_seeds_equals_scipy() -> None:
    values = [0.31, 0.35, 0.3, 0.36]
    limits = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = mean_over_seeds(values, 0.9)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
    assert np.isnan(mean_over_seeds([0.3]).low)


def test_many_sign_flips_are_drawn_and_come_near_the_exact_value() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 17)
    p_value, outcomes, smallest = sign_flip(differences)
    exact = np.array(list(product((1, -1), repeat=16))) @ differences[1:]  # the first sign fixed by symmetry
    sums = np.abs(np.stack([exact + differences[0], exact - differences[0]]))
    assert p_value == pytest.approx((sums >= abs(differences.sum())).mean(), abs=0.006)
    assert (outcomes, smallest) == (2**16, 1 / (2**16 + 1))
    assert sign_flip(differences) == (p_value, outcomes, smallest)


# Ranks


def demsar() -> np.ndarray:
    """AUC of four variants of C4.5 on 14 data sets (Demsar 2006, table 6)."""
    columns = (
        "763 599 954 628 882 936 661 583 775 1000 940 619 972 957",
        "768 591 971 661 888 931 668 583 838 1000 962 666 981 978",
        "771 590 968 654 886 916 609 563 866 1000 965 614 975.1 946",
        "798 569 967 657 898 931 685 625 875 1000 962 669 975 970",
    )
    return np.array([[float(value) / 1000 for value in column.split()] for column in columns]).T


def test_the_worked_example_of_demsar() -> None:
    found = friedman(demsar())
    assert found.average_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    uncorrected = 12 * 14 / (4 * 5) * ((found.average_ranks**2).sum() - 4 * 25 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.005) and found.chi2 > uncorrected
    assert nemenyi(demsar()).critical_difference == pytest.approx(1.25, abs=0.005)
    assert (found.datasets, found.methods, found.descriptive, found.note) == (14, 4, False, "")


@repeatable
@given(seeds, st.integers(2, 12), st.integers(3, 7), st.booleans())
def test_friedman_equals_scipy_and_the_formula_of_the_protocol(seed: int, n: int, k: int, ties: bool) -> None:
    values = np.random.default_rng(seed).random((n, k))
    values = np.round(values, 1) if ties else values
    found = friedman(values)
    chi2 = found.chi2
    assert chi2 == pytest.approx(stats.friedmanchisquare(*values.T).statistic)
    if not ties:
        assert chi2 == pytest.approx(12 * n / (k * (k + 1)) * ((found.average_ranks**2).sum() - k * (k + 1) ** 2 / 4))
    if np.isfinite(found.f_statistic):
        assert found.f_statistic == pytest.approx((n - 1) * chi2 / (n * (k - 1) - chi2))
        assert found.p_value == pytest.approx(stats.f.sf(found.f_statistic, k - 1, (k - 1) * (n - 1)))
    # Iman and Davenport's F is that of an analysis of variance of the ranks in blocks.
    ranks = stats.rankdata(-values, axis=1)
    between = n * ((ranks.mean(axis=0) - ranks.mean()) ** 2).sum() / (k - 1)
    within = ((ranks - ranks.mean(axis=0)) ** 2).sum() / ((k - 1) * (n - 1))
    if within > 1e-9:
        assert found.f_statistic == pytest.approx(between / within)
    assert found.descriptive == (n < 5) == found.note.startswith("Descriptive")


def test_perfect_agreement_has_the_exact_probability() -> None:
    found = friedman(np.array([[3.0, 2, 1], [30, 20, 10], [0.3, 0.2, 0.1]]))
    assert (found.f_statistic, found.p_value) == (np.inf, pytest.approx((1 / 6) ** 2))
    assert found.average_ranks.tolist() == [1, 2, 3]
    tied = friedman(np.array([[3.0, 1, 1], [30, 10, 10]]))
    assert (tied.chi2, tied.p_value) == (pytest.approx(4), pytest.approx(1 / 3))
    level = friedman(np.ones((4, 3)))
    assert (level.chi2, level.f_statistic, level.p_value) == (0, 0, 1)


def test_nemenyi_has_the_published_quantiles() -> None:
    published = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)  # Demsar 2006, table 5a
    for methods, quantile in zip(range(2, 11), published, strict=True):
        found = nemenyi(np.random.default_rng(methods).random((6, methods)))
        assert found.q == pytest.approx(quantile, abs=1e-3)
        assert found.critical_difference == pytest.approx(found.q * np.sqrt(methods * (methods + 1) / 36))


def test_nemenyi_p_values_agree_with_the_critical_difference() -> None:
    values = np.random.default_rng(1).random((12, 6)) + np.array([0, 0.2, 0.5, 0.9, 0, 0.1])
    found = nemenyi(values)
    gaps = np.abs(found.average_ranks[:, None] - found.average_ranks)
    wanted = stats.studentized_range.sf(gaps / np.sqrt(6 * 7 / (6 * 12)) * np.sqrt(2), 6, np.inf)
    assert found.p_values == pytest.approx(np.where(np.eye(6) > 0, 1, wanted))
    apart = gaps >= found.critical_difference
    assert (apart == (found.p_values <= 0.05)).all() and apart.any()
    for one, other in combinations(range(6), 2):
        assert apart[one, other] != any({one, other} <= set(group) for group in found.groups)
    assert not any(set(a) < set(b) for a in found.groups for b in found.groups)


@repeatable
@given(seeds, st.integers(2, 10), st.booleans())
def test_wilcoxon_equals_scipy(seed: int, datasets: int, ties: bool) -> None:
    differences = np.random.default_rng(seed).normal(0.5, 1, datasets)
    if not ties:
        assert wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
        return
    differences = np.round(differences)
    kept = differences[differences != 0]
    if len(kept) == 0:
        assert wilcoxon(differences) == 1.0
        return
    ranks = stats.rankdata(np.abs(kept))
    observed = abs((np.sign(kept) * ranks).sum())
    sums = np.array([abs((np.array(signs) * ranks).sum()) for signs in product((1, -1), repeat=len(kept))])
    assert wilcoxon(differences) == np.mean(sums >= observed)


def test_wilcoxon_overlooks_the_last_bit() -> None:
    assert wilcoxon(np.array([0.3 - 0.1 - 0.2, 1.0])) == 1.0
    assert wilcoxon(np.array([0.3 - 0.1, 0.2, -0.2])) == wilcoxon(np.array([1.0, 1.0, -1.0]))


def test_pairwise_wilcoxon_adjusts_over_all_pairs() -> None:
    values = np.random.default_rng(3).random((9, 4)) + np.array([0, 0.1, 0.6, 0.9])
    found = pairwise_wilcoxon(values)
    pairs = list(combinations(range(4), 2))
    wanted = [stats.wilcoxon(values[:, a], values[:, b], method="exact").pvalue for a, b in pairs]
    assert [found.p_values[pair] for pair in pairs] == pytest.approx(wanted)
    assert [found.adjusted[pair] for pair in pairs] == pytest.approx(multipletests(wanted, method="holm")[1])
    assert (found.p_values == found.p_values.T).all() and (found.adjusted == found.adjusted.T).all()
    assert (found.smallest_p, found.descriptive) == (2 / 2**9, False)
    assert pairwise_wilcoxon(values[:5]).descriptive and pairwise_wilcoxon(values[:5]).smallest_p == 0.0625


def test_incomplete_tables_are_refused() -> None:
    for function in (friedman, nemenyi, pairwise_wilcoxon):
        with pytest.raises(ValueError, match="every method on every data set"):
            function(np.array([[1.0, np.nan], [1.0, 2.0]]))
        with pytest.raises(ValueError, match="at least two"):
            function(np.array([[1.0, 2.0, 3.0]]))
