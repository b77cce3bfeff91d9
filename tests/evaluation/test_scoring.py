"""Scoring in chunks against the record of the full matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_problems import random_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from table_method import TableMethod, batches_of, candidates_of

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.scoring import score_images
from benchmarks.evaluation.topk import exact_topk_curve, topk_curve
from errors import UserError


def assert_same(ours: ImageScores, wanted: ImageScores) -> None:
    for name, values in wanted.to_arrays().items():
        if name.startswith("logsumexp"):  # summed in single precision, in another order
            np.testing.assert_allclose(getattr(ours, name), values, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.integers(1, 50))
def test_any_chunks_and_batches_give_the_record_of_the_matrix(seed: int, chunk: int, batch: int) -> None:
    problem = random_problem(seed)
    method = TableMethod()
    batches = batches_of(problem.matrix, problem.true_columns, batch)
    ours = score_images(method, batches, candidates_of(problem.seen), pair_chunk=chunk)
    assert_same(ours, problem.scores)
    chunks = -(-len(problem.seen) // chunk)
    assert method.calls == {"prepare": 1, "encode": len(batches), "score": len(batches) * chunks}


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_ties_across_chunks_and_chunks_of_one_group(chunk: int) -> None:
    seen = np.array([True, True, False, False, True, False])
    matrix = np.array([[5, 1, 7, 7, 5, 7], [1, 5, 2, 7, 5, 7]], dtype=np.float32)
    record = score_images(TableMethod(), batches_of(matrix, [4, 5], 2), candidates_of(seen), pair_chunk=chunk)
    assert record.ties.tolist() == [2, 2]
    assert record.correct.tolist() == [0.5, 0.5]
    assert (record.seen_winner.tolist(), record.unseen_winner.tolist()) == ([0, 1], [2, 3])
    assert_same(record, ImageScores.from_matrix(matrix, seen, np.array([4, 5])))


def test_chunking_changes_nothing_at_a_larger_size() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(25, 5, (64, 500))).astype(np.float16).astype(np.float32)  # half precision makes ties
    seen, truth = rng.random(500) < 0.6, rng.integers(-1, 500, 64)
    wanted = ImageScores.from_matrix(matrix, seen, truth)
    for chunk in (1, 7, 64, 499, 500, 10_000):
        ours = score_images(TableMethod(), batches_of(matrix, truth, 16), candidates_of(seen), pair_chunk=chunk)
        assert_same(ours, wanted)


def test_scores_of_other_precision_become_float32() -> None:
    problem = random_problem(8)
    batches = batches_of(problem.matrix, problem.true_columns, 8)
    double = score_images(TableMethod(torch.float64), batches, candidates_of(problem.seen))
    assert_same(double, problem.scores)
    half = score_images(TableMethod(torch.bfloat16), batches, candidates_of(problem.seen))
    rounded = torch.from_numpy(problem.matrix).bfloat16().float().numpy()
    assert_same(half, ImageScores.from_matrix(rounded, problem.seen, problem.true_columns))


def test_modes_are_restored_module_by_module_even_after_an_error() -> None:
    problem = random_problem(8)
    method = TableMethod().train()
    method.frozen.eval()
    score_images(method, batches_of(problem.matrix, problem.true_columns, 8), candidates_of(problem.seen))
    assert method.training and method.backbone.training and not method.frozen.training
    with pytest.raises(ValueError, match="at least 1"):
        score_images(method, [], candidates_of(problem.seen), pair_chunk=0)
    with pytest.raises(UserError):
        score_images(method, batches_of([[np.nan, 0.0]], [0], 1), candidates_of([True, False]))
    assert method.training and not method.frozen.training


def test_prepared_and_encoded_input_is_used_as_it_is() -> None:
    problem, method = random_problem(8), TableMethod()
    candidates = candidates_of(problem.seen)
    prepared = method.prepare(candidates)
    batches = [method.encode(batch) for batch in batches_of(problem.matrix, problem.true_columns, 8)]
    before = dict(method.calls)
    assert_same(score_images(method, iter(batches), candidates, prepared=prepared), problem.scores)
    assert (method.calls["prepare"], method.calls["encode"]) == (before["prepare"], before["encode"])
    with pytest.raises(ValueError, match="other candidates"):
        score_images(method, batches, candidates_of(np.append(problem.seen, True)), prepared=prepared)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_nan_and_infinity_name_the_method_and_the_image(bad: float, column: int) -> None:
    matrix = np.zeros((5, 3), dtype=np.float32)
    matrix[3, column] = bad
    with pytest.raises(UserError, match=r"'table' gave scores that are NaN or infinite.*1 of the 2.*image 3.*float32"):
        score_images(TableMethod(), batches_of(matrix, [0] * 5, 2), candidates_of([True, False, True]), pair_chunk=1)


def test_no_batches_give_an_empty_record_and_bad_shapes_are_refused() -> None:
    candidates = candidates_of([True, False])
    assert len(score_images(TableMethod(), [], candidates)) == 0
    with pytest.raises(ValueError, match="table scored 1 images against 2 candidates"):
        score_images(TableMethod(), batches_of([[1.0]], [0], 1), candidates)
    with pytest.raises(ValueError, match="has the pair 2"):
        score_images(TableMethod(), batches_of([[1.0, 2.0]], [2], 1), candidates)
    with pytest.raises(ValueError, match="0 candidates"):
        score_images(TableMethod(), [], candidates_of([]))


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_what_is_kept_for_top_k_gives_the_curve_of_the_matrix(chunk: int) -> None:
    for seed in range(60):
        problem = random_problem(seed)
        batches = batches_of(problem.masked, problem.true_columns, 7)
        record = score_images(TableMethod(), batches, candidates_of(problem.seen), pair_chunk=chunk, top=4)
        record = ImageScores.from_arrays(record.to_arrays())  # as a file has it
        for topk in (1, 2, 3, 4):
            ours = topk_curve(record, topk)
            slow = exact_topk_curve(problem.masked, problem.seen, problem.true_columns, topk)
            for name in ("breakpoints", "seen_right", "unseen_right"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(slow, name))
        assert len(record.subset(record.is_seen).top_others[0]) == record.is_seen.sum()


def test_a_record_serves_only_what_it_keeps() -> None:
    problem = random_problem(3)
    batches = batches_of(problem.matrix, problem.true_columns, 7)
    with pytest.raises(ValueError, match="keeps nothing for top-k"):
        topk_curve(score_images(TableMethod(), batches, candidates_of(problem.seen)), 1)
    with pytest.raises(ValueError, match="serves k from 1 to 2, not 3"):
        topk_curve(score_images(TableMethod(), batches, candidates_of(problem.seen), top=2), 3)
    none = score_images(TableMethod(), [], candidates_of(problem.seen), top=2)
    assert none.top_others is not None and none.top_others.shape == (2, 0), "a process without images has the fields"
