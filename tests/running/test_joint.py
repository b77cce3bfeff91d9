"""Runs of one training: their records are those of separate runs, however they were killed, stopped or begun."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from toy_runs import Killed

from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import Start, execute, execute_together
from benchmarks.running.joint import together
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs import checkpoints, locks
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.kill_loop import record
from benchmarks.training import judging
from errors import UserError
from registry import BACKBONES

OVERRIDES = ("epochs=2", "batch_size=24", "augmentation=none", "lr=3e-3")
SCORED = (None, "pair_score_only", "log_sum")


@pytest.fixture(scope="module")
def small(request):
    """A backbone with random weights, registered under a name of its own."""
    name = "tiny-joint"
    if name not in BACKBONES.names():
        BACKBONES.add(name, "toy_runs:make_backbone")
    return name


def requests_of(method, backbone, worlds=("closed",), ablations=(None,)):
    return [RunRequest(method, "toy", backbone, w, "clean", 3, a) for a in ablations for w in worlds]


CASES = {
    "worlds": ("csp", {"worlds": ("closed", "open")}, ()),
    "scores": ("troika", {"ablations": SCORED}, ("troika.traction_layers=1",)),
}


def plan(case, results, toy, backbone, more=(), **changes):
    method, asked, own = CASES[case]
    choices = Choices(results=results, overrides=(*OVERRIDES, *own, *more), how=How(device="cpu"), **changes)
    workbench = Workbench(choices, datasets={"toy": toy})
    return plan_runs(requests_of(method, backbone, **asked), workbench), workbench


def do(planned, workbench, report=None):
    """Do the runs as the inline launcher does and return what became of each."""
    settled = {}
    for runs in together(planned):
        start = Start(workbench, report, settled=lambda item, outcome: settled.update({item.spec.run_id: outcome}))
        execute_together(runs, start)
    return settled


@pytest.fixture(scope="module")
def separate(toy, small, tmp_path_factory):
    """What separate runs leave, by case."""
    found = {}
    for case in CASES:
        root = tmp_path_factory.mktemp(case)
        planned, workbench = plan(case, root, toy, small)
        for item in planned:
            execute(item, workbench)
        found[case] = record(root)
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_training_leaves_what_separate_ones_leave(case, tmp_path, toy, small, separate, monkeypatch):
    trained = []
    epoch = judging.Judge.record_epoch
    monkeypatch.setattr(
        judging.Judge, "record_epoch", lambda self, *a: (trained.append(self.spec.run_id), epoch(self, *a))
    )
    planned, workbench = plan(case, tmp_path, toy, small)
    assert [len(runs) for runs in together(planned)] == [len(planned)]
    outcomes = do(planned, workbench)
    assert not [one for one in outcomes.values() if isinstance(one, Exception)]
    assert len(trained) == 2 * len(planned), "each epoch is judged for every run"
    assert record(tmp_path) == separate[case]
    times = {tuple(line["train_seconds"] for line in item.folder.epochs()) for item in planned}
    assert len(times) == 1, "it was one training"
    assert planned[0].folder.read().environment["trained_with"] == [item.spec.run_id for item in planned[1:]]
    again, workbench = plan(case, tmp_path, toy, small)
    assert {item.action for item in again} == {"nothing"}


def test_killed_anywhere_and_resumed_it_leaves_the_same(tmp_path, toy, small, separate, monkeypatch):
    """The process ends before any write of a state, of best weights, of an epoch or of a result."""
    count = 0
    limit = None
    original = {name: getattr(checkpoints.files, name) for name in ("write_aside", "write_again", "append_line")}

    def counted(name):
        def write(path, *rest):
            nonlocal count
            count += 1
            if count == limit:
                raise Killed
            return original[name](path, *rest)

        return write

    for name in original:
        monkeypatch.setattr(checkpoints.files, name, counted(name))
    do(*plan("worlds", tmp_path / "whole", toy, small))
    writes = count
    assert record(tmp_path / "whole") == separate["worlds"]
    for point in range(3, writes + 1, 7):
        folder = tmp_path / f"killed-{point}"
        count, limit = 0, point
        with pytest.raises(Killed):
            do(*plan("worlds", folder, toy, small))
        limit = None
        do(*plan("worlds", folder, toy, small))
        assert record(folder) == separate["worlds"], f"killed at write {point} of {writes}"


def stopped_after_an_epoch(planned, workbench):
    def report(what, done, total, note):
        if what == "training":
            raise Killed

    with pytest.raises(Killed):
        do(planned, workbench, report)


def test_a_run_of_a_group_can_go_on_alone(tmp_path, toy, small, separate):
    planned, workbench = plan("worlds", tmp_path, toy, small)
    stopped_after_an_epoch(planned, workbench)
    first, second = (item.folder.path / "state.pt" for item in planned)
    assert first.samefile(second), "the state lies on the disk once"
    for item in reversed(plan("worlds", tmp_path, toy, small)[0]):
        assert item.action == "resume"
        execute(item, workbench)
        epochs = [line["epoch"] for line in item.folder.epochs()]
        assert epochs == [0, 1]
    assert record(tmp_path) == separate["worlds"]


def test_runs_at_different_places_are_done_apart_and_done_ones_are_left_alone(tmp_path, toy, small, separate):
    planned, workbench = plan("worlds", tmp_path, toy, small)
    stopped_after_an_epoch(planned[:1], workbench)
    first = planned[0].folder.path / "epochs.jsonl"
    before = first.read_bytes()
    do(*plan("worlds", tmp_path, toy, small))
    assert first.read_bytes().startswith(before), "the epoch that was there is not trained again"
    assert record(tmp_path) == separate["worlds"]
    planned[1].folder.clear()
    digest = hashlib.sha256((planned[0].folder.path / "spec.json").read_bytes()).digest()
    actions = [item.action for item in plan("worlds", tmp_path, toy, small)[0]]
    assert actions == ["nothing", "run"], "the one that is missing is done, and no other"
    do(*plan("worlds", tmp_path, toy, small))
    assert hashlib.sha256((planned[0].folder.path / "spec.json").read_bytes()).digest() == digest
    assert record(tmp_path) == separate["worlds"]


@pytest.mark.parametrize("broken", [0, 1])
def test_a_run_that_fails_leaves_the_others_alone(broken, tmp_path, toy, small, separate, monkeypatch):
    planned, workbench = plan("worlds", tmp_path, toy, small)
    metrics, calls = judging.Judge.epoch_metrics, []

    def breaks(self):
        if self.spec.run_id == planned[broken].spec.run_id:
            calls.append(1)
            if len(calls) == 2:
                raise UserError("It broke.", "In its second epoch.", "Mend it.")
        return metrics(self)

    monkeypatch.setattr(judging.Judge, "epoch_metrics", breaks)
    outcomes = do(planned, workbench)
    failed, whole = planned[broken], planned[1 - broken]
    assert isinstance(outcomes[failed.spec.run_id], UserError)
    assert json.loads((failed.folder.path / "error.json").read_text())["message"].startswith("It broke.")
    assert failed.folder.status == "failed" and whole.folder.status == "done"
    monkeypatch.setattr(judging.Judge, "epoch_metrics", metrics)
    do(*plan("worlds", tmp_path, toy, small))
    assert len(failed.folder.epochs()) == 2
    assert record(tmp_path) == separate["worlds"]


def test_a_run_that_somebody_is_at_is_left_out(tmp_path, toy, small):
    planned, workbench = plan("worlds", tmp_path, toy, small, more=("epochs=1",))
    with locks.hold(planned[0].folder.path):
        outcomes = do(planned, workbench)
    assert isinstance(outcomes[planned[0].spec.run_id], locks.Held)
    assert outcomes[planned[1].spec.run_id].status == "done"


def test_what_changes_training_is_not_joined(tmp_path, toy, small):
    choices = Choices(results=tmp_path, how=How(device="cpu"))
    workbench = Workbench(choices, datasets={"toy": toy})
    asked = requests_of("troika", small, ablations=(None, "log_sum", "no_dropout", "pair_only"))
    asked += [replace(asked[0], seed=4), replace(asked[0], profile="official"), replace(asked[0], method="csp")]
    groups = [[item.spec.ablation for item in runs] for runs in together(plan_runs(asked, workbench))]
    assert groups == [[None, "log_sum"], ["no_dropout"], ["pair_only"], [None], [None], [None]]
