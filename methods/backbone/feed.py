"""The MLP of a CLIP block, with fewer operations and less kept for backward where it is frozen and has QuickGELU.

open_clip writes QuickGELU as x * sigmoid(1.702 x), four operations on the widest tensor of a block, of which backward
keeps two results. With a = 1.702 it is SiLU(a x) / a. The factors a and 1 / a are put on the narrow tensors before and
after it, a quarter as wide, so the weights stay CLIP's own; and in backward no factor is left, for the derivative is
SiLU'(a x). What is kept is a x. The weights are frozen: they get no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from methods.backbone.products import linear, product

SLOPE = 1.702
"""The constant a of QuickGELU."""


def feed(mlp: nn.Sequential, tokens: Tensor) -> Tensor:
    """Return what a block's MLP makes of tokens [..., width].

    Any other MLP than two linear maps with an activation between them is computed by its own forward.
    """
    if len(mlp) != 3:
        return mlp(tokens)
    first, activation, second = mlp
    if type(first) is not nn.Linear or type(second) is not nn.Linear:
        return mlp(tokens)
    weights = (first.weight, first.bias, second.weight, second.bias)
    if not _is_quick(activation) or any(weight is None or weight.requires_grad for weight in weights):
        return linear(activation(linear(tokens, first.weight, first.bias)), second.weight, second.bias)
    kind = tokens.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # tensors without numbers have none
        tokens = tokens.to(torch.get_autocast_dtype(kind))
    return _Feed.apply(tokens.flatten(0, -2), *weights).view(*tokens.shape[:-1], -1)


def _is_quick(activation: nn.Module) -> bool:
    from open_clip.transformer import QuickGELU

    return type(activation) is QuickGELU


class _Feed(torch.autograd.Function):
    """Two linear maps with QuickGELU between them, for tokens [rows, width]."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, widen: Tensor, widen_bias: Tensor, narrow: Tensor, bias: Tensor) -> Tensor:
        first, first_bias, second, second_bias = (part.to(tokens.dtype) for part in (widen, widen_bias, narrow, bias))
        widened = product(tokens * SLOPE, first, first_bias * SLOPE)
        needed = ctx.needs_input_grad[0]
        if needed:
            ctx.save_for_backward(widened, widen, narrow)  # CLIP's own tensors, not those of another type
        inner = functional.silu(widened, inplace=not needed)
        return product(inner, second, second_bias * SLOPE).mul_(1 / SLOPE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        widened, widen, narrow = ctx.saved_tensors
        widen, narrow = widen.to(widened.dtype), narrow.to(widened.dtype)
        of_inner = product(gradient, narrow.mT)
        of_widened = torch.ops.aten.silu_backward.grad_input(of_inner, widened, grad_input=of_inner)
        return product(of_widened, widen.mT), None, None, None, None
