"""Break-downs: sums that must agree with the headline numbers, and small cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_problems import random_problem

from benchmarks.evaluation.breakdowns import calibration, error_kinds, macro_accuracies, slice_accuracies
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import accuracies_at_bias, evaluate

EXACT = {"rel": 1e-12, "abs": 1e-12, "nan_ok": True}


def test_slices_add_up_to_the_whole() -> None:
    for seed in range(40):
        problem = random_problem(seed)
        scores, labels = problem.scores, problem.labels
        kind = np.random.default_rng(seed).choice(["local", "global"], len(scores))
        rows = slice_accuracies(scores, labels, {"kind": kind, "all": np.full(len(scores), "x")}, bias=0.3)
        whole, metrics = accuracies_at_bias(scores, labels, 0.3), evaluate(scores, labels)
        by_group = {row.group: row for row in rows if row.tag == "all"}
        assert [by_group["seen"].own_pair, by_group["unseen"].own_pair] == pytest.approx(
            [metrics.best_seen, metrics.best_unseen], **EXACT
        )
        assert [by_group["seen"].pair, by_group["unseen"].state, by_group["seen"].object] == pytest.approx(
            [whole.seen_pair, whole.unseen_state, whole.seen_object], **EXACT
        )
        parts = [row for row in rows if row.tag == "kind"]
        assert sum(row.images for row in parts) == len(scores)
        for name in ("pair", "state", "object"):
            total = sum(row.images * getattr(row, name) for row in parts if row.images)
            assert total / len(scores) == pytest.approx(getattr(whole, name), **EXACT)
        assert all(np.isnan(row.own_pair) for row in parts if row.images == 0)


def test_a_tag_of_another_length_is_refused() -> None:
    problem = random_problem(3)
    with pytest.raises(ValueError, match="the tag 'kind'"):
        slice_accuracies(problem.scores, problem.labels, {"kind": np.zeros(len(problem.scores) + 1)})


def test_error_kinds_by_hand() -> None:
    # Columns: 0 red cat (seen), 1 red dog (unseen), 2 wet dog (unseen), 3 wet cat (unseen); every image is a red dog.
    matrix = [[0, 9, 1, 1], [9, 1, 0, 0], [0, 1, 9, 0], [0, 1, 0, 9]]
    scores = ImageScores.from_matrix(np.array(matrix), np.array([True, False, False, False]), np.ones(4, dtype=int))
    labels = Labels([0, 0, 1, 1], [0, 1, 1, 0], np.zeros(4), np.ones(4))
    kinds = error_kinds(scores, labels)
    assert (kinds.right, kinds.object_wrong, kinds.state_wrong, kinds.both_wrong) == (0.25, 0.25, 0.25, 0.25)
    assert (kinds.taken_by_seen, kinds.taken_by_unseen) == (0.25, 0.5)
    assert error_kinds(scores, labels, bias=100.0).taken_by_seen == 0


def test_error_kinds_agree_with_the_accuracies() -> None:
    for seed in range(1, 90, 3):  # without ties
        problem = random_problem(seed)
        kinds = error_kinds(problem.scores, problem.labels, bias=0.2)
        whole = accuracies_at_bias(problem.scores, problem.labels, 0.2)
        if kinds.images == 0:
            assert np.isnan(kinds.right)
            continue
        assert kinds.right + kinds.object_wrong == pytest.approx(whole.unseen_state, **EXACT)
        assert kinds.right + kinds.state_wrong == pytest.approx(whole.unseen_object, **EXACT)
        assert kinds.right + kinds.state_wrong + kinds.object_wrong + kinds.both_wrong == pytest.approx(1, **EXACT)
        assert kinds.taken_by_seen + kinds.taken_by_unseen == pytest.approx(1 - kinds.right, **EXACT)


def test_macro_accuracy_gives_every_pair_one_vote() -> None:
    # Pair 0 (seen): three of four right; pair 1 (seen): its one image wrong; pair 2 (unseen): right.
    matrix = [[5, 0, 0]] * 3 + [[0, 5, 0]] + [[5, 0, 0]] + [[0, 0, 5]]
    scores = ImageScores.from_matrix(np.array(matrix), np.array([True, True, False]), np.array([0, 0, 0, 0, 1, 2]))
    labels = Labels([0, 1, 2], [0, 0, 0], [0, 0, 0, 0, 1, 2], np.zeros(6))
    macro = macro_accuracies(scores, labels)
    assert (macro.seen_pairs, macro.unseen_pairs, macro.seen, macro.unseen) == (2, 1, 0.375, 1.0)
    assert macro.hm == pytest.approx(2 * 0.375 / 1.375, **EXACT)
    assert np.isnan(macro_accuracies(scores.subset(scores.is_seen), labels.subset(scores.is_seen)).hm)


def test_calibration_equals_a_softmax_over_the_matrix() -> None:
    for seed in (1, 2, 4, 5, 7):
        problem, bias = random_problem(seed), 0.4
        biased = problem.masked.astype(np.float64) + np.where(problem.seen, 0, bias)
        possible = np.isfinite(biased.max(axis=1))
        with np.errstate(invalid="ignore"):
            softmax = np.exp(biased - biased.max(axis=1, keepdims=True))
            confidence = np.where(possible, softmax.max(axis=1) / softmax.sum(axis=1), 0)
        right = (biased.argmax(axis=1) == problem.true_columns) & possible
        ours = calibration(problem.scores, bias=bias)
        gaps = [
            (len(part), right[part].mean() - confidence[part].mean())
            for part in np.array_split(np.argsort(confidence, kind="stable"), 15)
            if len(part)
        ]
        assert ours.error == pytest.approx(sum(n * abs(gap) for n, gap in gaps) / len(right), rel=1e-6, abs=1e-6)
        assert ours.signed == pytest.approx(right.mean() - confidence.mean(), rel=1e-6, abs=1e-6)
        assert ours.counts.sum() == len(right)
        assert ours.counts.max() - ours.counts.min() <= 1


def test_calibration_of_nothing_is_undefined_and_of_certainty_is_perfect() -> None:
    scores = ImageScores.from_matrix(np.array([[100.0, 0.0]] * 4), np.array([True, False]), np.zeros(4, dtype=int))
    assert calibration(scores).error == pytest.approx(0, abs=1e-12)
    assert np.isnan(calibration(scores.subset(np.zeros(4, dtype=bool))).error)
