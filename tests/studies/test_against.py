"""The study that measures this build beside another commit: a child of this build, and what is made of the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies.against import __main__ as study
from benchmarks.studies.against.builds import ROOT, alternately, checkout, commands
from errors import UserError


def test_a_child_measures_each_round():
    job = {"kind": "evaluation", "method": "csp", "backbone": "tiny-icons", "labels": "icon_states", "batch": 2}
    job |= {"precision": "fp32", "compiled": False, "threads": 1, "cores": []}
    (rounds,) = alternately([(ROOT, job)], rounds=2, warmup=0)
    assert len(rounds) == 2
    assert all(0 < one["image"] < one["image with text"] for one in rounds)
    assert all(one["image cpu"] > 0 for one in rounds)


def test_ratios_are_taken_round_by_round():
    row = study.row("step", [1.0, 2.0, 9.0], [2.0, 2.0, 3.0])
    assert (row["ratio"], row["least"], row["most"], row["this"], row["other"]) == (1.0, 0.5, 3.0, 2.0, 2.0)
    table = study.shown([row, study.row("step memory", [3e9], [4e9])], "said")
    assert "| step | 2 s | 2 s | 1.000 | 0.500 to 3.000 | 3 |" in table
    assert "| step memory | 3 GB | 4 GB | 0.750 | 0.750 to 0.750 | 1 |" in table
    assert study.row("step memory", [0.0], [0.0])["ratio"] is None


def test_this_build_is_asked_for_both_worlds_at_once():
    here = study.run_lines("worlds", True, Path("r"), 2)
    there = study.run_lines("worlds", False, Path("r"), 2)
    assert [line[-3:] for line in here] == [["--worlds", "closed", "open"]]
    assert [line[-2:] for line in there] == [["--world", "closed"], ["--world", "open"]]
    assert study.run_lines("default", True, Path("r"), 0) == [["run", "--results", "r"]]
    (line,) = study.run_lines("switches", False, Path("r"), 0, "split.csv")
    assert line[-4:] == ["--epochs", "1", "--dataset", "split.csv"]


def test_each_build_decides_on_its_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (tmp_path / "bench.py").write_text("import os, sys; sys.exit('OMP_NUM_THREADS' in os.environ)")
    assert commands(tmp_path, [["run"]], [], tmp_path)["wall"] > 0


def test_an_unknown_commit_is_told():
    with pytest.raises(UserError, match="no commit 'nosuch'"), checkout("nosuch"):
        pass
