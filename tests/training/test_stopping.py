"""Clean stops: at the next step, with everything saved, and no step taken twice."""

from __future__ import annotations

import os
import signal

import pytest
from toy_runs import make_backbone, make_trainer, numbers, without_times

from benchmarks.runs import checkpoints
from benchmarks.training import stopping
from benchmarks.training.stopping import Stopped, resume_command
from methods.csp import CSP
from methods.troika import Troika, TroikaConfig


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def stop_at(point: int):
    """A report that asks for a stop when it is called for the `point`-th time, from 0."""
    calls = 0

    def report(*_: object) -> None:
        nonlocal calls
        if calls == point:
            stopping.request(signal.SIGTERM)
        calls += 1

    return report


@pytest.mark.parametrize("augmentation", ["clip", "none"])
def test_a_run_stopped_anywhere_goes_on_where_it_was(tmp_path, toy, backbone, monkeypatch, augmentation):
    """Without augmentation the batches come from kept features."""
    steps = []
    after_step = CSP.after_step
    monkeypatch.setattr(CSP, "after_step", lambda method: steps.append(1) or after_step(method))
    settings = {"epochs": 2, "augmentation": augmentation}
    whole = make_trainer(tmp_path / "whole", toy, backbone, **settings)
    expected = numbers(whole.run())
    assert len(steps) == 2 * 3
    for point in range(2 * (3 + 1) + 1):  # three steps and a closing word an epoch; then the evaluation begins
        folder = tmp_path / f"stopped-{point}"
        steps.clear()
        with stopping.listening():
            stopped = make_trainer(folder, toy, backbone, report=stop_at(point), **settings)
            with pytest.raises(Stopped) as stop:
                stopped.run()
            assert stop.value.exit_code == 143
            assert stopped.where["epochs"] * 48 + stopped.where["images"] == 16 * len(steps)
        again = make_trainer(folder, toy, backbone, **settings)
        assert numbers(again.run()) == expected, f"stopped at report {point}"
        assert len(steps) == 2 * 3, "no step was taken twice"
        assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
        assert (folder / checkpoints.BEST).read_bytes() == (tmp_path / "whole" / checkpoints.BEST).read_bytes()


@pytest.mark.parametrize("augmentation", ["clip", "none"])
def test_a_stop_before_the_first_step(tmp_path, toy, backbone, augmentation):
    """Without augmentation it falls into the computation of the features that are kept."""
    settings = {"epochs": 1, "augmentation": augmentation}
    expected = numbers(make_trainer(tmp_path / "whole", toy, backbone, **settings).run())
    trainer = make_trainer(tmp_path / "stopped", toy, backbone, **settings)
    with stopping.listening():
        stopping.request(signal.SIGTERM)
        with pytest.raises(Stopped):
            trainer.run()
    assert trainer.where == {"epochs": 0, "images": 0}
    again = make_trainer(tmp_path / "stopped", toy, backbone, **settings)
    assert numbers(again.run()) == expected
    best = [(tmp_path / name / checkpoints.BEST).read_bytes() for name in ("stopped", "whole")]
    assert best[0] == best[1]


def test_a_stop_between_micro_batches_takes_the_step_back(tmp_path, toy, backbone, monkeypatch):
    """Troika draws (dropout) and keeps statistics (BatchNorm) in each micro-batch: both are put back."""
    settings = {"method": Troika, "config": TroikaConfig(), "epochs": 1, "micro_batch": 4}
    expected = numbers(make_trainer(tmp_path / "whole", toy, backbone, **settings).run())
    trainer = make_trainer(tmp_path / "stopped", toy, backbone, **settings)
    compute, calls = trainer.method.training_loss, []

    def ask(batch, candidates):
        calls.append(len(batch))
        if len(calls) == 7:
            stopping.request(signal.SIGINT)
        return compute(batch, candidates)

    monkeypatch.setattr(trainer.method, "training_loss", ask)
    with stopping.listening(), pytest.raises(Stopped, match="Ctrl-C"):
        trainer.run()
    assert trainer.where == {"epochs": 0, "images": 16} and len(calls) == 7
    assert numbers(make_trainer(tmp_path / "stopped", toy, backbone, **settings).run()) == expected


def test_a_signal_stops_at_once_or_when_checked():
    before = signal.getsignal(signal.SIGINT)  # a shell that starts this behind itself has it ignored
    with stopping.listening(), stopping.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.requested() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # a wrapper passed it on once more
        with pytest.raises(Stopped, match="SIGTERM"):
            stopping.check()
    assert stopping.requested() is None
    with stopping.listening(), pytest.raises(Stopped) as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_is_answered_once(monkeypatch):
    """A scheduler signals a run, and so does the job around it: what is saved meanwhile is not disturbed."""
    monkeypatch.setattr(stopping, "IMPATIENCE", float("inf"))  # a slow machine is not impatient
    for number in stopping.SIGNALS:
        with stopping.listening():
            with pytest.raises(Stopped) as stop, stopping.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                stopping.check()
            os.kill(os.getpid(), number)  # no longer deferred
            assert stop.value.word == "SIGTERM"
            with pytest.raises(Stopped):
                stopping.check()
        with stopping.listening(), stopping.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        with stopping.listening(), pytest.raises(Stopped):  # listening anew
            os.kill(os.getpid(), number)


def test_a_second_signal_that_finds_the_first_unanswered_stops_at_once():
    with stopping.listening():
        with stopping.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_only_an_impatient_second_ctrl_c_stops_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "IMPATIENCE", float("inf"))  # a slow machine is not impatient
    with stopping.listening(), stopping.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(stopping, "IMPATIENCE", -1.0)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_loader_that_dies_of_the_signal_is_a_stop():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
    with stopping.listening(), stopping.deferred():
        stopping.request(signal.SIGTERM)
        assert isinstance(stopping.cause(error), Stopped)
        other = RuntimeError("something else")
        assert stopping.cause(other) is other


def test_the_command_that_goes_on_leaves_out_what_would_undo_it():
    start = ["bench.py", "run", "--set", "csp.lr=1e-3", "--results", "my results"]
    expected = "python bench.py run --set csp.lr=1e-3 --results 'my results'"
    assert resume_command(start) == expected
    assert resume_command([*start, "--on-existing=redo"]) == expected
    assert resume_command([*start, "--on-existing", "skip"]) == expected
    assert resume_command(["/usr/bin/czsl-bench", "run"]) == "czsl-bench run"
