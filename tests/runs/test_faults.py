"""Full disks, damaged checkpoints, old records: nothing finished is lost, and the message says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_runs import make_backbone, make_trainer, numbers, without_times

from benchmarks.evaluation.selection import SELECTIONS
from benchmarks.report.writing import read_report
from benchmarks.runs.checkpoints import BEST, PREVIOUS, STATE
from errors import UserError

OLD = Path(__file__).parents[1] / "golden/records"


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy, backbone):
    """An unbroken run: its folder before its state is forgotten, and its result."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole") / "run", toy, backbone)
    result = trainer.run()
    trainer.folder.finish(result)
    return trainer.folder.path, numbers(result), without_times(trainer.folder.epochs())


class Stop(BaseException):
    """Stands for a process that ends without another word."""


def run_to(trainer, epoch: int) -> None:
    """Train until `epoch` epochs are done, and end there without another word."""

    def end(what: str, done: int, total: int, note: str) -> None:
        if what == "training" and done == epoch:
            raise Stop

    trainer.report = end
    with pytest.raises(Stop):
        trainer.run()


def finish(trainer) -> str:
    result = trainer.run()
    trainer.folder.finish(result)
    return numbers(result)


def test_a_disk_that_is_full_at_any_write_loses_nothing(tmp_path, toy, backbone, monkeypatch):
    whole = make_trainer(tmp_path / "whole", toy, backbone, epochs=2, batch_size=48)
    expected = finish(whole)
    sync, writes = os.fsync, []

    def full(descriptor: int) -> None:
        writes.append(descriptor)
        if len(writes) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    fails_at, failures = 0, 0
    while True:
        fails_at += 1
        writes.clear()
        folder = tmp_path / f"full-{fails_at}"
        try:
            finish(make_trainer(folder, toy, backbone, epochs=2, batch_size=48))
        except UserError as error:
            failures += 1
            assert str(folder) in str(error) and "No space left on device. Free space there" in str(error)
            assert not list(folder.glob(".*.tmp")), "a temporary file would keep the disk full"
            if (folder / "result.json").is_file():
                break  # all of it was written
            again = make_trainer(folder, toy, backbone, epochs=2, batch_size=48)
            assert finish(again) == expected, f"write {fails_at}"
            assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
            assert (folder / BEST).read_bytes() == (whole.folder.path / BEST).read_bytes()
            assert "notices" not in again.folder.read().starts[-1], "nothing was damaged"
    assert failures > 15, "each of the files is written, and some several times"


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content[len(content) * 2 // 3] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_state_is_told_and_the_one_before_is_taken(tmp_path, toy, backbone, whole, how):
    run_to(make_trainer(tmp_path / "run", toy, backbone), 2)
    damage(tmp_path / "run" / STATE, how)
    again = make_trainer(tmp_path / "run", toy, backbone)
    told = []
    again.surroundings = replace(again.surroundings, notify=told.append)
    assert finish(again) == whole[1]
    assert without_times(again.folder.epochs()) == whole[2]
    (message,) = told
    assert message.startswith("state.pt is damaged: its SHA-256 is not the one it was written with")
    assert message.endswith("Training goes on after epoch 1; the numbers will be the same.")
    assert again.folder.read().starts[-1]["notices"] == told


def test_without_a_whole_state_training_begins_anew(tmp_path, toy, backbone, whole):
    run_to(make_trainer(tmp_path / "run", toy, backbone), 2)
    for name in (STATE, PREVIOUS):
        damage(tmp_path / "run" / name, "flipped")
    again = make_trainer(tmp_path / "run", toy, backbone)
    assert finish(again) == whole[1]
    assert without_times(again.folder.epochs()) == whole[2]
    assert "Training begins anew" in again.folder.read().starts[-1]["notices"][0]


@pytest.mark.parametrize(("selection", "how"), [("last", "flipped"), ("first", "gone")])
def test_damaged_best_weights_are_found_before_they_count(tmp_path, toy, backbone, monkeypatch, how, selection):
    """They are taken from a state that holds them: the latest, or not at all where the best epoch lies back."""
    monkeypatch.setitem(SELECTIONS, "last", lambda metrics, loss, epoch: epoch * sign)
    sign = 1.0 if selection == "last" else -1.0
    expected = numbers(make_trainer(tmp_path / "whole", toy, backbone, selection="last").run())
    for done in (1, 2, 3):
        folder = tmp_path / f"run-{done}"
        run_to(make_trainer(folder, toy, backbone, selection="last"), done)
        (folder / BEST).unlink() if how == "gone" else damage(folder / BEST, how)
        again = make_trainer(folder, toy, backbone, selection="last")
        assert numbers(again.run()) == expected
        assert (folder / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
        notices = again.folder.read().starts[-1].get("notices", [])
        if selection == "last" or done == 1:
            assert notices == [], "the latest state held them"
        else:
            place = "goes on after epoch 1" if done == 2 else "begins anew"
            assert len(notices) == 1 and BEST in notices[0] and place in notices[0]


def test_best_weights_that_are_lost_in_the_last_moment_are_a_user_error(tmp_path, toy, backbone, whole):
    trainer = make_trainer(tmp_path / "run", toy, backbone)

    def lose(what: str, done: int, total: int, note: str) -> None:
        if what == "training" and done == total:
            damage(tmp_path / "run" / BEST, "flipped")

    trainer.report = lose
    with pytest.raises(UserError, match=r"were lost while it trained.*SHA-256.*Start the run again"):
        trainer.run()
    assert finish(make_trainer(tmp_path / "run", toy, backbone)) == whole[1]


def test_a_state_of_an_older_release_begins_anew(tmp_path, toy, backbone, whole):
    run_to(make_trainer(tmp_path / "run", toy, backbone), 1)
    torch.save({"progress": {"next_epoch": 1}}, tmp_path / "run" / STATE)
    again = make_trainer(tmp_path / "run", toy, backbone)
    assert finish(again) == whole[1]


def test_a_record_of_an_older_schema_is_kept_and_the_report_is_made(tmp_path, whole):
    shutil.copytree(OLD / "schema_0", tmp_path / "old")
    shutil.copytree(whole[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    report = read_report(tmp_path)
    report.write()
    assert [run.run_id for run in report.runs] == [report.runs[0].run_id]
    assert "is of schema version 0. This release reads version 1." in report.path.read_text()
    assert {path: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
