"""The script that measures savings: both variants of each run, on a small backbone of random weights."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.studies import savings

OPTIONS = argparse.Namespace(backbone="tiny-icons", pairs=260, images=3, repeats=1, device="cpu")


def test_the_problem_has_every_word():
    method, candidates, batch = savings.problem(OPTIONS, "csp")
    assert len(candidates) == 260 and len(batch) == 3
    assert set(candidates.states) == set(range(115)) and set(candidates.objects) == set(range(245))
    assert method.info.name == "csp"


@pytest.mark.parametrize("name", ["prefix_train", "query_once", "memory_once", "chunked_scores", "recompute_msci"])
def test_both_variants_can_be_measured(name):
    for saved in (False, True):
        found = savings.measure(OPTIONS, name, saved)
        assert found["seconds"] > 0 and found["bytes"] >= 0


def test_the_table_has_a_row_for_each(monkeypatch, capsys, tmp_path):
    numbers = {False: {"seconds": 3.0, "bytes": 4e6}, True: {"seconds": 2.0, "bytes": 1e6}}
    monkeypatch.setattr(savings, "in_own_process", lambda name, saved: numbers[saved])
    monkeypatch.setattr("sys.argv", ["savings", "--only", "query_once", "--json", str(tmp_path / "s.json")])
    monkeypatch.setenv("COLUMNS", "100")
    savings.main()
    shown = capsys.readouterr().out
    assert "1.50" in shown and "4.00" in shown
    assert json.loads((tmp_path / "s.json").read_text())["query_once"]["with"] == numbers[True]
