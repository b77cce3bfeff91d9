"""Text features of prompts that share their beginnings: each shared beginning is encoded once.

Text attention is causal, so what a block computes at a position depends on that position and the earlier ones alone.
In "a photo of [state] [object]" the words before the state are the same for all pairs and the state's position is the
same for all pairs of that state: only the object and the end token are a pair's own, 2 positions of 7. Positions are
encoded level by level. Of a finished level the keys and values of every block are kept, and later levels attend to
them. The numbers are those of `Backbone.encode_text` up to rounding, and gradients flow through all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.backbone.blocks import tower_blocks
from methods.backbone.heads import key_value_heads, mix, query_heads

if TYPE_CHECKING:
    from methods.backbone.text import TextSide


@dataclass(frozen=True)
class Prefixes:
    """R encoded beginnings of n tokens.

    keys_values: of each block, each [R, heads, n, w]. tokens: [R, n, T] after the last block, if they were asked for.
    """

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    tokens: Tensor | None = None

    def __len__(self) -> int:
        """Return the number n of tokens."""
        return self.keys_values[0][0].shape[-2]


def can_share(backbone: TextSide) -> bool:
    """Return whether the text blocks hold their attention in the form that is taken apart here."""
    return all(
        isinstance(block.attn, nn.MultiheadAttention) and block.attn.in_proj_weight is not None
        for block in tower_blocks(backbone.clip, "text")
    )


def extend(
    backbone: TextSide, before: Prefixes | None, parents: Tensor | None, vectors: Tensor, *, tokens: bool = False
) -> Prefixes:
    """Return beginnings that are longer by the token vectors [R, n, T] (without positions).

    before, parents: the beginnings to extend and, int64 [R], which of them each row extends; both None at the start of
    the text. tokens: keep the tokens after the last block, for `finish` with all_tokens.
    """
    steps = list(_walk(backbone, before, parents, vectors, slice(None) if tokens else None))
    after, _ = steps[-1]
    if tokens and before is not None:
        after = _all_tokens(before, parents, after)
    return Prefixes(tuple(keys_values for _, keys_values in steps), after)


def finish(
    backbone: TextSide, before: Prefixes, parents: Tensor, vectors: Tensor, end: int, *, all_tokens: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the text features [C, d] of prompts that end with the token vectors [C, n, T] (without positions).

    before, parents: see `extend`. end: which of the n vectors is the end token. all_tokens: return as second value the
    tokens [C, L, T] of all positions before ln_final; otherwise, it is None and the last block computes the end token
    alone.
    """
    steps = _walk(backbone, before, parents, vectors, slice(None) if all_tokens else slice(end, end + 1))
    after, _ = deque(steps, maxlen=1).pop()  # nothing of the blocks before the last is held
    assert after is not None  # something is read
    features = backbone.project_text(after[:, end if all_tokens else 0])
    return features, _all_tokens(before, parents, after) if all_tokens else None


def _all_tokens(before: Prefixes, parents: Tensor | None, after: Tensor | None) -> Tensor:
    """Return the tokens of the beginnings of each row with those that come after, [R, all positions, T]."""
    if before.tokens is None or after is None:
        raise ValueError("the beginnings were encoded without keeping their tokens")
    return torch.cat([before.tokens[parents], after], dim=1)


def _walk(
    backbone: TextSide, before: Prefixes | None, parents: Tensor | None, vectors: Tensor, read: slice | None
) -> Iterator[tuple[Tensor | None, tuple[Tensor, Tensor]]]:
    """Yield after each block the tokens [R, n, T] and the keys and values of all positions so far.

    read: the positions whose tokens the last block computes; None is none at all.
    """
    length, start = vectors.shape[1], 0 if before is None else len(before)
    positions = backbone.clip.positional_embedding[start : start + length]
    tokens = vectors + positions.to(vectors.dtype)
    mask = torch.ones(length, start + length, dtype=torch.bool, device=vectors.device).tril(start)
    blocks = tower_blocks(backbone.clip, "text")
    for index, block in enumerate(blocks):
        normed = block.ln_1(tokens)
        keys, values = key_value_heads(block.attn, normed)
        if before is not None:
            older_keys, older_values = before.keys_values[index]
            keys = torch.cat([older_keys[parents], keys], dim=-2)
            values = torch.cat([older_values[parents], values], dim=-2)
        if index == len(blocks) - 1:
            if read is None:
                yield None, (keys, values)
                return
            tokens, normed, mask = tokens[:, read], normed[:, read], mask[read]
        tokens = tokens + block.ls_1(mix(block.attn, query_heads(block.attn, normed), keys, values, mask))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        yield tokens, (keys, values)
