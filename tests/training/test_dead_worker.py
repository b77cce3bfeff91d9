"""A decoding process that dies ends a run with a sentence, wherever in the run torch speaks of it."""

from __future__ import annotations

import json

import pytest

from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.suites import RunRequest
from benchmarks.training.loop import Trainer
from datasets.loaders import DeadWorker


def test_it_is_recorded_in_words_when_it_comes_out_of_a_signal_handler(toy, tmp_path, monkeypatch):
    """torch raises from the handler of SIGCHLD, so the error appears in whatever line is being computed."""

    def die(trainer):
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. ")

    monkeypatch.setattr(Trainer, "train", die)
    workbench = Workbench(Choices(results=tmp_path, how=How(device="cpu")), datasets={"toy": toy})
    (planned,) = plan_runs([RunRequest("csp", "toy", "tiny-icons", "closed", "clean", 0)], workbench)
    with pytest.raises(DeadWorker, match="--workers 0"):
        execute(planned, workbench)
    error = json.loads((planned.folder.path / "error.json").read_text())
    assert "A process that decodes images died" in error["message"]
