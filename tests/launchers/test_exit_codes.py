"""What every launcher keeps to: the exit code says whether runs are left to others; and how far a pool is."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from benchmarks.launchers import local
from benchmarks.launchers.base import LaunchOptions, Watch
from benchmarks.running.choices import Choices, How
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.locks import hold
from benchmarks.runs.suites import RunRequest
from benchmarks.training import stopping
from registry import LAUNCHERS

SCHEDULERS = {"slurm": "submitit"}
"""Launchers that hand runs over, and the library that they need for it."""


class Heard(Watch):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.far: list[tuple[int, int]] = []
        self.finished: list[str] = []

    def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
        if name == "all runs":
            self.far.append((done, total))

    def done(self, name: str, record: object, seconds: float) -> None:
        self.finished.append(name)

    def left_out(self, name: str, message: str) -> None:
        self.left.append(message)


@pytest.fixture
def runs(toy, tmp_path):
    """Two runs, and what does them."""
    workbench = Workbench(Choices(results=tmp_path / "results", how=How(device="cpu")), datasets={"toy": toy})
    asked = [RunRequest("clip_zero_shot", "toy", "tiny-icons", "closed", "clean", seed) for seed in (0, 1)]
    return plan_runs(asked, workbench), workbench


@pytest.mark.parametrize("held", [1, 2])
@pytest.mark.parametrize("name", ["inline", "local", "slurm"])
def test_runs_that_others_are_at_give_exit_code_3(name, held, runs, tmp_path, monkeypatch):
    planned, workbench = runs
    if name in SCHEDULERS:
        pytest.importorskip(SCHEDULERS[name])
        (tmp_path / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")
        (tmp_path / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    else:  # what the free one would do is tested elsewhere
        held = 2
    heard = Heard()
    with ExitStack() as others:
        for item in planned[:held]:
            item.folder.path.mkdir(parents=True)
            others.enter_context(hold(item.folder.path))
        assert LAUNCHERS.get(name)(LaunchOptions()).launch(planned, workbench, heard) == 3
    assert len(heard.left) == held


class Process:
    """Ends with a code as soon as it is asked to stop, or at once."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.code = 128 + number


def pool_of(ends, tmp_path, monkeypatch):
    """A pool of one place whose runs end with these codes, None for one that works until it is stopped."""
    heard = Heard()
    pool = local._Pool([{}], "own", heard)
    groups = []
    for number, code in enumerate(ends):
        folder = SimpleNamespace(path=tmp_path, status="done" if code == 0 else "partial", read=lambda: None)
        spec = SimpleNamespace(method="csp", ablation=None, dataset="toy", seed=number, run_id=f"csp-{number}")
        groups.append([SimpleNamespace(spec=spec, folder=folder, end=code)])

    def start(place, own):
        pool.running[place] = local._AtWork(own, Process(own[0].end), None, 0.0)

    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(local, "TICK", 0.0)
    return pool, groups, heard


def test_runs_that_a_stop_keeps_from_beginning_are_not_counted_as_done(tmp_path, monkeypatch):
    pool, groups, heard = pool_of([0, None, 0, 0], tmp_path, monkeypatch)
    monkeypatch.setattr(stopping, "requested", lambda: signal.SIGTERM if len(heard.far) > 2 else None)
    assert pool.run(groups) == 128 + signal.SIGTERM
    assert max(heard.far) == (1, 4) and len(heard.finished) == 1


def test_the_log_of_a_run_that_is_done_is_not_read(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(local, "reason", lambda folder, code, log: asked.append(code) or "why")
    pool, groups, heard = pool_of([0, 1, 3, 0], tmp_path, monkeypatch)
    assert pool.run(groups) == 1
    assert heard.far[-1] == (4, 4) and asked == [1, 3]
