"""Runs side by side by default: how many, in which order, and how far each of them is."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from in_process import here
from jobs import TOY
from rich.console import Console

from benchmarks.commands import launching, printer
from benchmarks.launchers import side_by_side
from benchmarks.launchers.base import LaunchOptions, Watch
from benchmarks.launchers.inline import Inline
from benchmarks.launchers.local import Local
from benchmarks.launchers.telling import LONGEST, VARIABLE, Listener, teller
from benchmarks.training import stopping


def planned(*methods: str, epochs: int = 2, action: str = "run", backbone: str = "tiny-icons", world: str = "closed"):
    """Runs as far as their order and their number read them."""
    specs = [
        SimpleNamespace(
            method=name,
            training=SimpleNamespace(epochs=epochs),
            backbone=backbone,
            dataset_digest="d",
            backbone_digest=backbone,
            world=world,
        )
        for name in methods
    ]
    return [SimpleNamespace(spec=spec, dataset="some", action=action) for spec in specs]


def bench_of(device: str = "cpu", threads: int = 1, elsewhere: bool = False, images: int = 10):
    dataset = SimpleNamespace(splits={"train": range(images)})
    choices = SimpleNamespace(threads=threads, elsewhere=elsewhere)
    return SimpleNamespace(device=torch.device(device), choices=choices, dataset=lambda name: dataset)


def test_the_longest_runs_begin():
    runs = planned("clip_zero_shot", "csp", "somebody_elses", "troika", "msci")
    runs += planned("csp", epochs=1000)
    ordered = [item.spec.method for (item,) in side_by_side.longest_first([[run] for run in runs], bench_of())]
    assert ordered == ["csp", "troika", "msci", "somebody_elses", "csp", "clip_zero_shot"]


@pytest.mark.parametrize(
    ("cores", "runs", "workbench", "count"),
    [
        (8, 3, bench_of(), 3),
        (2, 7, bench_of(), 2),
        (8, 7, bench_of(threads=4), 2),
        (2, 7, bench_of(threads=4), 1),
        (8, 1, bench_of(), 1),
        (8, 7, bench_of("cuda"), 1),
        (8, 7, bench_of(elsewhere=True), 1),
    ],
)
def test_as_many_as_there_are_cores(monkeypatch, cores, runs, workbench, count):
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    monkeypatch.setattr(side_by_side, "free_memory", lambda: None)
    monkeypatch.setattr("benchmarks.running.joint.together", lambda runs: [[run] for run in runs])
    items = planned(*["csp"] * runs) + planned("csp", "csp", action="nothing")
    assert side_by_side.at_once(items, workbench) == count
    launch = launching.Launch()
    chosen = launching.fastest_here(launch, Inline(LaunchOptions()), items, workbench)
    assert (chosen.name, chosen.options.jobs) == (("local", count) if count > 1 else ("inline", None))
    asked = launching.fastest_here(launching.Launch(launcher="inline"), Inline(LaunchOptions()), items, workbench)
    assert asked.name == "inline"
    assert isinstance(launching.launcher_of(launching.Launch(jobs=2), ()), Local)


def test_memory_limits_how_many(monkeypatch):
    needs = {"csp": 1_000_000_000, "msci": 5_000_000_000, "troika": None}
    estimates = []

    def estimate(item, workbench):
        estimates.append(item.spec.method)
        need = needs[item.spec.method]
        return None if need is None else SimpleNamespace(total=need)

    monkeypatch.setattr("benchmarks.running.memory_estimate.estimate_run", estimate)
    runs = [[run] for run in planned("csp", "csp", "msci", "troika", backbone="ViT-B-32")]
    assert side_by_side.fitting(runs, bench_of(), 4, 100_000_000_000) == 4
    assert sorted(estimates) == ["csp", "msci", "troika"], "seeds of a method are estimated once"
    assert side_by_side.fitting(runs, bench_of(), 4, 8_500_000_000) == 2  # 6 + 2 + 2 + 1
    assert side_by_side.fitting(runs, bench_of(), 4, 1_000_000_000) == 1
    assert side_by_side.fitting(runs, bench_of(), 3, None) == 3
    estimates.clear()
    assert side_by_side.fitting([[run] for run in planned("csp", "msci")], bench_of(), 2, 4_000_000_000) == 2
    assert not estimates, "the embedded backbone needs no estimate where there is room"


def test_a_training_takes_what_the_largest_of_its_runs_does(monkeypatch):
    """One that is judged in both worlds holds the candidates of the open one too."""
    needs = {"closed": 1_000_000_000, "open": 5_000_000_000}
    monkeypatch.setattr(
        "benchmarks.running.memory_estimate.estimate_run",
        lambda item, workbench: SimpleNamespace(total=needs[item.spec.world]),
    )
    worlds = [planned(*["csp"] * 4, backbone="ViT-B-32", world=world) for world in ("closed", "open")]
    alone = [[run] for run in worlds[0]]
    joint = [list(runs) for runs in zip(*worlds, strict=True)]
    found = [side_by_side.fitting(groups, bench_of(), 4, 13_000_000_000) for groups in (alone, joint)]
    assert found == [4, 2]


def test_a_containers_limits_count(monkeypatch, tmp_path):
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(side_by_side, "MEMORY", memory)
    monkeypatch.setattr(side_by_side, "CGROUP", tmp_path)
    monkeypatch.setattr(side_by_side, "usable_cpus", lambda: 64)
    assert (side_by_side.cores(), side_by_side.free_memory()) == (64, 4_096_000)
    for name, text in (("cpu.max", "250000 100000"), ("memory.max", "3000"), ("memory.current", "1000")):
        (tmp_path / name).write_text(text)
    assert (side_by_side.cores(), side_by_side.free_memory()) == (2, 2000)
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000" if name == "cpu.max" else "max")
    assert (side_by_side.cores(), side_by_side.free_memory()) == (64, 4_096_000)
    monkeypatch.setattr(side_by_side, "MEMORY", tmp_path / "none")
    assert side_by_side.free_memory() is None


class Heard(Watch):
    """Remembers what it is told."""

    def __init__(self):
        self.said = []

    def progress(self, *values):
        self.said.append(values)

    def notice(self, *values):
        self.said.append(values)


def test_what_a_run_tells_comes_to_who_started_it(monkeypatch):
    monkeypatch.setattr("benchmarks.launchers.telling.PAUSE", 3600.0)
    listener, heard = Listener(), Heard()
    monkeypatch.setenv(VARIABLE, listener.variables[VARIABLE])
    told = teller()
    assert told is not None and VARIABLE not in os.environ, "it is for this process alone"
    told.progress("a", "epoch 1", 1, 9, "loss 3")
    told.progress("a", "epoch 1", 2, 9, "loss 2")  # too fast for a reader
    told.notice("a", "Something “odd”.")
    listener.pass_on(heard)
    assert heard.said == [("a", "Something “odd”."), ("a", "epoch 1", 1, 9, "loss 3")]
    told.progress("a", "epoch 1", 9, 9, "loss 1")
    told.notice("a", "x" * LONGEST)  # left out
    for number in range(2000):  # more than a pipe holds: nobody waits
        told.progress("a", f"epoch {number}", 1, 9, "y" * 100)
    listener.close(heard)
    assert len(heard.said) == 3 and len(heard.said[-1]) == 5
    assert stopping.requested() is None
    with stopping.listening():
        told.notice("a", "nobody reads")
        assert stopping.requested() == signal.SIGTERM, "a run whose starter is gone saves what it has and stops"
    os.close(listener.theirs)
    monkeypatch.setenv(VARIABLE, "987")
    assert teller() is None


def test_bars_fit_eighty_columns():
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    with printer.progress_bars(console) as bars:
        watch = printer.Printer(bars, visible=True)
        watch.progress("refiner_style, icon_states, seed 0", "epoch 1 of 4", 1280, 4871, "loss 3.210")
        watch.progress("msci, icon_states, seed 0", "image features of val", 1, 930, "")
        watch.progress("all runs", "done", 3, 7, "2 at work")
        shown = console.render_lines(bars.get_renderable(), pad=False)
        lines = ["".join(part.text for part in line).rstrip() for line in shown]
        watch.failed("msci, icon_states, seed 0", "No.")
        assert len(bars.tasks) == 2
    assert [len(line) <= 80 for line in lines] == [True] * 3
    assert "epoch 1 of 4" in lines[0] and lines[0].endswith("loss 3.210") and "1280/4871" in lines[0]
    assert "image features of val" in lines[1] and "3/7" in lines[2] and lines[2].endswith("2 at work")


def test_two_cores_do_two_runs_at_a_time_by_default(toy_plugin, tmp_path, monkeypatch, no_estimates, forked_runs):
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    monkeypatch.setattr(side_by_side, "free_memory", lambda: None)  # not known, so no limit
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--results", tmp_path]
    assert "2 runs, 2 at a time" in here(*arguments, "--seeds", "0", "1", "--dry-run").stdout
    assert "at a time" not in here(*arguments, "--dry-run").stdout
    assert "at a time" not in here(*arguments, "--seeds", "0", "1", "--launcher", "inline", "--dry-run").stdout
    done = here(*arguments, "--seeds", "0", "1")
    assert done.stderr.count("AUC") == 2 and "Results" in done.stdout
    starts = [json.loads(path.read_text())["starts"][-1] for path in Path(tmp_path).glob("*/spec.json")]
    assert [start["environment"]["launcher"] for start in starts] == ["local", "local"]
