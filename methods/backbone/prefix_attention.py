"""Attention of prompts to themselves and to beginnings that they share, without a copy of the beginning for each.

A prompt's own positions are few (object and end token), and so are the keys that they see, so attention is hardly any
arithmetic; what costs is to lay out keys and values of all positions for every prompt, and to keep them for backward.
Here beginnings are kept once. Those of all prompts (the context) are one matrix, with a row for each head and position
that is zero in the channels of other heads. Those of some prompts (a state) are fetched block by block, in backward
once more. The softmax is computed in fp32 at least; its weights are kept for backward, a few numbers for each query
and head. On a processor the products of a few queries with a few keys are sums of rows, which takes half the time of
that many small matrix products and needs no heads laid apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.backbone.products import on_a_cpu

PROMPTS_ON_A_CPU = 256
"""Prompts that go through at once there; elsewhere all of a call do."""

FEW = 16
"""Queries times keys of a prompt up to which a processor adds up rows."""


class Beginning(NamedTuple):
    """Keys and values, each [R, n, T], of R beginnings of n tokens, and which of them each prompt has.

    rows: int64 [C]; None where there is one for all (R = 1).
    """

    keys: Tensor
    values: Tensor
    rows: Tensor | None


def attend_after(
    queries: Tensor, keys: Tensor, values: Tensor, beginnings: Sequence[Beginning], mask: Tensor, heads: int
) -> Tensor:
    """Return softmax(QK/sqrt)V, heads joined, [C, Lq, T], of C prompts after their beginnings.

    queries: [C, Lq, T]. keys, values: [C, L, T], of the prompts' own positions. mask: bool [Lq, L], where a query may
    see its own prompt; it sees all of the beginnings.
    """
    common = [part for part in beginnings if part.rows is None]
    some = [part for part in beginnings if part.rows is not None]
    none = keys.new_empty(0, keys.shape[-1])
    common_keys = torch.cat([none, *(part.keys[0] for part in common)])
    common_values = torch.cat([none, *(part.values[0] for part in common)])
    rows = tuple(part.rows for part in some)
    parts = [tensor for part in some for tensor in (part.keys, part.values)]
    return _AttendAfter.apply(heads, mask, rows, queries, keys, values, common_keys, common_values, *parts)


class _AttendAfter(torch.autograd.Function):
    """See `attend_after`. some: keys and values of each beginning that only some prompts have, in turn."""

    @staticmethod
    def forward(
        ctx: Any,
        heads: int,
        mask: Tensor,
        rows: tuple[Tensor, ...],
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        common_keys: Tensor,
        common_values: Tensor,
        *some: Tensor,
    ) -> Tensor:
        call = _Call(heads, mask, rows, queries, keys, values, common_keys, common_values, some)
        found = torch.empty_like(queries, memory_format=torch.contiguous_format)
        needed = any(ctx.needs_input_grad)
        kept: list[tuple[Tensor, Tensor]] = []
        with torch.autocast(queries.device.type, enabled=False):
            for part in call.blocks():
                block = call.block(part)
                common, own = block.weights()
                mixed = call.mix(own, block.values)
                found[part] = mixed.add_((_in_rows(common) @ call.common_values).view_as(mixed))
                if needed:
                    kept.append((common, own))
        ctx.heads, ctx.rows = heads, rows
        weights = [weight for both in kept for weight in both]
        ctx.save_for_backward(mask, queries, keys, values, common_keys, common_values, *some, *weights)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        mask, queries, keys, values, common_keys, common_values, *rest = ctx.saved_tensors
        some, weights = rest[: 2 * len(ctx.rows)], rest[2 * len(ctx.rows) :]
        wide = torch.promote_types(queries.dtype, torch.float32)
        of_queries, of_keys, of_values = (
            torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in (queries, keys, values)
        )
        of_some = [torch.zeros(part.shape, dtype=wide, device=part.device) for part in some]
        with torch.autocast(queries.device.type, enabled=False):
            call = _Call(ctx.heads, mask, ctx.rows, queries, keys, values, common_keys, common_values, some)
            of_common_keys, of_common_values = (torch.zeros_like(call.common_keys) for _ in range(2))
            for number, part in enumerate(call.blocks()):
                block = call.block(part)
                common, own = weights[2 * number : 2 * number + 2]
                given = gradient[part].to(wide)
                rows = given.flatten(0, 1)
                of_common_values += _in_rows(common).mT @ rows
                own_values = call.mix(own.mT, given)
                of_common = call.by_head(rows @ call.common_values.mT, len(given))
                of_own = call.dots(given, block.values)
                inner = (common * of_common).sum(-1, keepdim=True) + (own * of_own).sum(-1, keepdim=True)
                of_common = (of_common - inner).mul_(common).mul_(call.scale)
                of_own = (of_own - inner).mul_(own).mul_(call.scale)
                of_common_keys += _in_rows(of_common).mT @ block.queries.flatten(0, 1)
                own_keys = call.mix(of_own.mT, block.queries)
                own_queries = call.mix(of_own, block.keys)
                through_common = _in_rows(of_common) @ call.common_keys
                of_queries[part] = own_queries.add_(through_common.view_as(own_queries))
                start = 0
                for place, index in enumerate(ctx.rows):
                    stop = start + some[2 * place].shape[1]
                    for side, of_all in enumerate((own_keys, own_values)):
                        of_some[2 * place + side].index_add_(0, index[part], of_all[:, start:stop])
                    start = stop
                of_keys[part] = own_keys[:, start:]
                of_values[part] = own_values[:, start:]
            shared = (call.of_one(of_common_keys), call.of_one(of_common_values))
        beginnings = (common_keys, common_values, *some)
        of_beginnings = (whole.to(part.dtype) for whole, part in zip((*shared, *of_some), beginnings, strict=True))
        return None, None, None, of_queries, of_keys, of_values, *of_beginnings


class _Block(NamedTuple):
    """What some of the prompts compute with; n counts the beginnings that not all have, and their own positions.

    queries: [C, Lq, T]
    keys, values: [C, n, T]
    """

    call: _Call
    queries: Tensor
    keys: Tensor
    values: Tensor

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the attention weights to common positions, [C, heads, Lq, common], and to the others, [.., n]."""
        call = self.call
        common = call.by_head(self.queries.flatten(0, 1) @ call.common_keys.mT, len(self.queries))
        own = call.dots(self.queries, self.keys)
        own[..., -call.mask.shape[1] :].masked_fill_(~call.mask, -torch.inf)
        both = torch.cat([common, own], dim=-1).mul_(call.scale).softmax(dim=-1)
        return both.split([common.shape[-1], own.shape[-1]], dim=-1)


class _Call:
    """The tensors of a call in the type of its computation; common keys and values are [heads * common, T]."""

    def __init__(
        self,
        heads: int,
        mask: Tensor,
        rows: tuple[Tensor, ...],
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        common_keys: Tensor,
        common_values: Tensor,
        some: Sequence[Tensor],
    ) -> None:
        self.heads, self.mask, self.rows = heads, mask, rows
        self.wide = torch.promote_types(queries.dtype, torch.float32)
        self.scale = (queries.shape[-1] // heads) ** -0.5
        self.queries, self.keys, self.values, self.some = queries, keys, values, some
        self.common_keys, self.common_values = (self._of_heads(part) for part in (common_keys, common_values))

    def _of_heads(self, common: Tensor) -> Tensor:
        apart = common.to(self.wide).unflatten(-1, (self.heads, -1))  # [common, heads, w]
        whole = apart.new_zeros(self.heads, len(common), *apart.shape[1:])
        whole.diagonal(dim1=0, dim2=2).copy_(apart.mT)
        return whole.flatten(2).flatten(0, 1)

    def of_one(self, whole: Tensor) -> Tensor:
        """Return the gradient [common, T] of what `_of_heads` was given, from that of its result."""
        apart = whole.view(self.heads, len(whole) // self.heads, self.heads, whole.shape[-1] // self.heads)
        return apart.diagonal(dim1=0, dim2=2).mT.flatten(1)

    def blocks(self) -> Iterator[slice]:
        """Yield the prompts that go through together."""
        count = len(self.queries)
        size = PROMPTS_ON_A_CPU if self.queries.is_cpu else count
        return (slice(start, start + size) for start in range(0, count, max(size, 1)))

    def block(self, part: slice) -> _Block:
        """Return the tensors of some prompts."""
        sides = []
        for own, some in ((self.keys, self.some[::2]), (self.values, self.some[1::2])):
            fetched = [tensor[index[part]] for tensor, index in zip(some, self.rows, strict=True)]
            sides.append(torch.cat([tensor.to(self.wide) for tensor in (*fetched, own[part])], dim=1))
        return _Block(self, self.queries[part].to(self.wide), *sides)

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the products by head, [C, heads, I, J], of rows of left [C, I, T] with rows of right [C, J, T]."""
        if self._few(left, right.shape[1]):
            products = (left[:, :, None] * right[:, None]).unflatten(-1, (self.heads, -1))
            return products.sum(-1).permute(0, 3, 1, 2)
        return self._split(left) @ self._split(right).mT

    def mix(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Return the sums [C, I, T] of rows [C, J, T] times their weights by head, [C, heads, I, J]."""
        if not self._few(rows, weights.shape[2]):
            return (weights @ self._split(rows)).transpose(1, 2).flatten(2)
        apart = rows.unflatten(-1, (self.heads, -1))[:, None]  # [C, 1, J, heads, w]
        shares = weights.permute(0, 2, 3, 1)[..., None]  # [C, I, J, heads, 1]
        mixed = shares[:, :, 0] * apart[:, :, 0]
        for place in range(1, rows.shape[1]):
            mixed.addcmul_(shares[:, :, place], apart[:, :, place])
        return mixed.flatten(2)

    def _few(self, rows: Tensor, others: int) -> bool:
        return on_a_cpu(rows) and 0 < rows.shape[1] * others <= FEW

    def _split(self, rows: Tensor) -> Tensor:
        """Return rows [C, L, T] by head, [C, heads, L, w]."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def by_head(self, rows: Tensor, prompts: int) -> Tensor:
        """Return [C, heads, Lq, common] of products with a common matrix, [C * Lq, heads * common]."""
        return rows.view(prompts, len(rows) // prompts, self.heads, rows.shape[-1] // self.heads).transpose(1, 2)


def _in_rows(by_head: Tensor) -> Tensor:
    """Return [C * Lq, heads * common] of [C, heads, Lq, common]."""
    return by_head.transpose(1, 2).flatten(0, 1).flatten(1)
