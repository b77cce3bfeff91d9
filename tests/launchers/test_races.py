"""The worst moments: signals and other commands that come between two steps of a command, a run or a job."""

from __future__ import annotations

import importlib._bootstrap as importing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forked import fork_run
from in_process import here
from jobs import TOY, signal_before
from report_records import make_run

from benchmarks.launchers import cancel, launched, local, slurm_job, states
from benchmarks.launchers.base import LaunchOptions, Watch
from benchmarks.launchers.inline import Inline
from benchmarks.launchers.job import LOG
from benchmarks.running.choices import Choices, How
from benchmarks.running.plan import plan_runs
from benchmarks.running.tracking import TrackedTrainer  # whose base class tests replace: it has to be there before
from benchmarks.running.workbench import Workbench
from benchmarks.runs import locks, reading
from benchmarks.runs.records import EPOCHS, ERROR, RESULT, RunFolder, find_runs
from benchmarks.runs.suites import RunRequest
from benchmarks.training import stopping
from errors import UserError
from methods.coop import CoOp
from registry import LAUNCHERS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")

SHORT = ("epochs=3", "batch_size=24", "augmentation=none")
COOP = ["--methods", "coop", "--set", "coop.epochs=1"]


def planned_of(toy, results, *, seeds=(0,), worlds=("closed",), **changes):
    """Plan runs of CSP in three short epochs; return them and their workbench."""
    choices = Choices(results=results, overrides=SHORT, how=How(device="cpu"), **changes)
    workbench = Workbench(choices, datasets={"toy": toy})
    asked = [RunRequest("csp", "toy", "tiny-icons", world, "clean", seed) for seed in seeds for world in worlds]
    return plan_runs(asked, workbench), workbench


class Heard(Watch):
    """Keeps the failures that a launcher tells."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def failed(self, name: str, message: str) -> None:
        self.failures.append(message)


class StopInEpoch3(Watch):
    """Asks for a stop when two of three epochs are done."""

    def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
        if what == "epoch 3 of 3":
            os.kill(os.getpid(), signal.SIGUSR1)


def stop_in_epoch_3(planned, workbench) -> int:
    with stopping.listening():
        return Inline(LaunchOptions()).launch(planned, workbench, StopInEpoch3())


def unfinished(folder: Path):
    """Make the record of a finished run, take its result away, and return it."""
    run = make_run(folder)
    (run.path / RESULT).unlink()
    return run


@pytest.fixture
def no_report(monkeypatch):
    """Reports that are asked for, in place of their making."""
    asked: list[object] = []
    monkeypatch.setattr("benchmarks.commands.run.show_report", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr("benchmarks.commands.run.show_failures", lambda *_: 0)
    return asked


def test_a_run_planned_before_another_process_began_it_goes_on_from_there(tmp_path, toy):
    planned, workbench = planned_of(toy, tmp_path)
    folder = planned[0].folder
    assert stop_in_epoch_3(*planned_of(toy, tmp_path)) == 128 + signal.SIGUSR1, "another process, meanwhile"
    assert folder.status == "interrupted" and len(folder.epochs()) == 2
    assert launched.free(planned, tmp_path, Watch()) == (planned, 0) and len(folder.epochs()) == 2
    assert stop_in_epoch_3(planned, workbench) == 128 + signal.SIGUSR1
    assert len(folder.read().starts) == 2, "a folder that was cleared has one"


def test_a_clearing_that_is_stopped_leaves_no_state_without_its_epochs(tmp_path, toy, monkeypatch):
    assert stop_in_epoch_3(*planned_of(toy, tmp_path)) == 128 + signal.SIGUSR1
    planned, workbench = planned_of(toy, tmp_path, on_existing="redo")
    unlink, glob = Path.unlink, Path.glob

    def epochs_first(path, pattern):  # a file system lists in any order
        return sorted(glob(path, pattern), key=lambda found: found.name != EPOCHS)

    def and_stop(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        if path.name == EPOCHS:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, stopping.listening():
        patch.setattr(Path, "glob", epochs_first)
        patch.setattr(Path, "unlink", and_stop)
        assert Inline(LaunchOptions()).launch(planned, workbench, Watch()) == 128 + signal.SIGTERM
    planned, workbench = planned_of(toy, tmp_path)  # as `resume_command` has it: without redo
    assert Inline(LaunchOptions()).launch(planned, workbench, Watch()) == 0
    assert [line["epoch"] for line in planned[0].folder.epochs()] == [0, 1, 2]


def test_a_run_cancelled_while_its_process_comes_up_is_not_done(toy_plugin, tmp_path, monkeypatch):
    said: list[cancel.Cancelled] = []

    def start(folder, *arguments, **more):
        said.extend(cancel.cancel(tmp_path))  # the pool has looked for the mark already
        return fork_run(folder, *arguments, **more)

    monkeypatch.setattr(local, "start_run", start)
    words = ["--methods", "clip_zero_shot", "--launcher", "local", "--jobs", "1", "--results", tmp_path]
    done = here("run", "--dataset", TOY, "--plugin", toy_plugin, *words, check=False)
    assert len(said) == 1 and "taken out of the queue" in said[0].message
    assert done.returncode == 3 and "was cancelled" in done.stderr and not list(tmp_path.glob("*/result.json"))


def test_two_that_look_at_a_time_do_not_take_each_other_for_a_run(tmp_path, toy, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 60.0)  # whatever else the machine does
    planned, _ = planned_of(toy, tmp_path)
    folder = planned[0].folder.path
    with locks.hold(folder):
        pass  # it was at work once
    for look in (lambda: locks.is_held(folder), lambda: launched.free(planned, tmp_path, Watch())[1] or None):
        looking = threading.Event()

        def other(looking=looking):  # between taking the lock and letting it go
            lock = locks.acquire(folder / locks.LOCK, 0)
            looking.set()
            time.sleep(0.1)
            lock.release()

        command = threading.Thread(target=other)
        command.start()
        looking.wait()
        assert look() is None
        command.join()


def test_a_run_that_ends_while_it_is_asked_about_is_done(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    (run.path / RESULT).rename(tmp_path / "result")
    is_held = states.is_held

    def ends(path):
        (tmp_path / "result").rename(path / RESULT)
        return is_held(path)

    monkeypatch.setattr(states, "is_held", ends)
    found = states.state_of(run.spec, run.path)
    assert (found.state, found.note) == ("done", "")


def test_a_failed_run_that_starts_again_while_it_is_read_is_readable(tmp_path, monkeypatch):
    run = unfinished(tmp_path)
    RunFolder(run.path).fail(RuntimeError("it broke"))
    status_of = reading.status_of

    def and_start(folder):
        found = status_of(folder)
        (folder / ERROR).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(reading, "status_of", and_start)
    runs, problems = find_runs(tmp_path)
    assert len(runs) == 1 and not problems


def test_a_job_taken_away_before_its_run_began_is_queued_again(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    run = unfinished(tmp_path)
    RunFolder(run.path).fail(RuntimeError("of the start before this one"))
    job = slurm_job.RunJob(str(run.path))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    asked = []

    def taken_away():  # submitit's handler asks
        asked.append(job.checkpoint())
        return 0

    monkeypatch.setattr(process, "poll", taken_away)
    monkeypatch.setattr(slurm_job, "start_run", lambda *_: process)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    job()
    assert asked != [None], "the same once more"


def test_the_reason_of_a_failure_is_of_this_start(tmp_path, toy, monkeypatch):
    assert TrackedTrainer
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.training.loop.Trainer", lambda *_: 1 / 0)
        assert Inline(LaunchOptions()).launch(*planned_of(toy, tmp_path), Watch()) == 1, "last week"
    code = "import sys; print('Error: The plugin plug.py is missing.'); sys.exit(2)"

    def ends_early(folder, *_, **__):
        with (folder / LOG).open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", code], stdout=log)

    monkeypatch.setattr(local, "start_run", ends_early)
    heard = Heard()
    LAUNCHERS.get("local")(LaunchOptions(jobs=1)).launch(*planned_of(toy, tmp_path), heard)
    assert len(heard.failures) == 1 and "plug.py is missing" in heard.failures[0]


def test_what_sbatch_has_taken_is_noted_before_a_stop(tmp_path, toy, monkeypatch):
    pytest.importorskip("submitit")
    (tmp_path / "sbatch").write_text(
        f'#!/bin/sh\ncase "$*" in *--test-only*) exit 0;; esac\n'
        f"echo Submitted batch job 7\ntouch {tmp_path}/submitted\nkill -TERM $PPID\nsleep 0.3\n"
    )
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    planned, workbench = planned_of(toy, tmp_path / "results", seeds=(0, 1))
    with pytest.raises(stopping.Stopped), stopping.listening():
        LAUNCHERS.get("slurm")(LaunchOptions()).launch(planned, workbench, Watch())
    notes = [launched.read(item.folder.path) for item in planned]
    assert (tmp_path / "submitted").exists() and [note and note.job for note in notes] == ["7_0", "7_1"]


def test_a_start_leaves_what_others_are_writing(tmp_path, monkeypatch):
    run = unfinished(tmp_path)
    launched.note(run.path, "slurm", "7")
    shutil.copy(run.path / launched.NOTE, run.path / ".launch.json.123.tmp")
    begun = run.path / ".epochs.jsonl.1.tmp"
    begun.touch()
    glob = Path.glob

    def and_renamed(path, pattern):
        found = list(glob(path, pattern))
        if pattern == ".*.tmp":
            (path / ".launch.json.123.tmp").replace(path / launched.NOTE)  # its writer is done with it
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", and_renamed)
        RunFolder(run.path).start(run.spec, provenance=run.provenance, command_line=[])
    assert not begun.exists(), "a killed start's own are removed"

    sync = os.fsync

    def and_start(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        sync(descriptor)
        RunFolder(run.path).start(run.spec, provenance=run.provenance, command_line=[])

    monkeypatch.setattr(os, "fsync", and_start)
    launched.mark_cancelled(run.path)
    note = launched.read(run.path)
    assert note is not None and note.cancelled


def test_cancel_while_the_second_world_of_a_training_is_evaluated(tmp_path, toy, monkeypatch):
    sent, found = [], []

    class Cancels(Watch):
        def done(self, name: str, record: object, seconds: float) -> None:
            if not found:
                found.extend(cancel.cancel(tmp_path))

    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    Inline(LaunchOptions()).launch(*planned_of(toy, tmp_path, worlds=("closed", "open")), Cancels())
    assert (os.getpid(), signal.SIGTERM) in sent and found and all(one.done for one in found)


def test_a_stop_in_the_last_moment_is_answered_before_the_report(toy_plugin, tmp_path, monkeypatch, no_report):
    monkeypatch.setattr(RunFolder, "finish", signal_before(RunFolder.finish))
    words = ["run", "--dataset", TOY, "--plugin", toy_plugin, *COOP, "--results", tmp_path]
    assert here(*words, check=False).returncode == 128 + signal.SIGTERM and not no_report
    assert len(list(tmp_path.glob("*/result.json"))) == 1, "and the run is done"


def test_a_stop_that_could_not_be_saved_is_one_all_the_same(toy_plugin, tmp_path, monkeypatch, no_report):
    def full(*_):
        raise UserError("The record state.pt cannot be written.", "No space left on device.", "Free space.")

    monkeypatch.setattr(CoOp, "after_step", signal_before(CoOp.after_step, signal.SIGUSR1))
    monkeypatch.setattr("benchmarks.training.resuming.write_state", full)
    words = ["run", "--dataset", TOY, "--plugin", toy_plugin, *COOP, "--results", tmp_path]
    assert here(*words, check=False).returncode == 128 + signal.SIGUSR1 and not no_report


def test_a_stop_that_python_swallows_can_be_asked_for_again(tmp_path, monkeypatch):
    """What is raised in a `__del__` or a weak reference's callback, of which each import has some, reaches nobody."""
    (tmp_path / "empty_module_of_races.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    own, sent = importing._imp, []

    class Imp:
        def __getattr__(self, name):
            return getattr(own, name)

        def acquire_lock(self):
            if sys._getframe(1).f_code.co_name == "cb" and not sent:  # the callback of the module's lock
                sent.append(1)
                os.kill(os.getpid(), signal.SIGTERM)  # before the lock is taken, which nobody would release
            own.acquire_lock()

    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    with stopping.listening():
        with monkeypatch.context() as patch:
            patch.setattr(importing, "_imp", Imp())
            __import__("empty_module_of_races")
        assert sent and [type(one.exc_value) for one in swallowed] == [stopping.Stopped]
        monkeypatch.setattr(stopping, "QUIET", 0.0)  # the time is over
        with pytest.raises(stopping.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_stop_as_soon_as_a_record_is_begun_is_recorded(failed_before, tmp_path, toy, monkeypatch):
    if failed_before:
        with monkeypatch.context() as patch:
            patch.setattr("benchmarks.training.loop.Trainer", lambda *_: 1 / 0)
            assert Inline(LaunchOptions()).launch(*planned_of(toy, tmp_path), Watch()) == 1
    planned, workbench = planned_of(toy, tmp_path)
    monkeypatch.setattr(RunFolder, "_write_spec", signal_before(RunFolder._write_spec))
    with stopping.listening():
        assert Inline(LaunchOptions()).launch(planned, workbench, Watch()) == 128 + signal.SIGTERM
    assert planned[0].folder.status == "interrupted"


def test_a_job_that_scancel_did_not_take_is_not_marked(tmp_path, monkeypatch):
    folder = unfinished(tmp_path).path
    launched.note(folder, "slurm", "7")

    def refuse(cls, root, job):
        raise UserError("SLURM cannot be asked.", "scancel does not answer.", "Try again.")

    slurm = LAUNCHERS.get("slurm")
    monkeypatch.setattr(slurm, "alive", classmethod(lambda cls, root, jobs: dict.fromkeys(jobs, "PENDING")))
    monkeypatch.setattr(slurm, "cancel", classmethod(refuse))
    with pytest.raises(UserError, match="scancel does not answer"):
        cancel.cancel(tmp_path)
    note = launched.read(folder)
    assert note is not None and not note.cancelled, "it waits in the queue: nobody may hand the run out again"


@pytest.mark.parametrize(("owner", "moment"), [(CoOp, "after_step"), (RunFolder, "finish")])
def test_a_redo_that_is_stopped_names_the_results_it_did_not_replace(
    owner, moment, toy_plugin, tmp_path, monkeypatch, no_report
):
    words = ["run", "--dataset", TOY, "--plugin", toy_plugin, *COOP, "--seeds", "0", "1", "--results", tmp_path]
    here(*words)
    monkeypatch.setattr(owner, moment, signal_before(getattr(owner, moment)))
    stopped = here(*words, "--on-existing", "redo", check=False)
    assert stopped.returncode == 128 + signal.SIGTERM and "Nothing is lost; go on with:" in stopped.stderr
    assert f"coop, {TOY}, seed 1: keeps its result of before" in stopped.stdout + stopped.stderr
