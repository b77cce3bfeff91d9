"""The official sweep against the official evaluator's golden numbers.

Tolerance 1e-9: accuracies are single-precision means in the official code, and `legacy.py` rounds them in the same
way, so the golden numbers agree to the last digit although 2/3 and its single-precision value differ by 2e-8.
"""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_problems import CASES, THRESHOLD_CASES, Problem, golden_problem, random_problem
from matrix_sweep import legacy_sweep

from benchmarks.evaluation.legacy import (
    LegacyMetrics,
    legacy_from_image_scores,
    official_feasibility_mask,
)
from benchmarks.evaluation.metrics import Labels, evaluate

OFFICIAL = {"rel": 0, "abs": 1e-9, "nan_ok": True}
COMPARABLE = [name for name, case in CASES.items() if not case["tie_dependent"]]


def by_official_names(metrics: LegacyMetrics) -> dict[str, object]:
    """Our numbers under the keys of the official code."""
    zero, huge = metrics.at_zero, metrics.at_huge
    return {
        "AUC": metrics.auc,
        "best_hm": metrics.best_hm,
        "best_seen": metrics.best_seen,
        "best_unseen": metrics.best_unseen,
        "hm_seen": metrics.best_hm_seen,
        "hm_unseen": metrics.best_hm_unseen,
        "biasterm": metrics.best_hm_bias,
        "attr_acc": zero.state,
        "obj_acc": zero.object,
        "closed_ub_match": zero.pair,
        "closed_ub_seen_match": zero.seen_pair,
        "closed_ub_unseen_match": zero.unseen_pair,
        "closed_seen_match": huge.seen_pair,
        "closed_unseen_match": huge.unseen_pair,
        "closed_attr_match": huge.state,
        "closed_obj_match": huge.object,
        "biases_evaluated": metrics.biases,
        "curve_seen": metrics.seen,
        "curve_unseen": metrics.unseen,
    }


def sweep(problem: Problem, **settings) -> LegacyMetrics:
    return legacy_sweep(
        problem.matrix, problem.seen, problem.candidates, problem.labels, problem.true_columns, **settings
    )


def assert_official(metrics: LegacyMetrics, expected: dict, skip: tuple[str, ...] = ()) -> None:
    ours = by_official_names(metrics)
    for key, value in expected.items():
        if key not in skip:
            wanted = np.atleast_1d(np.array(value, dtype=np.float64))  # None becomes NaN
            assert np.atleast_1d(ours[key]) == pytest.approx(wanted, **OFFICIAL), key


def golden_expectation(name: str) -> dict:
    """The official numbers, but one point of `margins_beyond_1000` moved by the one image that is tied there.

    Margins of thousands swallow epsilon in single precision, so that at the bias of an image its two best scores are
    equal. With fewer than 64 columns the official top-k routine may return any of them; here it returned the second.
    """
    expected = dict(CASES[name]["expected_official"])
    if name == "margins_beyond_1000":
        curve = list(expected["curve_unseen"])
        curve[6] = float(np.float32(np.round(curve[6] * 60) + 1) / np.float32(60))
        expected["curve_unseen"] = curve
    return expected


@pytest.mark.parametrize("name", COMPARABLE)
def test_golden_case(name: str) -> None:
    inputs = CASES[name]["input"]
    metrics = sweep(golden_problem(inputs), topk=inputs["topk"], huge_bias=inputs["bias_max"])
    assert_official(metrics, golden_expectation(name))


@pytest.mark.parametrize("name", [name for name in COMPARABLE if CASES[name]["input"]["topk"] == 1])
def test_golden_case_from_the_record(name: str) -> None:
    problem = golden_problem(CASES[name]["input"])
    assert_official(legacy_from_image_scores(problem.scores, problem.labels), golden_expectation(name))


def test_the_one_point_that_differs_is_a_tie_in_single_precision() -> None:
    problem = golden_problem(CASES["margins_beyond_1000"]["input"])
    bias = np.float32(CASES["margins_beyond_1000"]["expected_official"]["biases_evaluated"][6])
    biased = np.where(problem.seen, problem.matrix, problem.matrix + bias)
    tied = np.flatnonzero((biased == biased.max(axis=1, keepdims=True)).sum(axis=1) > 1)
    assert [biased[image].argmax() for image in tied] == problem.true_columns[tied].tolist()
    assert len(tied) == 1


def test_the_sampled_curve_is_safe_where_only_bias_zero_is_tied() -> None:
    case = CASES["score_ties"]
    at_zero = ("attr_acc", "obj_acc", "closed_ub_match", "closed_ub_seen_match", "closed_ub_unseen_match")
    assert_official(sweep(golden_problem(case["input"])), case["expected_official"], skip=at_zero)


@pytest.mark.parametrize("name", THRESHOLD_CASES)
def test_golden_threshold_case(name: str) -> None:
    case = THRESHOLD_CASES[name]
    expected = dict(case["expected_official"])
    problem = golden_problem(case["input"])
    masked = official_feasibility_mask(
        problem.matrix, np.array(case["input"]["feasibility"]), problem.seen, case["input"]["threshold"]
    )
    np.testing.assert_array_equal(masked, np.array(expected.pop("masked_scores"), dtype=np.float32))
    problem = golden_problem(case["input"], scores=masked)
    tied = {"threshold_on_negative_logits": ("attr_acc", "obj_acc")}  # both removed pairs score 0 there
    assert_official(sweep(problem), expected, skip=tied.get(name, ()))
    metrics = evaluate(problem.scores, problem.labels)
    ours = {"S": metrics.best_seen, "U": metrics.best_unseen, "AUC": metrics.auc, "HM": metrics.best_hm}
    assert ours == pytest.approx(case["expected_exact_on_official_scores"], rel=1e-12, abs=1e-12)


def test_matrix_and_record_agree_at_random() -> None:
    for seed in range(200):
        problem = random_problem(seed)
        if np.isinf(problem.matrix).any():  # the official code has no -infinity of its own
            continue
        # Rounded to multiples of 1/16, so that adding 1000 in single precision makes no new ties.
        problem = Problem(
            np.round(problem.matrix * 16) / 16, problem.seen, problem.candidates, problem.true_columns, problem.labels
        )
        wanted = by_official_names(sweep(problem))
        assert_official(legacy_from_image_scores(problem.scores, problem.labels), wanted)


def test_record_and_matrix_differ_where_the_huge_bias_erases_the_scores() -> None:
    """The caveat of `legacy_from_image_scores`: at +1000 both unseen scores become one single-precision number."""
    matrix, labels = np.array([[0.0, 0.0, 1e-5]]), Labels(np.arange(3), np.zeros(3), [2], [0])
    problem = Problem(matrix.astype(np.float32), np.arange(3) < 1, np.ones(3, dtype=bool), np.array([2]), labels)
    assert legacy_from_image_scores(problem.scores, labels).best_unseen == 1.0
    assert sweep(problem).best_unseen == 0.0


def test_no_official_point_beats_the_exact_numbers() -> None:
    for seed in range(1, 200, 3):  # without ties, of which the official code credits the first column
        problem = random_problem(seed)
        if np.isinf(problem.matrix).any():
            continue
        exact, official = evaluate(problem.scores, problem.labels), sweep(problem)
        if np.isnan(exact.auc):
            continue
        assert official.best_hm <= exact.best_hm + 1e-6
        assert official.best_seen <= exact.best_seen + 1e-6
        assert official.best_unseen == pytest.approx(exact.best_unseen, abs=1e-6)


@pytest.mark.parametrize("count", [5, 19, 39, 40, 41, 1300, 1301, 1319])
def test_a_perfect_scorer_does_not_get_one(count: int) -> None:
    """The loss is w / 2 with w the last interval's width: one image more or less decides (docs/protocol.md)."""
    matrix = np.zeros((2 * count, 2), dtype=np.float32)
    truth = np.repeat([0, 1], count)
    matrix[np.arange(2 * count), truth] = 4 + np.arange(2 * count) / 128
    labels = Labels(np.arange(2), np.zeros(2), truth, np.zeros(2 * count))
    problem = Problem(matrix, np.array([True, False]), np.ones(2, dtype=bool), truth, labels)
    step = max(count // 20, 1)
    width = (count - (-(-count // step) - 1) * step) / count
    metrics = legacy_from_image_scores(problem.scores, labels)
    assert metrics.auc == pytest.approx(1 - width / 2, abs=1e-6)
    assert metrics.best_hm == pytest.approx(2 * (1 - width) / (2 - width), abs=1e-6)
    assert evaluate(problem.scores, labels).auc == 1
