"""Tests keep their level and intervals hold the truth, in a small simulation with wide bounds; the script runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.evaluation.metrics import evaluate
from benchmarks.significance.simulation import Population
from benchmarks.studies import significance_calibration as calibration
from datasets.streams import stream


def test_between_equal_methods_tests_reject_at_their_level() -> None:
    rates = calibration.pairwise_rates("60 + 60 images", 100, 199)
    by_name = {rate.test: rate for rate in rates}
    assert by_name["auc: closed form"].standard_error == pytest.approx(0.022, abs=0.02)
    assert {"McNemar, unseen images", "best_hm: BCa interval over images misses"} <= set(by_name)
    # 5 % of 100 are 5; 15 would be four and a half standard deviations off.
    too_often = {name: rate.rate for name, rate in by_name.items() if rate.rate > 15 / 100}
    assert not too_often
    assert np.mean([rate.rate for rate in rates]) > 0.02  # they do reject


def test_seeds_are_taken_for_what_they_are() -> None:
    rates = {rate.test: rate.rate for rate in calibration.pairwise_rates("5 seeds, which vary most", 40, 99, ["auc"])}
    assert rates["auc: bootstrap over seeds and images"] < 0.2 < rates["auc: bootstrap over images"]
    assert rates["auc: t over seeds"] < 0.2 and rates["auc: sign flips over seeds"] == 0


def test_images_of_a_pair_are_taken_together() -> None:
    situation = "600 + 600 images, alike within 20 + 20 pairs"
    rates = {rate.test: rate.rate for rate in calibration.pairwise_rates(situation, 50, 99, ["auc"])}
    assert rates["auc: bootstrap over pairs"] < 0.2 < rates["auc: bootstrap over images"]


def test_ranks_and_families_keep_their_level() -> None:
    for rate in (*calibration.rank_rates(10, 5, 60), *calibration.family_rate(40, 99, methods=3)):
        assert rate.rate < 0.25, rate


def test_the_simulated_population_has_the_values_it_claims() -> None:
    population = Population((20_000, 20_000), (50, 50), accuracy=0.6, gap=1.0, by_method=0.1)
    ((run,),) = population.sample(stream("test"), 1)
    metrics, truth = evaluate(run.scores, run.labels, bias=0.0), calibration.true_values(population)
    assert (metrics.auc, metrics.gate) == pytest.approx((truth["auc"], truth["gate"]), abs=0.01)
    assert (metrics.best_hm, metrics.at_bias.hm) == pytest.approx((truth["best_hm"],) * 2, abs=0.01)


def test_the_calibration_script_prints_tables(monkeypatch, capsys) -> None:
    small = {name: (Population((20, 20), (4, 4)), runs) for name, (_, runs) in calibration.SITUATIONS.items()}
    monkeypatch.setattr(calibration, "SITUATIONS", small)
    monkeypatch.setattr(calibration, "RANKED", ((5, 3),))
    monkeypatch.setattr(sys, "argv", ["calibration", "--simulations", "2", "--resamples", "19"])
    calibration.main()
    printed = capsys.readouterr().out
    assert printed.count("| wrong in percent |") == 5 and "| auc: t over seeds |" in printed
    assert "| Nemenyi, any pair |" in printed
