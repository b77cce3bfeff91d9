"""Optimizers: MSCI's own AdamW on golden values, and clipping of the gradient norm in the loop."""

from __future__ import annotations

import pytest
import torch

from benchmarks.training.optimizers import OPTIMIZERS, EarlyAdamW

GRADIENTS = ([0.5, 1e-5], [-0.2, 2e-5], [0.1, -1e-5])


def walk(make) -> list[list[float]]:
    """The places of two weights after each of three steps from 1."""
    weights = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = make([weights])
    places = []
    for gradient in GRADIENTS:
        weights.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        places.append(weights.tolist())
    return places


def test_early_adamw_on_golden_values():
    """Section 16.3 of MSCI's description."""
    expected = [[0.8991063178, 0.9749987180], [0.8636832155, 0.9340868897], [0.8249204831, 0.9148397538]]
    for place, golden in zip(walk(lambda p: EarlyAdamW(p, lr=0.1, weight_decay=0.01)), expected, strict=True):
        assert place == pytest.approx(golden, abs=1e-9)
    pytorchs = walk(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01, eps=1e-6))
    assert [place[1] for place in pytorchs] == pytest.approx([0.9080909, 0.8164050, 0.7763540], abs=1e-6)


def test_early_adamw_goes_on_from_its_state():
    whole = walk(lambda p: EarlyAdamW(p, lr=0.1, weight_decay=0.01))
    weights = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    first = EarlyAdamW([weights], lr=0.1, weight_decay=0.01)
    weights.grad = torch.tensor(GRADIENTS[0], dtype=torch.float64)
    first.step()
    second = EarlyAdamW([weights], lr=0.5)
    second.load_state_dict(first.state_dict())
    for gradient in GRADIENTS[1:]:
        weights.grad = torch.tensor(gradient, dtype=torch.float64)
        loss = second.step(lambda: torch.tensor(7.0))
    assert loss == 7.0
    assert weights.tolist() == whole[-1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_weight_without_gradient_stays(name):
    still, moved = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = OPTIMIZERS[name]([{"params": [still, moved], "lr": 0.1, "weight_decay": 0.1}])
    moved.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(still, torch.ones(3)) and (moved < 1).all()
