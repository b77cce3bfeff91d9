"""Linear maps in fp32 on a processor by oneDNN, which torch itself asks for products in half precision alone.

torch multiplies fp32 matrices by MKL. oneDNN comes with torch as well and is a tenth faster at the sizes of CLIP's
blocks on some processors (an AMD EPYC: 105 to 109 against 92 to 95 GFLOP/s of a core). The results differ by rounding.
Where it is not there, under autocast, on accelerators, in torch.compile, for tensors without values and while
operations are counted (`as_torch_does`) everything is computed as torch does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_PRODUCT = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
_PACK = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_PLAIN = (Tensor, nn.Parameter)
_COUNTED: ContextVar[bool] = ContextVar("counted", default=False)


@contextmanager
def as_torch_does() -> Iterator[None]:
    """Compute in torch's own operations within, which its counter of FLOPs knows."""
    token = _COUNTED.set(True)
    try:
        yield
    finally:
        _COUNTED.reset(token)


def on_a_cpu(*tensors: Tensor) -> bool:
    """Return whether tensors with values lie in a processor's memory and are computed at once, not followed."""
    if torch.compiler.is_compiling() or _COUNTED.get():
        return False
    return all(tensor.is_cpu and type(tensor) in _PLAIN for tensor in tensors)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows [n, in] times weight [out, in] transposed, plus bias [out]: [n, out]. No gradient is followed."""
    if _PRODUCT is None or rows.dtype != torch.float32 or weight.dtype != torch.float32 or not on_a_cpu(rows, weight):
        return functional.linear(rows, weight, bias)
    return _PRODUCT(rows, weight, bias, "none", [], "")


def packed(weight: Tensor, rows: int) -> Tensor:
    """Return a weight [out, in] for several calls of `product` with so many rows, in oneDNN's own order if it is there.

    A call with the weight itself puts it into that order each time, a twentieth of its time for 512 rows. The copy
    takes as much memory as the weight and is good for nothing else.
    """
    if _PRODUCT is None or _PACK is None or weight.dtype != torch.float32 or not on_a_cpu(weight):
        return weight
    return _PACK(weight.detach().contiguous(), rows)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `torch.nn.functional.linear` does up to rounding, with its gradients; tokens: [..., in]."""
    if _PRODUCT is None or not on_a_cpu(tokens, weight) or torch.is_autocast_enabled("cpu"):
        return functional.linear(tokens, weight, bias)
    return _Linear.apply(tokens.reshape(-1, tokens.shape[-1]), weight, bias).view(*tokens.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """rows [n, in] times weight transposed, plus bias; what a frozen weight does not need is not kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        return product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.mT) if of_rows else None,
            gradient.mT @ rows if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


class Linear(nn.Linear):
    """`nn.Linear` computed by `linear`."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the map of tokens [..., in], [..., out]."""
        return linear(tokens, self.weight, self.bias)
