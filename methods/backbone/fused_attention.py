"""Attention of prompts to themselves and to beginnings that they share, in few operations: for accelerators.

What is computed is what `prefix_attention.attend_after` computes, which is made for a processor: there a pass through
memory costs, here each of the many small operations does, for it has to be started. Keys and values of beginnings are
laid out for every prompt, torch's fused attention reads them, and they are gone again; backward lays them out once
more, so nothing but the call's own arguments is kept. The numbers differ in rounding. As there, all is computed in fp32
at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from methods.backbone.prefix_attention import Beginning


def attend_fused(
    queries: Tensor, keys: Tensor, values: Tensor, beginnings: Sequence[Beginning], mask: Tensor | None, heads: int
) -> Tensor:
    """Return softmax(QK/sqrt)V, heads joined, [C, Lq, T], of C prompts after their beginnings.

    mask: bool [Lq, n + L], where a query may see the n positions of all beginnings and the L of its own prompt; None
    where it sees them all. Otherwise as `attend_after`.
    """
    rows = tuple(part.rows for part in beginnings)
    parts = [tensor for part in beginnings for tensor in (part.keys, part.values)]
    return _AttendFused.apply(heads, mask, rows, queries, keys, values, *parts)


class _AttendFused(torch.autograd.Function):
    """See `attend_fused`. parts: keys and values of each beginning in turn."""

    @staticmethod
    def forward(
        ctx: Any,
        heads: int,
        mask: Tensor | None,
        rows: tuple[Tensor | None, ...],
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        ctx.heads, ctx.rows = heads, rows
        ctx.save_for_backward(mask, queries, keys, values, *parts)
        with torch.autocast(queries.device.type, enabled=False):
            query, key, value = _laid_out(heads, rows, queries, keys, values, parts)
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return found.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mask, queries, keys, values, *parts = ctx.saved_tensors
        with torch.autocast(queries.device.type, enabled=False), torch.enable_grad():
            whole = _laid_out(ctx.heads, ctx.rows, queries, keys, values, parts)
            query, key, value = (side.detach().requires_grad_() for side in whole)
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            by_head = gradient.to(found.dtype).unflatten(-1, (ctx.heads, -1)).transpose(1, 2)
            gradients = torch.autograd.grad(found, (query, key, value), by_head)
        of_queries, *others = (part.transpose(1, 2).flatten(2) for part in gradients)
        of_parts: list[Tensor] = []
        start = 0
        for number, index in enumerate(ctx.rows):
            stop = start + parts[2 * number].shape[1]
            for side, part in zip(others, parts[2 * number : 2 * number + 2], strict=True):
                own = side[:, start:stop]
                if index is None:
                    total = own.sum(dim=0, keepdim=True)
                else:
                    total = own.new_zeros(part.shape).index_add_(0, index, own)
                of_parts.append(total.to(part.dtype))
            start = stop
        of_keys, of_values = (side[:, start:].to(own.dtype) for side, own in zip(others, (keys, values), strict=True))
        return None, None, None, of_queries.to(queries.dtype), of_keys, of_values, *of_parts


def _laid_out(
    heads: int,
    rows: Sequence[Tensor | None],
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    parts: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values by head, [C, heads, positions, w], the beginnings before a prompt's own."""
    wide = torch.promote_types(queries.dtype, torch.float32)

    def by_head(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)

    def whole(own: Tensor, before: Sequence[Tensor]) -> Tensor:
        if not before:
            return own.to(wide)
        each = (
            part.expand(len(own), -1, -1) if index is None else part.index_select(0, index)
            for part, index in zip(before, rows, strict=True)
        )
        return torch.cat([*each, own], dim=1).to(wide)

    sides = (queries.to(wide), whole(keys, parts[::2]), whole(values, parts[1::2]))
    return by_head(sides[0]), by_head(sides[1]), by_head(sides[2])
