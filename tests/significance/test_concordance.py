"""Kendall's W: against the textbook's sum, scipy and all orders tried one by one; its interval against plain loops."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, spearmanr

from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import evaluate
from benchmarks.significance import Units, concordance, draws, friedman, resampled_concordance
from benchmarks.significance.runs import ScoredRun
from datasets.streams import derived_seed, stream


def slow_ranks(values: list[float]) -> list[float]:
    """A rank is 1 more than the number of larger values, plus half of the others that are equal."""
    return [1 + sum(v > own for v in values) + (sum(v == own for v in values) - 1) / 2 for own in values]


def slow_w(values: np.ndarray) -> float:
    """Kendall's formula with its correction for ties, written out."""
    ranks = [slow_ranks(list(judge)) for judge in values]
    judges, methods = values.shape
    sums = [sum(judge[place] for judge in ranks) for place in range(methods)]
    spread = sum((own - sum(sums) / methods) ** 2 for own in sums)
    ties = sum(judge.count(rank) ** 3 - judge.count(rank) for judge in ranks for rank in set(judge))
    return 12 * spread / (judges**2 * (methods**3 - methods) - judges * ties)


@pytest.mark.parametrize(("judges", "methods", "levels"), [(2, 3, 100), (3, 5, 3), (4, 6, 100), (2, 7, 4), (6, 4, 2)])
def test_w_is_the_textbooks_with_ties_and_without(judges, methods, levels):
    values = np.random.default_rng(judges * methods).integers(levels, size=(judges, methods)) / 4
    found = concordance(values)
    assert found.w == pytest.approx(slow_w(values), rel=1e-12)
    assert found.ranks.tolist() == [slow_ranks(list(judge)) for judge in values]
    assert found.w == pytest.approx(friedman(values).chi2 / (judges * (methods - 1)), rel=1e-12)
    if judges > 2:
        assert found.w == pytest.approx(friedmanchisquare(*values.T).statistic / (judges * (methods - 1)), rel=1e-12)


def test_w_of_a_textbook():
    """Three judges of six things: Siegel, Nonparametric statistics, 1956, table 9.9: s = 25.5, W = .16."""
    ranks = np.array([[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]])
    assert round(concordance(-ranks).w, 2) == 0.16
    sums = ranks.sum(axis=0)
    assert ((sums - sums.mean()) ** 2).sum() == 25.5


def test_two_judges_are_spearmans_correlation_and_its_exact_p():
    values = np.random.default_rng(3).normal(size=(2, 6))
    found, rho = concordance(values), spearmanr(*values).statistic
    assert found.w == pytest.approx((1 + rho) / 2)
    others = [spearmanr(values[0], values[1][list(order)]).statistic for order in permutations(range(6))]
    assert (found.orders, found.exact) == (720, True)
    assert found.p_value == pytest.approx(np.mean(np.array(others) >= rho - 1e-9))


def test_the_exact_p_tries_the_orders_of_every_judge():
    values = np.array([[3.0, 2, 1, 1], [4, 3, 2, 1], [1, 3, 2, 0]])
    slow = [
        slow_w(np.array([values[0], values[1][list(one)], values[2][list(other)]]))
        for one, other in product(permutations(range(4)), repeat=2)
    ]
    found = concordance(values)
    assert found.exact and found.orders == len(slow) == 576
    assert found.p_value == pytest.approx(np.mean(np.array(slow) >= slow_w(values) - 1e-9))


def test_where_there_are_too_many_orders_some_are_drawn():
    values = np.random.default_rng(0).normal(size=(4, 7))
    found = concordance(values)
    assert not found.exact and found.orders == 10_000 and concordance(values).p_value == found.p_value
    chi2 = friedmanchisquare(*values.T).pvalue
    assert found.p_value == pytest.approx(chi2, abs=0.05)
    assert concordance(np.tile(np.arange(7.0), (4, 1))).p_value == 1 / 10_001


def test_equal_is_what_equality_says():
    values = np.array([[0.1, 0.1 + 1e-15, 0.3], [0.1, 0.2, 0.3]])
    assert concordance(values).ranks[0].tolist() == [2.5, 2.5, 1]
    tied = concordance(np.ones((2, 3)))
    assert np.isnan(tied.w) and np.isnan(tied.p_value)


@pytest.mark.parametrize("values", [np.ones((1, 3)), np.ones((3, 1)), np.ones(3), np.array([[1, np.nan], [1, 2]])])
def test_what_cannot_be_ranked_is_refused(values):
    with pytest.raises(ValueError, match="concordance needs"):
        concordance(values)


def made_run(skill: float, seed: int, name: int) -> ScoredRun:
    """A run on 24 images of four pairs, the last of them unseen."""
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    columns = np.arange(24) % 4
    own = np.random.default_rng([seed, name]).normal(size=(24, 4))
    scores = ImageScores.from_matrix(own + skill * np.eye(4)[columns], np.arange(4) < 3, columns)
    return ScoredRun(scores, Labels(*pairs.T, *pairs[columns].T), 0.0, seed)


def test_the_interval_is_that_of_plain_loops():
    """Of two backbones, three methods, two seeds and one: images drawn once for all, seeds once for a backbone."""
    resamples, skills = 40, [[1.0, 1.6, 2.2], [1.2, 1.1, 2.0]]
    runs = [
        [[made_run(skill, seed, 10 * place + method) for seed in range(2 if place == 0 else 1)]
         for method, skill in enumerate(own)]
        for place, own in enumerate(skills)
    ]  # fmt: skip
    found = resampled_concordance(runs, resamples=resamples)
    units = Units.images(runs[0][0][0].scores)
    weights = np.concatenate(list(draws(units.is_seen, resamples, 0, "images")), axis=1)
    picks = stream("significance", derived_seed(0, "backbone", 0), "training seeds", 0, 1).integers(
        0, 2, size=(resamples, 2)
    )
    expected, first = [], np.zeros((2, 3))
    for resample in range(resamples):
        chosen = np.repeat(np.arange(24), weights[:, resample].astype(int))

        def auc(run: ScoredRun, chosen: np.ndarray = chosen) -> float:
            labels = Labels(
                run.labels.candidate_states, run.labels.candidate_objects,
                run.labels.states[chosen], run.labels.objects[chosen],
            )  # fmt: skip
            return evaluate(run.scores.subset(chosen), labels).auc

        values = np.array(
            [
                [np.mean([auc(own[seed]) for seed in picks[resample]]) for own in runs[0]],
                [auc(own[0]) for own in runs[1]],
            ]
        )
        expected.append(slow_w(np.round(values, 11)))
        for place, judge in enumerate(values):
            best = np.isclose(judge, judge.max(), atol=1e-12)
            first[place] += best / best.sum()
    assert found.interval.low == pytest.approx(np.quantile(expected, 0.025))
    assert found.interval.high == pytest.approx(np.quantile(expected, 0.975))
    assert found.first == pytest.approx(first / resamples)
    assert not found.over_images_alone
    assert resampled_concordance([[own[:1] for own in methods] for methods in runs], resamples=5).over_images_alone
