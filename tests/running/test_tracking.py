"""`--track tensorboard`: what is drawn is what was computed, each step once, and the run is the same run."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from toy_runs import Killed

from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.tracking import FOLDER
from benchmarks.running.workbench import Workbench
from benchmarks.runs.suites import RunRequest
from errors import UserError


class StandIn:
    """What `SummaryWriter` does, in memory: a start purges the steps from `purge_step` on."""

    points: dict[str, dict[int, list[float]]]

    def __init__(self, log_dir: str, purge_step: int) -> None:
        for steps in self.points.values():
            for step in [step for step in steps if step >= purge_step]:
                del steps[step]

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.setdefault(name, {}).setdefault(step, []).append(value)

    def flush(self) -> None:
        pass

    close = flush


def drawn_by_tensorboard(folder) -> dict[str, dict[int, list[float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLDER)).Reload()
    points: dict[str, dict[int, list[float]]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            points.setdefault(name, {}).setdefault(event.step, []).append(event.value)
    return points


def stand_in(monkeypatch) -> type[StandIn]:
    """Have curves drawn in memory, as if tensorboard were installed."""
    writer = type("Writer", (StandIn,), {"points": {}})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "tensorboard" else found(name))
    return writer


def do(results, toy, track, report=None):
    choices = Choices(
        results=results,
        epochs=2,
        overrides=("batch_size=16", "scheduler=step", "step_size=1"),
        how=How(device="cpu", feature_cache=False, track=track),
    )
    workbench = Workbench(choices, datasets={"toy": toy})
    (planned,) = plan_runs([RunRequest("csp", "toy", "tiny-icons", "closed", "clean", 0)], workbench)
    return execute(planned, workbench, report)


def killed_in(epoch: str):
    def report(what: str, done: int, total: int, note: str) -> None:
        if what.startswith(epoch) and done >= 32:
            raise Killed

    return report


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory):
    """The run without curves."""
    return do(tmp_path_factory.mktemp("plain"), toy, None)


@pytest.mark.parametrize("real", [False, True])
def test_each_step_is_drawn_once_whatever_came_in_between(real, plain, toy, tmp_path, monkeypatch):
    if real:
        pytest.importorskip("tensorboard")
    else:
        writer = stand_in(monkeypatch)
    for epoch in ("epoch 1", "epoch 2"):
        with pytest.raises(Killed):
            do(tmp_path, toy, "tensorboard", killed_in(epoch))
    run = do(tmp_path, toy, "tensorboard")
    points = drawn_by_tensorboard(run.path) if real else writer.points
    steps = -(-len(toy.splits["train"]) // 16)
    assert steps > 2 and list(points["train/loss"]) == list(points["train/lr"]) == list(range(1, 2 * steps + 1))
    assert all(len(values) == 1 for of_name in points.values() for values in of_name.values())
    sizes = [min(16, len(toy.splits["train"]) - 16 * step) for step in range(steps)]
    for epoch, record in enumerate(run.epochs):
        losses = [points["train/loss"][epoch * steps + step + 1][0] for step in range(steps)]
        mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        assert mean == pytest.approx(record["losses"]["total"], rel=1e-5)
        for name, value in record["val"].items():
            assert points[f"val/{name}"][(epoch + 1) * steps] == [pytest.approx(value, rel=1e-6)]
    first, last = points["train/lr"][1][0], points["train/lr"][2 * steps][0]
    assert last == pytest.approx(first / 2), "the scheduler halves it after the first epoch"
    same = {"run_id", "selection", "metrics", "slices", "calibration"}
    assert run.finished.model_dump_json(include=same) == plain.finished.model_dump_json(include=same)
    assert (run.path / "best.safetensors").read_bytes() == (plain.path / "best.safetensors").read_bytes()


def test_a_package_that_is_not_there_is_told_before_anything_is_done(toy, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(UserError, match="--track tensorboard needs the package tensorboard"):
        do(tmp_path, toy, "tensorboard")
    assert not list(tmp_path.glob("*/*"))


def test_another_name_is_refused():
    with pytest.raises(UserError, match="'wandb'"):
        How(track="wandb")
