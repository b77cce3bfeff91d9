"""Runs in this process: a failure names the file that tells of it, where there is one."""

from __future__ import annotations

import pytest

from benchmarks.launchers.base import LaunchOptions, Watch
from benchmarks.launchers.inline import Inline
from benchmarks.running.choices import Choices, How
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.records import ERROR
from benchmarks.runs.suites import RunRequest


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
