"""Runs in this process: a failure names the file that tells of it, a stop is recorded whatever comes on top of it."""

from __future__ import annotations

import json
import os
import signal

import pytest
from jobs import signal_before

from benchmarks.launchers.base import LaunchOptions, Watch
from benchmarks.launchers.inline import Inline
from benchmarks.running.choices import Choices, How
from benchmarks.running.doing import Doing
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.records import ERROR, INTERRUPTED, RunFolder
from benchmarks.runs.suites import RunRequest
from benchmarks.training import stopping


@pytest.mark.parametrize(
    ("broken", "recorded"),
    [
        ("benchmarks.running.doing.capture_environment", False),  # before the record begins
        ("benchmarks.training.loop.Trainer", True),
    ],
)
def test_a_failure_names_its_file_where_there_is_one(broken, recorded, tmp_path, toy, monkeypatch):
    class Heard(Watch):
        def failed(self, name: str, message: str) -> None:
            said.append(message)

    def breaks(*arguments, **keywords):
        raise RuntimeError("it broke")

    said: list[str] = []
    workbench = Workbench(Choices(results=tmp_path, how=How(device="cpu")), datasets={"toy": toy})
    planned = plan_runs([RunRequest("csp", "toy", "tiny-icons", "closed", "clean", 0)], workbench)
    monkeypatch.setattr(broken, breaks)
    assert Inline(LaunchOptions()).launch(planned, workbench, Heard()) == 1
    file = planned[0].folder.path / ERROR
    assert file.is_file() == recorded
    assert said == ["RuntimeError: it broke." + f" See {file}." * recorded]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("owner", "place"), [(Doing, "_interrupt"), (RunFolder, "interrupt"), (RunFolder, "fail")])
def test_signals_on_top_of_a_stop_leave_its_record(owner, place, tmp_path, toy, monkeypatch):
    """The first comes within a step; more come as soon as it is taken up, and while it, or a failure, is recorded."""

    class Asked(Watch):
        def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
            if what.startswith("epoch"):
                if place == "fail":
                    raise RuntimeError("it broke")
                os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(owner, place, signal_before(getattr(owner, place)))
    workbench = Workbench(Choices(results=tmp_path, how=How(device="cpu")), datasets={"toy": toy})
    planned = plan_runs([RunRequest("csp", "toy", "tiny-icons", "closed", "clean", 0)], workbench)
    expected = signal.SIGTERM if place == "fail" else signal.SIGUSR1
    with stopping.listening():
        assert Inline(LaunchOptions()).launch(planned, workbench, Asked()) == 128 + expected
    record = json.loads((planned[0].folder.path / INTERRUPTED).read_text())
    assert record["by"] == expected.name and planned[0].folder.status == "interrupted"
