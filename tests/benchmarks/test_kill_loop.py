"""Runs that are killed at many random moments end as if nothing had been."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_runs import make_backbone, make_trainer

from benchmarks import kill_loop
from benchmarks.checkpoints import BEST, forget_state


@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
def test_runs_killed_at_random_moments_end_byte_equal(tmp_path, toy):
    backbone = make_backbone()

    def work(results: Path, report: kill_loop.Report) -> None:
        if not (results / "run/result.json").is_file():
            trainer = make_trainer(results / "run", toy, backbone, report=report, batch_size=8)
            trainer.folder.finish(trainer.run())
        forget_state(results / "run")

    outcome = kill_loop.kill_loop(work, tmp_path, kills=24, seed=3, start_method="fork")
    assert outcome.differences == []
    assert len(outcome.kills) == 24
    assert outcome.runs >= 1 and outcome.writes > 20
    assert len(set(outcome.kills)) >= 6, "the kills hit different places"
    assert any(place.startswith("epoch") for place in outcome.kills), "some hit steps"
    assert any(place.startswith("writing") for place in outcome.kills), "some hit writes"
    assert {f"run/{name}" for name in ("spec.json", "epochs.jsonl", "result.json", "scores.npz", BEST)} == {
        name for name in kill_loop.record(tmp_path / "whole") if "lock" not in name
    }


def test_a_difference_is_found(tmp_path):
    def work(results: Path, report: kill_loop.Report) -> None:
        folder = results / "run"
        folder.mkdir(parents=True, exist_ok=True)
        starts = len(list(folder.iterdir()))
        kill_loop.files.write_aside(folder / f"{starts}", lambda file: file.write(b"begun"))
        kill_loop.files.write_aside(folder / "last", lambda file: file.write(b"done"))

    outcome = kill_loop.kill_loop(work, tmp_path, kills=2, seed=1, start_method="fork")
    assert outcome.differences, "a run that was begun twice has one file more"
