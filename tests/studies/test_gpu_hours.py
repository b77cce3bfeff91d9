"""The estimate of hours is arithmetic on counts; the counts themselves are tested in test_profile.py."""

import pytest

from benchmarks.cost.record import Estimate, Flops, Row
from benchmarks.studies.gpu_hours import PEAK, SHARE, Cost, run_flops


def row(**flops: float) -> Row:
    counted = Flops(train_step=0, train_parts={}, eval_batch=0, eval_parts={}, train_epoch=0, **flops)
    estimate = Estimate(weights=0, training=0, evaluation=0)
    return Row(method="csp", batch=1, preset_batch=1, epochs=3, parameters=1, flops=counted, estimate=estimate)


def test_a_run_is_its_epochs_with_validation_and_the_final_evaluation():
    counts = row(train_image=7.0, eval_image=2.0, prepare=100)
    by_hand = sum(10 * 7 + 4 * 2 + 100 for _ in range(3)) + (4 * 2 + 100) + (5 * 2 + 100)
    assert run_flops(counts, 3, (10, 4, 5)) == by_hand


def test_hours_are_flops_at_the_assumed_share_of_the_peak():
    cost = Cost("csp", 1, 1, 1, flops=3600 * 312e12, gigabytes={})
    assert cost.hours("bf16") == pytest.approx(1 / SHARE["bf16"])
    assert cost.hours("fp32") / cost.hours("bf16") == pytest.approx(
        PEAK["bf16"] * SHARE["bf16"] / (PEAK["fp32"] * SHARE["fp32"])
    )
