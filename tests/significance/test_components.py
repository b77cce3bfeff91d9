"""Variance components against a slow simulation, seeds needed against drawn tests, winners against loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks.evaluation.curve import exact_curve
from benchmarks.evaluation.image_scores import Labels
from benchmarks.significance import (
    Components,
    Resampling,
    ScoredRun,
    Units,
    bootstrap,
    compare,
    compare_over_seeds,
    components,
    difference_components,
    mean_over_seeds,
    pooled_variance,
    seeds_needed,
    winner_shares,
    winner_shares_elsewhere,
)
from benchmarks.significance.simulation import Population, _record

IMAGES, SEEDS, REPLICATES = 60, 4, 300


def drawn(rng, seed_effects):
    """Runs of some seeds on one new set of images, and the plain AUC of each by all couples of images."""
    is_seen = np.arange(2 * IMAGES) < IMAGES
    pair = np.where(is_seen, 0, 2)
    labels = Labels(np.arange(4), np.zeros(4), pair, np.zeros(2 * IMAGES))
    hard = rng.standard_normal((2, 2 * IMAGES)) * 0.7
    runs, plain = [], []
    for place, effect in enumerate(seed_effects):
        latent = hard + 0.7 * rng.standard_normal((2, 2 * IMAGES)) + effect[:, None]
        margin = (latent[1] + np.where(is_seen, 0.8, -0.8)).astype(np.float32)
        right = latent[0] < 0.3
        runs.append(ScoredRun(_record(is_seen, pair, right, margin, (2, 2)), labels, 0.0, place))
        couples = right[~is_seen][:, None] & right[is_seen][None] & (margin[~is_seen][:, None] < margin[is_seen][None])
        plain.append(couples.mean())
    return runs, np.array(plain)


def test_components_are_those_of_a_slow_simulation():
    """The truth from many seeds and many sets of images: each seed is judged on two sets that nothing else shares."""
    rng = np.random.default_rng(0)
    found, here, there = [], [], []
    for _ in range(REPLICATES):
        effects = 0.25 * rng.standard_normal((SEEDS, 2))
        runs, values = drawn(rng, effects)
        found.append(components(runs))
        here.append(values)
        there.append(drawn(rng, effects)[1])
    here, there = np.array(here), np.array(there)
    assert here[0] == pytest.approx([exact_curve(run.scores).auc for run in drawn_again()])
    centred, other = here - here.mean(), there - there.mean()
    images = np.mean([(centred[:, i] * centred[:, j]).mean() for i, j in itertools.combinations(range(SEEDS), 2)])
    seed = (centred * other).mean()  # of one seed on two sets of images
    total = ((centred**2).mean() + (other**2).mean()) / 2
    interaction = total - seed - images
    # Clipping at 0 is left out of the means by taking what is linear: variance over seeds, and the sum of all.
    mean = {name: np.mean([getattr(one, name) for one in found]) for name in ("seed", "images", "interaction")}
    assert mean["images"] == pytest.approx(images, rel=0.3)
    assert mean["interaction"] == pytest.approx(interaction, rel=0.3)
    assert mean["seed"] == pytest.approx(seed, rel=0.3)
    assert np.mean([one.of_a_run for one in found]) == pytest.approx(total, rel=0.15)
    assert np.mean([one.of_a_mean(SEEDS) for one in found]) == pytest.approx(here.mean(axis=1).var(), rel=0.25)


def drawn_again():
    rng = np.random.default_rng(0)
    return drawn(rng, 0.25 * rng.standard_normal((SEEDS, 2)))[0]


def test_the_images_part_is_that_of_the_bootstrap_and_differences_are_paired():
    first, second = Population((80, 80), (5, 5), by_seed=0.02).sample(np.random.default_rng(1), 2, 4)
    found = components(first)
    resampled = [one.resamples[0] for one in bootstrap(first, ("auc",), Units.images(first[0].scores), resamples=4000)]
    drawn_covariance = np.cov(resampled)
    assert found.images == pytest.approx(drawn_covariance[~np.eye(4, dtype=bool)].mean(), rel=0.12)
    assert found.interaction + found.images == pytest.approx(np.diag(drawn_covariance).mean(), rel=0.12)
    values = [exact_curve(run.scores).auc for run in first]
    assert found.observed == pytest.approx(np.var(values, ddof=1), rel=1e-9)
    differences = np.subtract(values, [exact_curve(run.scores).auc for run in second])
    assert difference_components(first, second).observed == pytest.approx(np.var(differences, ddof=1), rel=1e-9)
    assert difference_components(first, first) == Components(0.0, 0.0, 0.0, None, 4, 0.0)
    with pytest.raises(ValueError, match="1 run tells nothing"):
        components(first[:1])


def test_rounding_is_taken_out_of_the_seeds_part():
    runs = Population((80, 80), (5, 5), by_seed=0.05).sample(np.random.default_rng(2), 1, 5)[0]
    plain, apart = components(runs), components(runs, rounding=1e-5)
    assert apart.rounding == 1e-5 and apart.seed == pytest.approx(plain.seed - 1e-5)
    assert apart.of_a_run == pytest.approx(plain.of_a_run)
    huge = components(runs, rounding=1.0)
    assert huge.seed == 0 and huge.of_a_run > 1
    assert pooled_variance({0: [0.1, 0.3], 1: [0.5], 2: [0.2, 0.2, 0.5]}) == pytest.approx((0.02 + 0.06) / 3)
    assert pooled_variance({0: [0.1], 1: [0.2]}) is None and pooled_variance({}) is None


@pytest.mark.parametrize("spread", [0.004, 0.01])
def test_seeds_needed_have_the_power_that_they_should(spread):
    found = Components(spread**2, 0.0, 0.0, None, 5, spread**2)
    seeds = seeds_needed(found, 0.01, other_images=False)
    rng = np.random.default_rng(3)

    def power(count):
        draws = 0.01 + spread * rng.standard_normal((20_000, count))
        return (ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()

    assert power(seeds) >= 0.79 and power(seeds - 1) < 0.81


def test_images_alone_can_make_a_claim_impossible():
    found = Components(1e-5, 1e-4, 1e-5, None, 5, 2e-5)
    assert seeds_needed(found, 0.01) is None, "one point against a deviation of one point over images"
    assert seeds_needed(found, 0.01, other_images=False) is not None
    assert seeds_needed(found, 0.05) == 2 or seeds_needed(found, 0.05) < seeds_needed(found, 0.03)
    assert seeds_needed(Components(0.0, 0.0, 0.0, None, 2, 0.0)) == 2


def test_too_few_images_have_no_components_instead_of_none():
    runs = Population((80, 80), (5, 5), by_seed=0.02).sample(np.random.default_rng(1), 1, 3)[0]
    one_seen = np.cumsum(runs[0].scores.is_seen) * runs[0].scores.is_seen <= 1
    few = [replace(run, scores=run.scores.subset(one_seen), labels=run.labels.subset(one_seen)) for run in runs]
    found = components(few, rounding=1e-5)
    assert np.isnan([found.seed, found.images, found.interaction, found.observed, found.of_a_run]).all()
    with pytest.raises(ValueError, match="not known"):
        seeds_needed(found)


def test_winners_equal_but_for_rounding_share():
    apart = {"A": [0.3], "B": [0.1 + 0.2]}
    assert apart["A"] != apart["B"] and winner_shares(apart) == {"A": 0.5, "B": 0.5}
    good = Population((60, 60), (5, 5)).sample(np.random.default_rng(4), 1, 1)[0]
    (one,) = bootstrap(good, ("auc",), Units.images(good[0].scores), resamples=50)
    undefined = np.where(np.arange(50) < 5, np.nan, one.resamples)
    ours, theirs = (replace(one, resamples=undefined + more) for more in (0.0, 1e-15))
    assert winner_shares_elsewhere({"A": [ours], "B": [theirs]}) == pytest.approx({"A": 0.5, "B": 0.5})


def test_winners_are_counted_over_every_choice_of_seeds():
    values = {"A": [0.3, 0.5, 0.4], "B": [0.45, 0.2], "C": [0.1, 0.5, 0.45]}
    counted = dict.fromkeys(values, 0.0)
    every = list(itertools.product(*values.values()))
    for choice in every:
        best = [name for name, value in zip(values, choice, strict=True) if value == max(choice)]
        for name in best:
            counted[name] += 1 / len(best) / len(every)
    assert winner_shares(values) == pytest.approx(counted)
    assert sum(winner_shares(values).values()) == pytest.approx(1)


def test_winners_on_other_images_sum_to_one_and_follow_the_better_method():
    good, bad = Population((60, 60), (5, 5)).sample(np.random.default_rng(4), 2, 3)
    every = bootstrap([*good, *bad], ("auc",), Units.images(good[0].scores), resamples=500)
    shares = winner_shares_elsewhere({"good": every[:3], "bad": every[3:]})
    assert sum(shares.values()) == pytest.approx(1) and set(shares) == {"good", "bad"}
    alone = winner_shares_elsewhere({"good": every[:3], "again": every[:3]})
    assert 0.3 < alone["good"] < 0.7


# Rounding as the least that is believed of the spread over seeds.


def test_tests_over_seeds_are_not_narrower_than_rounding():
    first, second = [0.61, 0.612, 0.611], [0.601, 0.6025, 0.6015]
    plain, floored = compare_over_seeds(first, second), compare_over_seeds(first, second, 0.95, 0.006)
    assert plain.standard_deviation < 0.001 and floored.standard_deviation == 0.006
    assert floored.effect_size == pytest.approx(floored.mean_difference / 0.006)
    assert floored.t_p_value > plain.t_p_value and floored.interval.low < plain.interval.low
    assert compare_over_seeds(first, second, 0.95, 1e-9) == plain, "what is wide enough stays as it is"
    same = compare_over_seeds([0.6, 0.6], [0.5, 0.5], 0.95, 6e-17)  # rounding of which nothing comes
    assert np.isnan([same.effect_size, same.t_p_value, same.interval.low]).all()
    level = mean_over_seeds([0.5, 0.5], 0.95, 0.01)
    assert level.high - level.low == pytest.approx(2 * 12.706 * 0.01 / 2**0.5, rel=1e-3)


def test_comparisons_are_not_narrower_than_rounding():
    runs = dict(
        zip("AB", Population((80, 80), (5, 5), by_seed=0.001).sample(np.random.default_rng(5), 2, 4), strict=True)
    )
    plain = compare(runs, "A", ("auc", "best_hm"), resampling=Resampling(2000))
    same = compare(runs, "A", ("auc", "best_hm"), resampling=Resampling(2000, rounding={"A": {"auc": 1e-6}}))
    wide = compare(runs, "A", ("auc", "best_hm"), resampling=Resampling(2000, rounding={"B": {"auc": 0.2}}))

    def numbers(found, statistic):
        one = found.methods["B"].statistics[statistic]
        return one.sources["seeds and images"], one.difference.sources["seeds and images"]

    assert numbers(plain, "auc") == numbers(same, "auc") and numbers(plain, "best_hm") == numbers(wide, "best_hm")
    for before, after in zip(numbers(plain, "auc"), numbers(wide, "auc"), strict=True):
        expected = before.standard_error**2 + 0.2**2 * 3 / 16  # (r - 1) / r of the variance of a mean of 4
        assert after.standard_error**2 == pytest.approx(expected, rel=0.15)
        assert after.percentile.high - after.percentile.low > before.percentile.high - before.percentile.low
    before, after = (found.methods["B"].statistics["auc"].difference for found in (plain, wide))
    assert after.p_value > before.p_value and after.seeds.standard_deviation == 0.2
    assert numbers(plain, "auc")[0].value == numbers(wide, "auc")[0].value
