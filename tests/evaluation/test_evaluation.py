"""The exact evaluation against golden cases, against a naive argmax at every bias, and by its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_problems import (
    CASES,
    THRESHOLD_CASES,
    Problem,
    golden_problem,
    naive_accuracies,
    naive_biased,
    naive_biases,
    naive_credit,
    naive_is_seen,
    random_problem,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.evaluation.curve import auc_placements, curve_from_margins, exact_curve
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import (
    accuracies_at_bias,
    evaluate,
    hm_at_bias,
    pair_credit,
    primitive_credit,
)
from benchmarks.evaluation.topk import exact_topk_curve

EXACT = {"rel": 1e-12, "abs": 1e-12}
seeds = st.integers(0, 2**32 - 1)
repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def as_number(value: float | str | None) -> float:
    return np.nan if value is None else float(value)


# Golden cases


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["input"]["topk"] == 1])
def test_golden_case(name: str) -> None:
    problem, expected = golden_problem(CASES[name]["input"]), CASES[name]["expected_exact"]
    metrics, curve = evaluate(problem.scores, problem.labels), exact_curve(problem.scores)
    ours = {
        "S": metrics.best_seen,
        "U": metrics.best_unseen,
        "AUC": metrics.auc,
        "HM": metrics.best_hm,
        "hm_seen": metrics.best_hm_seen,
        "hm_unseen": metrics.best_hm_unseen,
        "gate_auroc": metrics.gate,
        "hm_bias_interval": metrics.best_hm_interval,
        "breakpoints": curve.breakpoints,
        "seen": curve.seen,
        "unseen": curve.unseen,
    }
    for key, value in expected.items():
        wanted = [as_number(item) for item in value] if isinstance(value, list) else as_number(value)
        assert ours[key] == pytest.approx(wanted, **EXACT, nan_ok=True), key


@pytest.mark.parametrize("name", THRESHOLD_CASES)
def test_golden_threshold_case_with_a_real_mask(name: str) -> None:
    case = THRESHOLD_CASES[name]
    problem = golden_problem(case["input"])
    keep = problem.seen | (np.array(case["input"]["feasibility"]) >= case["input"]["threshold"])
    problem = Problem(problem.matrix, problem.seen, keep, problem.true_columns, problem.labels)
    metrics = evaluate(problem.scores, problem.labels)
    ours = {"S": metrics.best_seen, "U": metrics.best_unseen, "AUC": metrics.auc, "HM": metrics.best_hm}
    assert ours == pytest.approx(case["expected_exact_with_real_mask"], **EXACT)
    unseen = ~problem.scores.is_seen
    assert metrics.unseen_cap == keep[problem.true_columns[unseen]].mean() >= metrics.best_unseen


def test_worked_example_of_four_images() -> None:
    problem = golden_problem(CASES["toy_4x3"]["input"])
    metrics = evaluate(problem.scores, problem.labels)
    assert (metrics.auc, metrics.best_hm, metrics.gate) == (0.75, pytest.approx(2 / 3, **EXACT), 0.75)
    assert (metrics.at_zero.state, metrics.at_zero.object) == (1.0, 0.75)
    assert problem.scores.margins == pytest.approx([0.5, 0.1, -0.2, 0.3], abs=1e-7)
    assert metrics.best_hm_bias == pytest.approx((-0.2 + 0.1) / 2, abs=1e-7)


# Against a naive argmax over the biased matrix


@pytest.mark.parametrize("block", range(6))
def test_curve_equals_a_naive_sweep_over_all_biases(block: int) -> None:
    for seed in range(60 * block, 60 * block + 60):
        problem = random_problem(seed)
        scores, curve = problem.scores, exact_curve(problem.scores)
        biases = naive_biases(problem)
        seen, unseen = np.array([naive_accuracies(problem, bias) for bias in biases]).T
        point = np.searchsorted(curve.breakpoints, biases)
        assert curve.seen[point] == pytest.approx(seen, **EXACT, nan_ok=True)
        assert curve.unseen[point] == pytest.approx(unseen, **EXACT, nan_ok=True)
        assert set(point) == set(range(len(curve.breakpoints) + 1)), "an operating point that no bias reaches"

        metrics = evaluate(scores, problem.labels)
        area = unseen[0] * seen[0] + (np.diff(unseen) * (seen[1:] + seen[:-1]) / 2).sum()
        with np.errstate(invalid="ignore"):
            hm = np.where(seen + unseen == 0, 0.0, 2 * seen * unseen / (seen + unseen))
        wanted = [seen[0], unseen[-1], area, hm.max()]
        ours = [metrics.best_seen, metrics.best_unseen, metrics.auc, metrics.best_hm]
        assert ours == pytest.approx(wanted, **EXACT, nan_ok=True), seed
        if not np.isnan(metrics.best_hm):
            assert hm_at_bias(scores, metrics.best_hm_bias) == pytest.approx(metrics.best_hm, **EXACT)
            assert naive_accuracies(problem, metrics.best_hm_bias) == pytest.approx(
                (metrics.best_hm_seen, metrics.best_hm_unseen), **EXACT
            )


@pytest.mark.parametrize("bias", [0.0, 1.0, -0.37])
def test_accuracies_at_a_bias_equal_naive_ones(bias: float) -> None:
    for seed in range(150):
        problem = random_problem(seed)
        scores, labels = problem.scores, problem.labels
        credit, is_seen = naive_credit(problem, bias), naive_is_seen(problem)
        assert pair_credit(scores, bias) == pytest.approx(credit, **EXACT)
        ours = accuracies_at_bias(scores, labels, bias)
        seen, unseen = naive_accuracies(problem, bias)
        assert [ours.pair, ours.seen_pair, ours.unseen_pair] == pytest.approx(
            [credit.mean(), seen, unseen], **EXACT, nan_ok=True
        )
        if seed % 3:  # without ties the prediction is one column
            biased = naive_biased(problem, bias)
            predicted = np.where(biased.max(axis=1) > -np.inf, biased.argmax(axis=1), -1)
            state = (predicted >= 0) & (labels.candidate_states[predicted] == labels.states)
            obj = (predicted >= 0) & (labels.candidate_objects[predicted] == labels.objects)
            assert [ours.state, ours.object] == pytest.approx([state.mean(), obj.mean()], **EXACT)
            if is_seen.any() and not is_seen.all():
                wanted = [state[is_seen].mean(), state[~is_seen].mean(), obj[is_seen].mean(), obj[~is_seen].mean()]
                assert [ours.seen_state, ours.unseen_state, ours.seen_object, ours.unseen_object] == pytest.approx(
                    wanted, **EXACT
                )


def test_auc_is_a_rank_statistic_and_has_its_standard_error() -> None:
    for seed in range(0, 200, 7):
        scores = random_problem(seed).scores
        unseen, seen = np.flatnonzero(~scores.is_seen), np.flatnonzero(scores.is_seen)
        if len(unseen) < 2 or len(seen) < 2:
            continue
        margin, correct = scores.margins, scores.correct
        below, level = margin[unseen, None] < margin[None, seen], margin[unseen, None] == margin[None, seen]
        kernel = correct[unseen, None] * correct[None, seen] * (below + 0.5 * level)
        metrics = evaluate(scores, random_problem(seed).labels)
        assert metrics.auc == pytest.approx(kernel.mean(), **EXACT)
        variance = kernel.mean(axis=1).var(ddof=1) / len(unseen) + kernel.mean(axis=0).var(ddof=1) / len(seen)
        assert metrics.auc_standard_error == pytest.approx(np.sqrt(variance), **EXACT)
        for ours, wanted in zip(auc_placements(scores), (kernel.mean(axis=1), kernel.mean(axis=0)), strict=True):
            assert ours == pytest.approx(wanted, **EXACT)
        if metrics.best_seen * metrics.best_unseen > 0:
            weights = correct[unseen, None] * correct[None, seen]
            assert metrics.gate == pytest.approx(kernel.sum() / weights.sum(), **EXACT)
            assert metrics.auc == pytest.approx(metrics.best_seen * metrics.best_unseen * metrics.gate, **EXACT)


@pytest.mark.parametrize("topk", [1, 2, 3])
def test_topk_curve_equals_a_naive_sweep(topk: int) -> None:
    for seed in range(1, 150, 3):  # continuous scores
        problem = random_problem(seed)
        curve = exact_topk_curve(problem.masked, problem.seen, problem.true_columns, topk)
        assert curve.seen_images == naive_is_seen(problem).sum()
        ends = curve.breakpoints
        biases = np.concatenate([ends[:1] - 1, (ends[1:] + ends[:-1]) / 2, ends[-1:] + 1]) if len(ends) else np.zeros(1)
        for point, bias in enumerate(biases):
            biased = naive_biased(problem, bias)
            best = np.argsort(-biased, axis=1, kind="stable")[:, :topk]
            right = (best == problem.true_columns[:, None]).any(axis=1)
            right &= np.array([c >= 0 and problem.masked[i, c] > -np.inf for i, c in enumerate(problem.true_columns)])
            counts = [right[naive_is_seen(problem)].sum(), right[~naive_is_seen(problem)].sum()]
            assert [curve.seen_right[point], curve.unseen_right[point]] == counts


def test_golden_topk_case() -> None:
    problem, expected = golden_problem(CASES["topk_2"]["input"]), CASES["topk_2"]["expected_exact"]
    curve = exact_topk_curve(problem.masked, problem.seen, problem.true_columns, 2)
    ours = {"S": curve.seen[0], "U": curve.unseen[-1], "AUC": curve.auc, "HM": curve.best_hm.hm}
    assert ours == pytest.approx(expected, **EXACT)


def test_top_1_is_the_ordinary_curve_with_ties_too() -> None:
    for seed in range(60):
        problem = random_problem(seed)
        curve, other = (
            exact_curve(problem.scores),
            exact_topk_curve(problem.masked, problem.seen, problem.true_columns, 1),
        )
        assert other.breakpoints == pytest.approx(curve.breakpoints, abs=0)
        assert other.seen_right == pytest.approx(curve.seen_right, **EXACT)
        assert other.unseen_right == pytest.approx(curve.unseen_right, **EXACT)


# Conventions


@pytest.mark.parametrize("name", ["perfect_5", "perfect_40", "perfect_41"])
def test_a_perfect_scorer_gets_one(name: str) -> None:
    problem = golden_problem(CASES[name]["input"])
    metrics = evaluate(problem.scores, problem.labels)
    assert (metrics.best_seen, metrics.best_unseen, metrics.gate, metrics.auc, metrics.best_hm) == (1, 1, 1, 1, 1)
    assert metrics.auc_standard_error == 0


def simple(matrix: list[list[float]], seen: list[bool], true_columns: list[int]) -> tuple[ImageScores, Labels]:
    scores = ImageScores.from_matrix(np.array(matrix), np.array(seen), np.array(true_columns))
    return scores, Labels(
        np.arange(len(seen)), np.zeros(len(seen)), np.array(true_columns), np.zeros(len(true_columns))
    )


def test_ties_inside_a_group_share_the_credit_and_are_counted() -> None:
    scores, labels = simple([[2, 2, 1], [2, 2, 1], [0, 0, 5]], [True, True, False], [0, 1, 2])
    metrics = evaluate(scores, labels)
    assert scores.correct.tolist() == [0.5, 0.5, 1.0]
    assert (metrics.best_seen, metrics.best_unseen, metrics.tied_images) == (0.5, 1.0, 2)


def test_seen_and_unseen_image_with_one_margin_make_a_diagonal_step() -> None:
    scores, labels = simple([[1, 0], [1, 0]], [True, False], [0, 1])
    curve = exact_curve(scores)
    assert (curve.breakpoints.tolist(), curve.seen.tolist(), curve.unseen.tolist()) == ([1.0], [1, 0], [0, 1])
    assert (curve.auc, evaluate(scores, labels).best_hm) == (0.5, 0.0)


def test_a_bias_equal_to_the_margin_counts_half() -> None:
    scores, labels = simple([[1, 0]], [True, False], [0])
    assert accuracies_at_bias(scores, labels, 1.0).pair == 0.5
    assert primitive_credit(scores, labels, 1.0)[0].tolist() == [0.5]


@pytest.mark.parametrize(
    ("matrix", "seen", "truth", "reason"),
    [
        ([[1.0, 0.0]], [True, False], [0], "there are no unseen images"),
        ([[1.0, 0.0]], [True, False], [1], "there are no seen images"),
        (np.zeros((0, 2)), [True, False], [], "there are no seen and no unseen images"),
    ],
)
def test_an_empty_group_is_undefined_with_a_reason(matrix, seen, truth, reason) -> None:
    metrics = evaluate(*simple(matrix, seen, np.array(truth, dtype=np.int64)), bias=0.5)
    for name in ("auc", "best_hm", "best_hm_bias", "gate", "auc_standard_error", "at_zero.hm", "at_bias.hm"):
        assert metrics.undefined[name] == reason
    assert np.isnan([metrics.auc, metrics.best_hm, metrics.gate, *metrics.best_hm_interval]).all()


def test_gate_is_undefined_and_auc_zero_when_one_group_is_never_right() -> None:
    metrics = evaluate(*simple([[1, 0, 0], [2, 0, 1]], [True, False, False], [0, 1]))
    assert (metrics.auc, metrics.best_hm) == (0.0, 0.0)
    assert metrics.undefined == {
        "gate": "S x U is 0",
        "auc_standard_error": "a group has fewer than two images",
    }


def test_no_candidate_of_the_other_group_means_right_at_every_bias() -> None:
    inf = np.inf
    scores, labels = simple([[1, 0, -inf], [-inf, -inf, 1], [0, 1, 0]], [True, True, False], [0, 2, 2])
    curve = exact_curve(scores)
    assert scores.margins.tolist() == [inf, -inf, 1.0]
    assert (curve.seen.tolist(), curve.unseen.tolist()) == ([1, 1], [0.5, 1])
    assert (curve.auc, evaluate(scores, labels).gate) == (1.0, 1.0)


def test_no_candidate_at_all_is_wrong_everywhere() -> None:
    scores, labels = simple([[-np.inf, -np.inf], [1, 0]], [True, False], [1, 0])
    assert (scores.seen_winner[0], scores.unseen_winner[0], scores.ties[0]) == (-1, -1, 0)
    metrics = evaluate(scores, labels)
    assert (metrics.best_seen, metrics.best_unseen, metrics.at_zero.unseen_state) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("true_column", [1, -1])
def test_a_true_pair_that_is_no_candidate_is_wrong_and_stays_in_the_denominator(true_column: int) -> None:
    matrix = [[0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0], [2.0, -np.inf, 1.0]]
    scores, labels = simple(matrix, [True, False, False], [true_column, 2, 0])
    metrics = evaluate(scores, labels)
    assert (metrics.unseen_images, metrics.best_unseen, metrics.unseen_cap) == (2, 0.5, 0.5)


def test_the_best_hm_at_the_smallest_bias_is_reported() -> None:
    problem = golden_problem(CASES["toy_4x3"]["input"])
    curve = exact_curve(problem.scores)
    assert np.sum(np.isclose(2 * curve.seen * curve.unseen / (curve.seen + curve.unseen), 2 / 3)) == 2
    assert curve.best_hm.interval == tuple(curve.breakpoints[:2])


@pytest.mark.parametrize(("margins", "bias"), [([2.0, -np.inf], 1.0), ([np.inf, 2.0], 3.0), ([np.inf, -np.inf], 0.0)])
def test_the_bias_of_an_interval_with_an_infinite_end(margins: list[float], bias: float) -> None:
    curve = curve_from_margins(np.array([True, False]), np.array(margins), np.ones(2))
    assert curve.best_hm.bias == bias


def test_impossible_input_is_refused() -> None:
    scores, labels = simple([[1, 0]], [True, False], [0])
    with pytest.raises(ValueError, match="never be right"):
        curve_from_margins(np.array([True]), np.array([-np.inf]), np.ones(1))
    with pytest.raises(ValueError, match="labels of 1 images were given for the scores of 2"):
        evaluate(scores.subset(np.array([0, 0])), labels)
    with pytest.raises(ValueError, match="name column 1"):
        evaluate(scores, Labels(np.zeros(0), np.zeros(0), labels.states, labels.objects))
    with pytest.raises(ValueError, match="another state or object"):
        evaluate(scores, Labels([0, 1], [0, 0], [1], [0]))
    with pytest.raises(ValueError, match="lack ties"):
        ImageScores.from_arrays({name: value for name, value in scores.to_arrays().items() if name != "ties"})
    with pytest.raises(ValueError, match="ties has shape"):
        ImageScores.from_arrays({**scores.to_arrays(), "ties": np.zeros(2)})


def test_the_record_survives_storage(tmp_path) -> None:
    scores = random_problem(4).scores
    np.savez(tmp_path / "scores.npz", **scores.to_arrays(), states=np.zeros(3))
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        loaded = ImageScores.from_arrays(stored)
    for name, values in scores.to_arrays().items():
        np.testing.assert_array_equal(getattr(loaded, name), values)
        assert getattr(loaded, name).dtype == values.dtype


# Invariants


def headline(problem: Problem) -> list[float]:
    metrics = evaluate(problem.scores, problem.labels)
    names = ("best_seen", "best_unseen", "gate", "auc", "best_hm", "auc_standard_error", "best_hm_bias", "tied_images")
    return [getattr(metrics, name) for name in names]


@repeatable
@given(seeds)
def test_order_of_columns_and_images_does_not_matter(seed: int) -> None:
    problem, rng = random_problem(seed), np.random.default_rng(seed)
    columns, images = rng.permutation(len(problem.seen)), rng.permutation(len(problem.matrix))
    place = np.append(np.argsort(columns), -1)
    labels = problem.labels
    shuffled = Problem(
        problem.matrix[images][:, columns],
        problem.seen[columns],
        problem.candidates[columns],
        place[problem.true_columns[images]],
        Labels(
            labels.candidate_states[columns],
            labels.candidate_objects[columns],
            labels.states[images],
            labels.objects[images],
        ),
    )
    assert headline(shuffled) == pytest.approx(headline(problem), **EXACT, nan_ok=True)
    assert pair_credit(shuffled.scores, 0.0) == pytest.approx(pair_credit(problem.scores, 0.0)[images], **EXACT)


@repeatable
@given(seeds, st.integers(-8, 8))
def test_a_constant_per_image_and_a_scale_change_nothing(seed: int, exponent: int) -> None:
    problem = random_problem(seed)
    # Multiples of 2^-10 below 2^13 and powers of two, so that single precision adds and multiplies without rounding.
    matrix = (np.round(problem.matrix * 1024) / 1024).astype(np.float32)
    shift = np.random.default_rng(seed).integers(-500, 500, (len(matrix), 1)).astype(np.float32)
    plain = Problem(matrix, problem.seen, problem.candidates, problem.true_columns, problem.labels)
    moved = Problem(matrix + shift, problem.seen, problem.candidates, problem.true_columns, problem.labels)
    scaled = Problem(matrix * 2.0**exponent, problem.seen, problem.candidates, problem.true_columns, problem.labels)
    assert headline(moved) == pytest.approx(headline(plain), **EXACT, nan_ok=True)
    # The bias moves with the scale, all else stays (it is the entry before last).
    assert headline(scaled)[:6] == pytest.approx(headline(plain)[:6], **EXACT, nan_ok=True)


@repeatable
@given(seeds)
def test_seen_and_unseen_can_change_places(seed: int) -> None:
    problem = random_problem(seed)
    if (problem.true_columns < 0).any():
        return
    metrics = evaluate(problem.scores, problem.labels)
    other = Problem(problem.matrix, ~problem.seen, problem.candidates, problem.true_columns, problem.labels)
    mirrored = evaluate(other.scores, problem.labels)
    assert [metrics.best_seen, metrics.best_unseen, metrics.auc, metrics.best_hm, metrics.gate] == pytest.approx(
        [mirrored.best_unseen, mirrored.best_seen, mirrored.auc, mirrored.best_hm, mirrored.gate], **EXACT, nan_ok=True
    )


@repeatable
@given(seeds, st.floats(-3, 3))
def test_bounds_and_monotony(seed: int, bias: float) -> None:
    problem = random_problem(seed)
    scores, curve = problem.scores, exact_curve(problem.scores)
    assert (np.diff(curve.seen_right) <= 0).all()
    assert (np.diff(curve.unseen_right) >= 0).all()
    assert (np.diff(curve.breakpoints) > 0).all()
    metrics = evaluate(scores, problem.labels, bias=bias)
    if metrics.seen_images and metrics.unseen_images:
        assert 0 <= metrics.auc <= metrics.best_seen * metrics.best_unseen + 1e-15
        assert metrics.best_hm <= min(2 * metrics.best_seen, 2 * metrics.best_unseen, 1) + 1e-15
        assert metrics.best_unseen <= metrics.unseen_cap
        if bias not in scores.margins:  # a bias at a margin is a tie, not an operating point
            assert metrics.at_bias.hm <= metrics.best_hm + 1e-15
