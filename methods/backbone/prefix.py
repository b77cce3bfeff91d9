"""Text features of prompts that share their beginnings: each shared beginning is encoded once.

Text attention is causal, so what a block computes at a position depends on that position and the earlier ones alone.
In "a photo of [state] [object]" the words before the state are the same for all pairs and the state's position is the
same for all pairs of that state: only the object and the end token are a pair's own, 2 positions of 7. Positions are
encoded level by level. Of a finished level the keys and values of every block are kept, and later levels attend to
them (`prefix_attention.py`). The numbers are those of `Backbone.encode_text` up to rounding, and gradients flow
through all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from methods.backbone.blocks import Adapters, adapters_by_block, add_sublayer, tower_blocks
from methods.backbone.feed import feed
from methods.backbone.fused_attention import attend_fused
from methods.backbone.heads import in_parts
from methods.backbone.prefix_attention import Beginning, attend_after
from methods.backbone.products import linear
from methods.backbone.text_tower import text_part

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock

    from methods.backbone.text import TextSide


@dataclass(frozen=True)
class Prefixes:
    """R encoded beginnings, whose last n tokens were encoded together.

    keys_values: of each block, each [R, n, T], of the last n tokens. tokens: [R, all, T] after the last block, if they
    were asked for. before, parents: the beginnings that these extend and, int64 [R], which of them each does; both None
    at the start of the text.
    """

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    tokens: Tensor | None
    before: Prefixes | None
    parents: Tensor | None

    def __len__(self) -> int:
        """Return the number of tokens, those of `before` included."""
        return self.keys_values[0][0].shape[-2] + (0 if self.before is None else len(self.before))


def can_share(backbone: TextSide) -> bool:
    """Return whether text is causal, its feature the end token's, and attention held as it is taken apart here."""
    return backbone.reading.short and all(in_parts(block.attn) for block in _blocks(backbone.clip))


def extend(
    backbone: TextSide,
    before: Prefixes | None,
    parents: Tensor | None,
    vectors: Tensor,
    *,
    tokens: bool = False,
    adapters: Adapters | None = None,
) -> Prefixes:
    """Return beginnings that are longer by the token vectors [R, n, T] (without positions).

    before, parents: the beginnings to extend and, int64 [R], which of them each row extends; both None at the start of
    the text. tokens: keep the tokens after the last block, for `finish` with all_tokens. adapters: the same all along.
    """
    steps = list(_walk(backbone, before, parents, vectors, slice(None) if tokens else None, adapters))
    after, _ = steps[-1]
    if tokens and before is not None:
        after = _all_tokens(before, parents, after)
    return Prefixes(tuple(keys_values for _, keys_values in steps), after, before, parents)


def finish(
    backbone: TextSide,
    before: Prefixes,
    parents: Tensor,
    vectors: Tensor,
    end: int,
    *,
    all_tokens: bool = False,
    adapters: Adapters | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the text features [C, d] of prompts that end with the token vectors [C, n, T] (without positions).

    before, parents, adapters: see `extend`. end: which of the n vectors is the end token. all_tokens: return as second
    value the tokens [C, L, T] of all positions before ln_final; otherwise, it is None and the last block computes the
    end token alone.
    """
    steps = _walk(backbone, before, parents, vectors, slice(None) if all_tokens else slice(end, end + 1), adapters)
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
    backbone: TextSide,
    before: Prefixes | None,
    parents: Tensor | None,
    vectors: Tensor,
    read: slice | None,
    adapters: Adapters | None,
) -> Iterator[tuple[Tensor | None, tuple[Tensor, Tensor]]]:
    """Yield after each block the tokens [R, n, T] and their keys and values.

    read: the positions whose tokens the last block computes; None is none at all.
    """
    length, start = vectors.shape[1], 0 if before is None else len(before)
    positions = text_part(backbone.clip).positional_embedding[start : start + length]
    tokens = vectors + positions.to(vectors.dtype)
    # Row by row, what a position may see: all that comes before these tokens, and of these up to itself.
    mask = torch.ones(length, start + length, dtype=torch.bool, device=vectors.device).tril(start)
    levels = list(_levels(before, parents))
    blocks = _blocks(backbone.clip)
    of_block = adapters_by_block(backbone.clip, "text", adapters)
    for index, block in enumerate(blocks):
        normed = block.ln_1(tokens)
        weight, bias, width = block.attn.in_proj_weight, block.attn.in_proj_bias, block.attn.embed_dim
        last = index == len(blocks) - 1
        if not last:
            projected = linear(normed, weight, bias).unflatten(-1, (3, width))
            queries, keys, values = projected.unbind(-2)
        else:
            projected = linear(normed, weight[width:], bias[width:]).unflatten(-1, (2, width))
            keys, values = projected.unbind(-2)
            if read is None:
                yield None, (keys, values)
                return
            tokens, mask = tokens[:, read], mask[read]
            queries = linear(normed[:, read], weight[:width], bias[:width])
        beginnings = [Beginning(*level.keys_values[index], rows) for level, rows in levels]
        if tokens.is_cpu:
            found = attend_after(queries, keys, values, beginnings, mask[:, start:], block.attn.num_heads)
        else:
            sees_all = length == 1 or (last and read == slice(length - 1, length))
            hidden = None if sees_all else mask
            found = attend_fused(queries, keys, values, beginnings, hidden, block.attn.num_heads)
        out = block.attn.out_proj
        tokens = add_sublayer(tokens, block.ls_1(linear(found, out.weight, out.bias)), "attn", of_block[index])
        tokens = add_sublayer(tokens, block.ls_2(feed(block.mlp, block.ln_2(tokens))), "mlp", of_block[index])
        yield tokens, (keys, values)


def _blocks(clip: CLIP) -> Sequence[ResidualAttentionBlock]:
    """Return the text blocks, which are open_clip's own wherever `can_share` is asked."""
    return cast("Sequence[ResidualAttentionBlock]", tower_blocks(clip, "text"))


def _levels(before: Prefixes | None, parents: Tensor | None) -> Iterator[tuple[Prefixes, Tensor | None]]:
    """Yield the beginnings back to the start of the text, and which of them each row has, None where there is one."""
    while before is not None:
        yield before, None if len(before.keys_values[0][0]) == 1 else parents
        parents = None if before.parents is None or parents is None else before.parents[parents]
        before = before.before
