"""Latent units: learned vectors that read the tokens of several vision blocks, and transformers over what they found.

CAMS sections 5 and 6. The units of an image are a set: they have no order, see each other in `UnitTransformer` alone,
and another image's never.

B images, U units, T tokens, D vision width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from errors import UserError
from methods.backbone.heads import head_count, key_value_heads, query_heads, split_heads
from methods.parts.attention import quick_gelu
from methods.parts.shares import common_dropout, image_dropout

Blocks = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]
"""A number of blocks, or their share of a tower's, see `last_blocks`."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """Return softmax(QK^T / sqrt(w)) V with heads joined, [B, U, heads * w], of [B, heads, U or T, w].

    dropout: probability with which an attention weight is dropped, 0 outside of training.
    """
    if dropout > 0:
        weights = (queries @ keys.mT * queries.shape[-1] ** -0.5).softmax(dim=-1)
        found = image_dropout(weights, dropout, training=True) @ values
    else:
        found = functional.scaled_dot_product_attention(queries, keys, values)
    return found.transpose(1, 2).flatten(2)


def require_divisor(heads: int, width: int, what: str) -> None:
    """Raise `UserError` unless a number of heads divides the width; `what` is the name of the setting."""
    if width % heads:
        raise UserError(
            f"The setting {what} asks for {heads} heads.",
            f"The backbone's image tower has {width} channels, which they do not divide.",
            f"Choose a divisor of {width}, such as {head_count(width)}.",
        )


def last_blocks(asked: float | None, blocks: int, what: str) -> range:
    """Return the last `asked` of a tower's blocks, but at least one.

    Below 1 that is a share of the blocks, and None a third (8 of 24). More than there are is a `UserError` that calls
    the setting `what`.
    """
    if asked is not None and asked > blocks:
        raise UserError(
            f"The setting {what} asks for {asked} vision blocks.",
            f"The backbone has {blocks}.",
            f"Choose at most {blocks}, or leave {what} out.",
        )
    share = 1 / 3 if asked is None else asked
    return range(blocks - (max(1, round(share * blocks)) if share < 1 else int(share)), blocks)


class GatedReading(nn.Module):
    """One gated cross-attention layer, from units Z to tokens h, both through the same LayerNorm (CAMS equation 5).

        q, k, v = W_q LN(Z), W_k LN(h), W_v LN(h);  x = softmax(q k^T / sqrt(w)) v
        z = sigmoid((W_z q + b_z) * (U_z x + b_u));  Z <- Z + W_out (z * x) + b_out
        Z <- Z + W_2 Dropout(QuickGELU(W_1 LN(Z) + b_1)) + b_2, hidden width 4 D

    The gate multiplies two maps within the sigmoid, and reads the queries before they are scaled. dropout: also of
    the attention weights. gate False: z = 1, without its maps.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.1, gate: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.gate_query = nn.Linear(width, width) if gate else None
        self.gate_found = nn.Linear(width, width) if gate else None
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def gate(self, queries: Tensor, found: Tensor) -> Tensor | None:
        """Return z [B, U, D] in (0, 1) for projected queries and what attention found; None without a gate."""
        if self.gate_query is None or self.gate_found is None:
            return None
        return torch.sigmoid(self.gate_query(queries) * self.gate_found(found))

    def read(self, units: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected queries, [U, D] or [B, U, D] as the units are, and what attention found, [B, U, D]."""
        normed = self.norm(tokens)
        keys, values = (split_heads(side(normed), self.heads) for side in (self.key, self.value))
        queries = self.query(self.norm(units))
        heads = split_heads(queries, self.heads).expand(len(tokens), -1, -1, -1)
        return queries, attend(heads, keys, values, self.dropout if self.training else 0.0)

    def forward(self, units: Tensor, tokens: Tensor) -> Tensor:
        """Return the units [B, U, D] after reading tokens [B, T, D]; units [U, D] are the same for all images."""
        queries, found = self.read(units, tokens)
        gate = self.gate(queries, found)
        units = units + self.out(found if gate is None else gate * found)
        return units + _fed(self, units)


class UnitTransformer(nn.Module):
    """One pre-norm transformer layer over the units of an image, without positions, masks or a norm at the end.

    Z + Attention(LN(Z)), then Z + W_2 Dropout(QuickGELU(W_1 LN(Z) + b_1)) + b_2, hidden width 4 D. dropout: also of the
    attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, units: Tensor) -> Tensor:
        """Return [B, U, D] of units [B, U, D]."""
        normed = self.norm(units)
        queries, (keys, values) = query_heads(self.attention, normed), key_value_heads(self.attention, normed)
        found = attend(queries, keys, values, self.dropout if self.training else 0.0)
        units = units + self.attention.out_proj(found)
        return units + _fed(self, units)


def _fed(layer: GatedReading | UnitTransformer, units: Tensor) -> Tensor:
    hidden = quick_gelu(layer.widen(layer.feed_norm(units)))
    return layer.narrow(image_dropout(hidden, layer.dropout, layer.training))


class LatentUnits(nn.Module):
    """U vectors, drawn from N(0, 1), and what they become by reading the tokens of one block after another.

    start_dropout: of the vectors, one mask for all images. shared: one layer reads all blocks, else each has its own.
    trained: False keeps the vectors as they were drawn; a checkpoint holds them all the same.
    """

    values: Tensor

    def __init__(
        self,
        count: int,
        width: int,
        readers: Sequence[GatedReading],
        start_dropout: float = 0.5,
        trained: bool = True,
    ) -> None:
        super().__init__()
        values = torch.randn(count, width)
        if trained:
            self.values = nn.Parameter(values)
        else:
            self.register_buffer("values", values)
        self.readers = nn.ModuleList(readers)
        self.start_dropout = start_dropout

    def forward(self, tokens: Sequence[Tensor], again: bool = False) -> Tensor:
        """Return the units [B, U, D] after reading each block's tokens [B, T, D].

        again: compute the activations of a reading again in backward instead of keeping them.
        """
        units = common_dropout(self.values, self.start_dropout, self.training)
        for place, read in enumerate(tokens):
            reader = self.readers[place % len(self.readers)]
            if again and torch.is_grad_enabled():
                units = recompute(reader, units, read, use_reentrant=False)
            else:
                units = reader(units, read)
        return units


class MultiSpace(nn.Module):
    """Features of an image in several spaces, each from a transformer of its own over the same units (CAMS section 6).

    f = Dropout(LN(mean over units of T(Z)) P) for each T of `transformers`, by name; LN is shared, P [D, d] starts as
    N(0, 1 / D). features: width d of the joint space.
    """

    def __init__(
        self, units: LatentUnits, transformers: Mapping[str, UnitTransformer], features: int, dropout: float = 0.5
    ) -> None:
        super().__init__()
        width = units.values.shape[1]
        self.units = units
        self.transformers = nn.ModuleDict(transformers)
        self.norm = nn.LayerNorm(width)
        self.projections = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width, features) * width**-0.5) for name in transformers}
        )
        self.dropout = dropout

    def forward(self, tokens: Sequence[Tensor], again: bool = False) -> dict[str, Tensor]:
        """Return the feature [B, d] of each space, not normalised, of tokens [B, T, D] of each block that is read.

        again: see `LatentUnits`.
        """
        units = self.units(tokens, again)
        found = {}
        for name, transformer in self.transformers.items():
            projected = self.norm(transformer(units).mean(dim=1)) @ self.projections[name]
            found[name] = image_dropout(projected, self.dropout, self.training)
        return found
