"""Attention of the pretended accelerator: one kernel forward and one backward, as fused attention of a card takes.

Left to itself torch would take attention apart for a device that it does not know, and count a dozen kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `scaled_dot_product_attention` does, by the operation that torch keeps for somebody else's device."""
    found, *_ = aten._scaled_dot_product_fused_attention_overrideable(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale
    )
    return found


def _weights(
    query: Tensor, key: Tensor, bias: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, float]:
    """Return the shares [..., Lq, Lk], the logarithm of what they were divided by [..., Lq], and the scale."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    logits = (query.float() @ key.float().mT) * factor
    if bias is not None:
        logits = logits.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else logits + bias.float()
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
    return logits.softmax(dim=-1), logits.logsumexp(dim=-1), factor


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    """Return what `_scaled_dot_product_fused_attention_overrideable` does: the result, and what backward is given."""
    if dropout_p:
        raise RuntimeError("attention with dropout of its own is not pretended")
    weights, log_sum, _ = _weights(query, key, attn_bias, is_causal, scale)
    found = (weights @ value.float()).to(query.dtype)
    # Memory in the order of [batch, position, head, width], as fused attention leaves it.
    found = found.transpose(1, 2).contiguous().transpose(1, 2)
    none = query.new_empty(0, dtype=torch.int64)
    return found, log_sum, none, none, query.shape[-2], key.shape[-2], none, none, query.new_empty(0)


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    wanted: Sequence[bool],
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor,
    cum_seq_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Tensor,
    philox_offset: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of query, key and value; a bias that wants one is not pretended."""
    weights, _, factor = _weights(query, key, attn_bias, is_causal, scale)
    wide = gradient.float()
    of_weights = wide @ value.float().mT
    of_logits = weights * (of_weights - (of_weights * weights).sum(dim=-1, keepdim=True)) * factor
    gradients = (of_logits @ key.float(), of_logits.mT @ query.float(), weights.mT @ wide)
    # In the same order of memory as forward.
    return (*(part.to(query.dtype).transpose(1, 2).contiguous().transpose(1, 2) for part in gradients), None)


ATTENTION: Mapping[Any, Callable[..., Any]] = {
    aten._scaled_dot_product_fused_attention_overrideable.default: forward,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default: backward,
}
"""What computes instead of torch's own function."""
