"""The study of score matrices, at a small size: what it compares is equal, and its lines say what it measured."""

from __future__ import annotations

import pytest

from benchmarks.studies import score_matrix


@pytest.mark.parametrize(("world", "dtype"), [("closed", "float32"), ("open", "float16")])
def test_what_is_judged_from_a_file_equals_evaluate_in_memory(tmp_path, world, dtype):
    path = tmp_path / "scores.npy"
    score_matrix.write_matrix(path, score_matrix.made("ut_zappos", 60), world, dtype)
    found = score_matrix.measure(path, "ut_zappos", 60, world, repeats=1)
    assert found["difference"] == 0
    assert (found["rows"], found["columns"], found["dtype"]) == (60, {"closed": 116, "open": 192}[world], dtype)
    lines = score_matrix.report(found).splitlines()
    assert lines[0].startswith(f"60 x {found['columns']} {dtype}")
    assert [line.partition(":")[0] for line in lines[4:]] == ["warm", "cold"]


def test_a_difference_is_seen(tmp_path):
    path, data = tmp_path / "scores.npy", score_matrix.made("ut_zappos", 60)
    score_matrix.write_matrix(path, data, "closed", "float32")
    matrix = score_matrix.open_matrix(path)
    order, _ = score_matrix.order_of(matrix, score_matrix.Files(path), data, "test", "closed")
    candidates, split = data.candidates("test"), data.splits["test"]
    scores, _ = score_matrix.score_matrix(matrix, order, candidates, split)
    score_matrix.write_matrix(path, data, "closed", "float16")  # rounded: other margins
    assert score_matrix.difference(matrix, order.columns, scores, data, "closed") > 0
