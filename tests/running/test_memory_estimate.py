"""The estimate of memory against what is used: every storage of a real step, and the process as the system sees it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from toy_runs import CONFIG, CPU, SMALL, make_backbone

from benchmarks.running.fake_tensors import Alive
from benchmarks.running.memory_estimate import estimate
from benchmarks.runs.resolution import resolve
from benchmarks.runs.spec import TrainingConfig
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
