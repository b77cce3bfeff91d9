"""Cross-attention from prompts to image tokens: the layer that Troika and MSCI share, and stacks of it.

Queries never see each other, so a prompt's result does not depend on which others are there, and prompts may go in
chunks of any size. What depends on the image alone, keys and values, is computed once per batch by `memory`. While
queries are the same for all images ([K, d], before the first layer) they are projected once, not once per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from errors import UserError
from methods.backbone.heads import head_count
from methods.backbone.products import Linear
from methods.parts.feed_forward import SLOPE, feed_forward

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B, heads, T, d / heads]."""
Memory = tuple[KeysValues, ...]
"""Keys and values of every layer of a stack."""


def quick_gelu(hidden: Tensor) -> Tensor:
    """Return QuickGELU, written by SiLU, which keeps one tensor for backward where the formula keeps three."""
    return functional.silu(SLOPE * hidden) / SLOPE


class CrossAttention(nn.Module):
    """Multi-head attention of queries to tokens; heads are contiguous groups of channels.

    Query, key and value maps have no bias, the output map has one. Nothing is normalised or dropped inside. A number
    of heads that does not divide the width is a `UserError`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(
                f"Cross-attention with {heads} heads was asked for.",
                f"The backbone's joint space has {width} channels, which they do not divide.",
                f"Choose a divisor of {width}, or leave the heads out: then there are {head_count(width)}.",
            )
        self.heads = heads
        self.query = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, width, bias=False)
        self.out = Linear(width, width)

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # [..., N, d] -> [..., heads, N, d / heads]

    def memory(self, tokens: Tensor) -> KeysValues:
        """Return keys and values of tokens [B, T, d]."""
        return self._split(self.key(tokens)), self._split(self.value(tokens))

    def forward(self, queries: Tensor, memory: KeysValues) -> Tensor:
        """Return what the queries [K, d] or [B, K, d] find in each image's memory, [B, K, d]."""
        keys, values = memory
        projected = self._split(self.query(queries)).expand(len(keys), -1, -1, -1)
        found = functional.scaled_dot_product_attention(projected, keys, values)
        return self.out(found.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, memory: KeysValues) -> Tensor:
        """Return softmax(QK^T / sqrt(d / heads)), a query's shares of the tokens: [B, heads, K, T], rows sum to 1.

        `forward` is these weights times the values, heads joined, through the output map; it never builds them.
        """
        keys, _ = memory
        projected = self._split(self.query(queries)).expand(len(keys), -1, -1, -1)
        return (projected @ keys.transpose(-2, -1) / keys.shape[-1] ** 0.5).softmax(dim=-1)


class CrossAttentionLayer(nn.Module):
    """q + Drop(Attention(q, tokens)), then q + Drop(W2 Drop(QuickGELU(W1 LayerNorm(q)))), hidden width 4 d.

    The queries are not normalised before attention; there is no LayerNorm at the end.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = CrossAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = dropout

    def forward(self, queries: Tensor, memory: KeysValues) -> Tensor:
        """Return [B, K, d] for queries [K, d] or [B, K, d] and the layer's own keys and values."""
        found = self.attention(queries, memory)
        dropout = self.dropout if self.training else 0.0
        return feed_forward(queries, found, self.norm, self.widen, self.narrow, dropout)


class CrossAttentionStack(nn.Module):
    """A LayerNorm for the tokens and `layers` layers that all read the same normalised tokens.

    With 0 layers there is nothing to train and the queries come back as they are.
    """

    def __init__(self, width: int, heads: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if layers else nn.Identity()
        self.layers = nn.ModuleList(CrossAttentionLayer(width, heads, dropout) for _ in range(layers))

    def normalise(self, tokens: Tensor, times: int = 1) -> Tensor:
        """Return tokens [B, T, d] after the LayerNorm, applied `times` times (see Troika's released code)."""
        for _ in range(times):
            tokens = self.norm(tokens)
        return tokens

    def memory(self, tokens: Tensor) -> Memory:
        """Return every layer's keys and values of tokens [B, T, d] that `normalise` gave."""
        layers = cast(list[CrossAttentionLayer], list(self.layers))  # a ModuleList forgets
        return tuple(layer.attention.memory(tokens) for layer in layers)

    def forward(self, queries: Tensor, memory: Sequence[KeysValues]) -> Tensor:
        """Return [B, K, d] for queries [K, d] or [B, K, d]; without layers the queries themselves."""
        for layer, keys_values in zip(self.layers, memory, strict=True):
            queries = layer(queries, keys_values)
        return queries

    def weights(self, queries: Tensor, memory: Sequence[KeysValues]) -> list[Tensor]:
        """Return every layer's attention weights, [B, heads, K, T] each, for what `forward` would be given."""
        found = []
        layers = cast(list[CrossAttentionLayer], list(self.layers))  # a ModuleList forgets
        for layer, keys_values in zip(layers, memory, strict=True):
            found.append(layer.attention.weights(queries, keys_values))
            queries = layer(queries, keys_values)
        return found
