"""The half of a cross-attention layer behind its attention, as one autograd function that keeps little for backward.

With queries q, what attention found f, dropout D (three masks, each value scaled by 1 / (1 - p)) and the widths d and
4 d:

    m = q + D1(f),    out = m + D3(W2 D2(QuickGELU(W1 LayerNorm(m) + b1)) + b2)

Of the values that are 4 d wide, images x prompts of them, autograd would keep three tensors: before the activation,
after it, and the mask. Here m and the bits of the masks are kept, for some rows (`KEEP_WIDENED`) the values before the
activation too, and the rest is made again of them by the same operations, so it is the same to the last bit. Rows go
through in blocks that fit a processor's cache.

QuickGELU(x) = SiLU(a x) / a with a = 1.702: the factors a, 1 / a and 1 / (1 - p) are put on values that are d wide, or
given to an operation that is there anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from methods.backbone.products import packed, product
from methods.parts import bits
from methods.parts.shares import image_mask

SLOPE = 1.702
"""Of QuickGELU, x * sigmoid(1.702 x): the activation of OpenAI's CLIP, which these layers use on any backbone."""

ROWS_ON_A_CPU = 512
"""Rows that go through at once there; elsewhere all of a call do."""

FEW_BLOCKS = 4
"""For fewer blocks of rows weights are not packed."""

KEEP_WIDENED = 0.25
"""Share of the blocks of rows whose W1 LayerNorm(m) + b1 is kept, at least one if it is not 0.

Making it again in backward is one more of the part's six large products, for a third of what the layer would keep.
"""


def feed_forward(
    queries: Tensor, found: Tensor, norm: nn.LayerNorm, widen: nn.Linear, narrow: nn.Linear, dropout: float
) -> Tensor:
    """Return `out` [B, K, d] of queries [K, d] or [B, K, d] and what attention found, [B, K, d].

    dropout: the probability p, 0 outside of training. The masks are drawn as by three calls of `image_dropout`, in the
    order D1, D2, D3.
    """
    width = found.shape[-1]
    masks = [_drawn(found, size, dropout) if dropout > 0 else None for size in (width, widen.out_features, width)]
    kind = found.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else found.dtype
    how = _How(dtype, norm.eps, dropout, widen.out_features)
    weights = (norm.weight, norm.bias, widen.weight, widen.bias, narrow.weight, narrow.bias)
    return _FeedForward.apply(how, queries, found, *masks, *weights)


def _drawn(found: Tensor, width: int, p: float) -> Tensor:
    """Return the bits of a mask [B, K, width], a row for each vector."""
    return bits.pack(image_mask(found, (*found.shape[:-1], width), p).flatten(0, -2))


@dataclass(frozen=True)
class _How:
    """How a block of features is computed.

    dtype: of the products with W1 and W2; all else is in that of m
    eps: LayerNorm's
    p: dropout's
    wide: 4 d
    """

    dtype: torch.dtype
    eps: float
    p: float
    wide: int

    @property
    def scale(self) -> float:
        """Factor of the values that dropout leaves."""
        return 1 / (1 - self.p)

    def ready(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Return a weight as the products with these rows take it fastest, in the type of products."""
        blocks = -(-len(rows) // ROWS_ON_A_CPU)
        weight = weight.to(self.dtype)
        return packed(weight, ROWS_ON_A_CPU) if rows.is_cpu and blocks >= FEW_BLOCKS else weight

    def blocks(self, rows: Tensor) -> Iterator[slice]:
        """Yield the rows that go through together."""
        size = ROWS_ON_A_CPU if rows.is_cpu else len(rows)
        return (slice(start, start + size) for start in range(0, len(rows), max(size, 1)))

    def add(self, rest: Tensor, values: Tensor, mask: Tensor | None, factor: float = 1.0) -> Tensor:
        """Return rest + D(factor * values)."""
        if mask is None:
            return torch.add(rest, values, alpha=factor)
        kept = bits.unpack(mask, values.shape[-1], values.dtype).view_as(values)
        return torch.addcmul(rest, values, kept, value=self.scale * factor)

    def dropped(self, gradient: Tensor, mask: Tensor | None) -> Tensor:
        """Return the gradient of `values` in `add`."""
        if mask is None:
            return gradient
        return bits.unpack(mask, gradient.shape[-1], gradient.dtype).view_as(gradient).mul_(gradient).mul_(self.scale)

    def masked(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """Return values [rows, 4 d], in place, where D2 keeps them and 0 elsewhere, not scaled."""
        return values if mask is None else values.mul_(bits.unpack(mask, self.wide, values.dtype))

    def widened(self, normed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return a (W1 x + b1), [rows, 4 d]."""
        return product(normed * SLOPE, weight, bias * SLOPE)


def _of(mask: Tensor | None, block: slice) -> Tensor | None:
    return None if mask is None else mask[block]


def _is_kept(number: int) -> bool:
    """Return whether block `number` is one of the share, which is spread over all of them."""
    return math.ceil((number + 1) * KEEP_WIDENED) > math.ceil(number * KEEP_WIDENED)


class _FeedForward(torch.autograd.Function):
    """See the module."""

    @staticmethod
    def forward(
        ctx: Any,
        how: _How,
        queries: Tensor,
        found: Tensor,
        found_mask: Tensor | None,
        inner_mask: Tensor | None,
        out_mask: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        middle = how.add(queries, found, found_mask)
        norm, norm_bias = weights[:2]
        rows = middle.flatten(0, -2)
        widen, narrow = how.ready(weights[2], rows), how.ready(weights[4], rows)
        widen_bias, narrow_bias = weights[3].to(how.dtype), weights[5].to(how.dtype)
        out = torch.empty_like(rows)
        needed = any(ctx.needs_input_grad)
        wide: list[Tensor | None] = []
        for number, block in enumerate(how.blocks(rows)):
            normed = functional.layer_norm(rows[block], norm.shape, norm, norm_bias, how.eps).to(how.dtype)
            widened = how.widened(normed, widen, widen_bias)
            keep = needed and _is_kept(number)
            wide.append(widened if keep else None)
            inner = how.masked(functional.silu(widened, inplace=not keep), _of(inner_mask, block))
            values = product(inner, narrow, narrow_bias * (SLOPE / how.scale))
            out[block] = how.add(rows[block], values, _of(out_mask, block), how.scale / SLOPE)
        ctx.how, ctx.shared, ctx.dtypes = how, queries.dim() < found.dim(), (queries.dtype, found.dtype)
        ctx.save_for_backward(middle, found_mask, inner_mask, out_mask, *weights, *wide)
        return out.view_as(middle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        middle, found_mask, inner_mask, out_mask, *weights = ctx.saved_tensors
        weights, wide = weights[:6], weights[6:]  # wide: None where it is not kept
        norm, norm_bias = weights[:2]
        rows, gradient = middle.flatten(0, -2), gradient.flatten(0, -2)
        widen, widen_bias = how.ready(weights[2], rows), weights[3].to(how.dtype)
        back_widen, back_narrow = how.ready(weights[2].mT, rows), how.ready(weights[4].mT, rows)
        of_middle = torch.empty_like(rows)
        sums = [torch.zeros_like(weight) for weight in weights]
        for number, block in enumerate(how.blocks(rows)):
            normed, mean, deviation = torch.native_layer_norm(rows[block], norm.shape, norm, norm_bias, how.eps)
            normed = normed.to(how.dtype)
            widened = wide[number] if wide[number] is not None else how.widened(normed, widen, widen_bias)
            inner = how.masked(functional.silu(widened), _of(inner_mask, block))
            of_values = how.dropped(gradient[block], _of(out_mask, block)).to(how.dtype)
            _add_product(sums[4], of_values.mT, inner, how.scale / SLOPE)
            sums[5] += of_values.sum(dim=0)
            of_inner = how.masked(product(of_values * how.scale, back_narrow), _of(inner_mask, block))
            # d QuickGELU(x) / dx = SiLU'(a x), so nothing is left of a.
            of_widened = torch.ops.aten.silu_backward.grad_input(of_inner, widened, grad_input=of_inner)
            _add_product(sums[2], of_widened.mT, normed)
            sums[3] += of_widened.sum(dim=0)
            of_normed = product(of_widened, back_widen).to(rows.dtype)
            of_rows, of_norm, of_norm_bias = torch.ops.aten.native_layer_norm_backward(
                of_normed, rows[block], norm.shape, mean, deviation, norm, norm_bias, [True, True, True]
            )
            sums[0] += of_norm
            sums[1] += of_norm_bias
            torch.add(of_rows, gradient[block], out=of_middle[block])
        of_middle = of_middle.view_as(middle)
        of_queries = of_middle.sum(dim=0) if ctx.shared else of_middle
        of_found = how.dropped(of_middle, found_mask)
        found_type = ctx.dtypes[1]
        return None, of_queries.to(ctx.dtypes[0]), of_found.to(found_type), None, None, None, *sums


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: float = 1.0) -> None:
    """Add factor * left @ right to a total, which is in a wider type where the factors are in half precision."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, alpha=factor, out=total)
    else:
        total.add_(left @ right, alpha=factor)
