"""Optimizers and learning-rate schedules by the names that settings use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, StepLR

from benchmarks.runs.spec import TrainingConfig
from methods.base import Method


class EarlyAdamW(torch.optim.Optimizer):
    """AdamW as libraries of language models had it, which MSCI's released code uses on UT-Zappos.

    With gradient g, step k from 1 and betas b1, b2:

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        p <- p - lr sqrt(1 - b2^k) / (1 - b1^k) * m / (sqrt(v) + eps)
        p <- p - lr weight_decay p

    PyTorch's AdamW corrects v before it adds epsilon; here epsilon weighs as much as eps / sqrt(1 - b2^k), which is 32
    times eps in the first step, and small gradients move less. The decay comes last and on the moved weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]  # torch overloads it
        """Take one step; `closure`, if given, computes the loss anew and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(parameter.grad, 1 - first)
        state["square"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
        size = group["lr"] * math.sqrt(1 - second ** state["step"]) / (1 - first ** state["step"])
        parameter.addcdiv_(state["mean"], state["square"].sqrt().add_(group["eps"]), value=-size)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "early_adamw": EarlyAdamW,
}


def make_optimizer(method: Method, config: TrainingConfig) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Return the optimizer over the method's parameter groups, and its schedule, which steps once an epoch."""
    optimizer = OPTIMIZERS[config.optimizer](method.parameter_groups(config.lr, config.weight_decay))
    step_size, gamma = (config.step_size, config.gamma) if config.scheduler == "step" else (1, 1.0)
    return optimizer, StepLR(optimizer, step_size, gamma)
