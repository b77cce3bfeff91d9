"""The estimate of memory against what is used: every storage of a real step, and the process as the system sees it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from toy_runs import CONFIG, CPU, SMALL, make_backbone

from benchmarks.cost.labels import label_space
from benchmarks.running import memory_estimate
from benchmarks.running.choices import Choices, How
from benchmarks.running.fake_tensors import Alive
from benchmarks.running.memory_estimate import estimate, memory_table, spread_out
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.resolution import resolve
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from methods.base import Batch
from registry import METHODS

EXECUTION = dataclasses.replace(CPU, eval_batch=8, pair_chunk=2048)


def build(name, toy, backbone=SMALL):
    method_class = METHODS.get(name)
    config = method_class.Config.model_validate(resolve(name, method_class.Config, "icon_states").method)
    return method_class(make_backbone(backbone), toy.vocabulary, config)


def candidates(toy):
    return {phase: toy.candidates(phase) for phase in ("train", "test")}


def real_step(method, toy, images: torch.Tensor):
    pairs = torch.zeros(len(images), dtype=torch.int64)
    batch = Batch(pairs, pairs, pairs, images=images)
    method.train()
    return lambda: method.training_loss(batch, toy.candidates("train")).total.backward()


@pytest.mark.parametrize("name", METHODS.names())
def test_an_estimate_is_what_a_real_step_keeps_alive(name, toy):
    settings = TrainingConfig(batch_size=32, epochs=1)
    found = estimate(build(name, toy), settings, EXECUTION, candidates(toy))
    method = build(name, toy)
    assert found.weights == sum(p.numel() * 4 for p in method.parameters()) + sum(
        b.numel() * b.element_size() for b in method.buffers()
    )
    if not method.trained():
        assert (found.gradients, found.optimizer, found.training) == (0, 0, 0)
        assert found.total == found.weights + found.evaluation
        return
    images = torch.zeros(32, 3, 32, 32)
    with Alive([*method.parameters(), *method.buffers(), images]) as alive:
        real_step(method, toy, images)()
    assert found.training + found.gradients == pytest.approx(alive.fullest + images.nbytes, rel=0.02)
    assert found.optimizer == 2 * found.gradients == 8 * sum(p.numel() for p in method.trained().values())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak")
@pytest.mark.parametrize("name", ["csp", "msci"])
def test_an_estimate_is_within_a_factor_of_two_of_the_process(name, toy):
    from benchmarks.studies.savings import peak, reset_peak

    images = {"csp": 512, "msci": 128}[name]
    found = estimate(build(name, toy, CONFIG), TrainingConfig(batch_size=images, epochs=1), EXECUTION, candidates(toy))
    method = build(name, toy, CONFIG)
    before = reset_peak("cpu")
    real_step(method, toy, torch.zeros(images, 3, 64, 64))()
    used = peak("cpu") - before
    assert used > 50e6, "there is something to measure"
    assert used / 2 < found.training + found.gradients < used * 2


def test_what_saves_memory_is_seen(toy):
    sizes = {}
    for label, settings, precision, recompute in (
        ("plain", {}, "fp32", False),
        ("micro-batch", {"micro_batch": 8}, "fp32", False),
        ("half", {}, "bf16", False),
        ("recompute", {}, "fp32", True),
    ):
        method = build("troika", toy)
        method.backbone.recompute = recompute
        execution = dataclasses.replace(EXECUTION, precision=precision)
        config = TrainingConfig(batch_size=32, epochs=1, **settings)
        sizes[label] = estimate(method, config, execution, candidates(toy)).training
    assert sizes["micro-batch"] < 0.5 * sizes["plain"]
    assert sizes["half"] < 0.9 * sizes["plain"]
    assert sizes["recompute"] < 0.8 * sizes["plain"]


def test_many_candidates_are_estimated_from_some_of_them(monkeypatch):
    """An open world of 28,175 pairs, followed as a whole and by a seventh of it."""
    labels = label_space("mit_states").dataset
    found = []
    for followed in (4096, 1 << 30):
        monkeypatch.setattr(memory_estimate, "FOLLOWED", followed)
        pairs = {phase: labels.candidates(phase, "open") for phase in ("train", "test")}
        found.append(estimate(build("csp", labels), TrainingConfig(epochs=0), EXECUTION, pairs).evaluation)
    assert found[1] / 2 < found[0] < found[1] * 2


@pytest.mark.parametrize("number", [1, 1000])
def test_a_part_of_the_candidates_has_every_primitive(number):
    labels = label_space("cgqa").dataset
    every = labels.candidates("test", "open")
    part = spread_out(every, number)
    assert len(set(part.states)) == len(labels.vocabulary.states)
    assert len(set(part.objects)) == len(labels.vocabulary.objects)
    assert number <= len(part) <= number + len(labels.vocabulary.states) + len(labels.vocabulary.objects)
    places = part.states * len(labels.vocabulary.objects) + part.objects
    assert (places[1:] > places[:-1]).all(), "in order, and none twice"


def test_the_table_has_a_row_for_each_world(toy, tmp_path, monkeypatch):
    """The open world has more candidates than the closed one, whatever comes first in the plan."""
    seen = []

    def followed(method, config, execution, candidates):
        seen.append(len(candidates["test"]))

    monkeypatch.setattr(memory_estimate, "estimate", followed)
    workbench = Workbench(Choices(results=tmp_path, how=How(device="cpu")), datasets={"toy": toy})
    asked = [
        RunRequest("csp", "toy", "tiny-icons", world, "clean", seed) for seed in (0, 1) for world in ("closed", "open")
    ]
    rows = memory_table(plan_runs(asked, workbench), workbench)
    assert [row[:3] for row in rows] == [
        ("csp", "toy, closed", "tiny-icons"),
        ("csp", "toy, open", "tiny-icons"),
    ]
    assert seen == [len(toy.candidates("test", world)) for world in ("closed", "open")]
