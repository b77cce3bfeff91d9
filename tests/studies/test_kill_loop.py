"""Runs that are killed at many random moments end as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path

import pytest
import toy_runs
from forked import start_server

from benchmarks.runs import files
from benchmarks.runs.checkpoints import BEST
from benchmarks.studies import kill_loop

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def start_method():
    """Children are forked from a server that has torch already: this process may not fork once it has used autograd."""
    method = start_server()
    # The loop takes the time of its first process for that of a run: the server's imports are no part of it.
    first = multiprocessing.get_context(method).Process(target=os.getpid)
    first.start()
    first.join()
    return method


def test_runs_killed_at_random_moments_end_byte_equal(tmp_path, toy, start_method):
    outcome = kill_loop.kill_loop(partial(toy_runs.whole_run, toy), tmp_path, 14, seed=3, start_method=start_method)
    assert outcome.differences == []
    assert len(outcome.kills) == 14
    assert outcome.runs >= 1 and outcome.writes > 15
    assert len(set(outcome.kills)) >= 4, "the kills hit different places"
    assert any(place.startswith("writing") for place in outcome.kills), "some hit writes"
    names = ("spec.json", "epochs.jsonl", "result.json", "scores.npz", BEST)
    assert kill_loop.record(tmp_path / "whole").keys() == {f"run/{name}" for name in names}


def grow(results: Path, report: kill_loop.Report) -> None:
    """A run that does not end as it would have without a kill: each start leaves a file."""
    folder = results / "run"
    folder.mkdir(parents=True, exist_ok=True)
    starts = len(list(folder.iterdir()))
    for name in (str(starts), "last"):
        files.write_aside(folder / name, lambda file: file.write(b"done"))


def fail(results: Path, report: kill_loop.Report) -> None:
    raise ValueError("a run that fails by itself")


def test_a_difference_is_found(tmp_path, start_method):
    outcome = kill_loop.kill_loop(grow, tmp_path, 2, seed=1, start_method=start_method)
    assert outcome.differences, "a run that was begun twice has one file more"


def test_a_run_that_fails_by_itself_is_not_taken_for_killed(tmp_path, start_method):
    with pytest.raises(RuntimeError, match="failed with exit code 1"):
        kill_loop.kill_loop(fail, tmp_path, 2, seed=1, start_method=start_method)
