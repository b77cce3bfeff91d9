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
            steps: dict[int, list[Tensor]] = {}  # those that have taken as many go together, one operation for all
            for parameter in group["params"]:
                if parameter.grad is not None:
                    steps.setdefault(self._begun(parameter), []).append(parameter)
            for step, parameters in steps.items():
                self._update(parameters, step, group)
        return loss

    def _begun(self, parameter: Tensor) -> int:
        """Return the number of the step that a parameter is about to take."""
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        return state["step"]

    def _update(self, parameters: list[Tensor], step: int, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = ([self.state[parameter][name] for parameter in parameters] for name in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        size = group["lr"] * math.sqrt(1 - second**step) / (1 - first**step)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, group["eps"])
        torch._foreach_addcdiv_(parameters, means, divisors, -size)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])


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
