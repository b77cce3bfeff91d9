"""Multi-head attention taken apart: heads of queries, heads of keys and values, and their mixture.

`nn.MultiheadAttention` holds the weights (CLIP's own blocks, DFSP's and the Refiner-style layers use it), but its
forward projects the memory once for every query batch. Here the memory is projected once however many batches attend
to it, and projected keys can be kept and put together, which is what shared prefixes need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.backbone.products import linear


def query_heads(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return the queries [..., heads, L, width / heads] of tokens [..., L, width]."""
    width = attention.embed_dim
    projected = linear(tokens, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    return _heads(projected, attention.num_heads)


def key_value_heads(attention: nn.MultiheadAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the keys and the values, each [..., heads, L, width / heads], of tokens [..., L, width]."""
    width = attention.embed_dim
    projected = linear(tokens, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
    keys, values = projected.chunk(2, dim=-1)
    return _heads(keys, attention.num_heads), _heads(values, attention.num_heads)


def mix(
    attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return softmax(QK/sqrt)V through the output projection, [..., Lq, width].

    queries: [..., heads, Lq, w]. keys, values: [..., heads, Lk, w]; leading axes are broadcast. mask: bool or additive,
    [Lq, Lk]. No dropout.
    """
    lead = torch.broadcast_shapes(queries.shape[:-2], keys.shape[:-2])
    queries, keys, values = (part.expand(*lead, -1, -1).flatten(0, -4) for part in (queries, keys, values))
    mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    out = attention.out_proj
    return linear(mixed.transpose(-3, -2).flatten(-2), out.weight, out.bias).unflatten(0, lead[:-1])


def in_parts(attention: nn.Module) -> bool:
    """Return whether attention holds its weights in the form that is taken apart here."""
    return isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None


def attend_to_itself(attention: nn.MultiheadAttention, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what tokens [..., L, width] read from each other; one product makes queries, keys and values.

    mask: see `mix`. open_clip's blocks call `nn.MultiheadAttention` instead, which puts the tokens first and the images
    second: with a gradient to follow it then multiplies the images of one token at a time.
    """
    projected = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    parts = projected.unflatten(-1, (3, -1)).unbind(-2)
    queries, keys, values = (_heads(part, attention.num_heads) for part in parts)
    return mix(attention, queries, keys, values, mask)


def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what query tokens [..., Lq, width] read from memory tokens [..., Lk, width]; leading axes are broadcast.

    The result has the leading axes of both, at least one.
    """
    query = query[None] if query.dim() == memory.dim() == 2 else query
    return mix(attention, query_heads(attention, query), *key_value_heads(attention, memory), mask=mask)


def head_count(width: int) -> int:
    """Return the number of heads for a width: heads of 64 as in every CLIP, or the nearest larger that divides it.

    >>> head_count(768), head_count(48), head_count(200)
    (12, 1, 2)
    """
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def _heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(-1, (heads, -1)).transpose(-3, -2)
