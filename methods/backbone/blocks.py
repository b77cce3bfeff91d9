"""Walking the blocks of an open_clip tower one at a time, with adapters beside attention and MLP.

A block's own parts are put together here, with an adapter as in Troika (section 4 of its description) and CAILA: the
adapter reads the un-normalised input of the sub-layer, and its output is added to the residual stream. Attention and
MLP are computed with open_clip's weights, in an order of operations that costs less (`heads.py`, `feed.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from errors import UserError
from methods.backbone.feed import feed
from methods.backbone.heads import attend_to_itself, in_parts

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock

# Slot name ("vision.3.attn", "text.0.mlp") -> module [..., width] -> [..., width].
Adapters = Mapping[str, Callable[[Tensor], Tensor]]
Tower = Literal["vision", "text"]


def tower_blocks(clip: CLIP, tower: Tower) -> Sequence[ResidualAttentionBlock]:
    """Return the blocks of one tower of an open_clip CLIP."""
    return (clip.visual.transformer if tower == "vision" else clip.transformer).resblocks


def slot_names(clip: CLIP, tower: Tower | None = None) -> tuple[str, ...]:
    """Return the adapter slots of a tower (of both when None): attn and mlp of block 0, of block 1, ..."""
    return tuple(
        f"{side}.{index}.{part}"
        for side in (("vision", "text") if tower is None else (tower,))
        for index in range(len(tower_blocks(clip, side)))
        for part in ("attn", "mlp")
    )


def walk(
    clip: CLIP,
    tower: Tower,
    tokens: Tensor,
    start: int,
    stop: int | None,
    adapters: Adapters | None,
    again: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (block index, tokens [B, L, width] after it) for the blocks start..stop-1 of a tower.

    Text is run under the causal mask cut to L. again: compute a block's activations again in backward instead of
    keeping them. A range outside the tower or an unknown slot raises ValueError.
    """
    blocks = tower_blocks(clip, tower)
    stop = len(blocks) if stop is None else stop
    if not 0 <= start <= stop <= len(blocks):
        raise ValueError(f"blocks {start}..{stop} asked for, the {tower} tower has {len(blocks)}")
    # A misspelt slot would otherwise just do nothing. Slots of the other tower are fine: one mapping may serve both.
    if adapters and (unknown := sorted(set(adapters) - set(slot_names(clip)))):
        raise ValueError(f"unknown adapter slots {', '.join(unknown)}; see Backbone.slot_names()")
    length = tokens.shape[1]
    mask = None if tower == "vision" else clip.attn_mask[:length, :length]
    for index in range(start, stop):
        beside_attention = (adapters or {}).get(f"{tower}.{index}.attn")
        beside_mlp = (adapters or {}).get(f"{tower}.{index}.mlp")
        run = partial(_run, blocks[index], mask=mask, beside_attention=beside_attention, beside_mlp=beside_mlp)
        if again and torch.is_grad_enabled():
            run = partial(recompute, run, use_reentrant=False)
        tokens = run(tokens)
        yield index, tokens


def _run(
    block: ResidualAttentionBlock,
    tokens: Tensor,
    mask: Tensor | None,
    beside_attention: Callable[[Tensor], Tensor] | None,
    beside_mlp: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Return h + Attn(LN1 h) + Ad(h), then h + MLP(LN2 h) + Ad'(h)."""
    attended = tokens + block.ls_1(_attention(block, block.ln_1(tokens), mask))
    if beside_attention is not None:
        attended = attended + beside_attention(tokens)
    mixed = attended + block.ls_2(feed(block.mlp, block.ln_2(attended)))
    return mixed if beside_mlp is None else mixed + beside_mlp(attended)


def _attention(block: ResidualAttentionBlock, normed: Tensor, mask: Tensor | None) -> Tensor:
    if in_parts(block.attn):
        return attend_to_itself(block.attn, normed, mask)
    return block.attention(q_x=normed, attn_mask=mask)


def require_plain_vit(clip: CLIP, name: str) -> None:
    """Raise `UserError` unless the model is a ViT CLIP whose parts mean what this package takes them to mean."""
    visual = getattr(clip, "visual", None)
    blocks = [] if visual is None or not hasattr(visual, "transformer") else [*visual.transformer.resblocks]
    blocks += [*clip.transformer.resblocks] if hasattr(clip, "transformer") else []
    wanted = {
        "a class token that is the image feature": getattr(visual, "pool_type", None) == "tok"
        and getattr(visual, "attn_pool", None) is None,
        "square images": len(set(getattr(visual, "image_size", (0, 1)))) == 1,
        "a causal text tower": getattr(clip, "attn_mask", None) is not None,
        "the text feature at the end token": getattr(clip, "text_pool_type", None) == "argmax",
        "a text projection without bias": isinstance(getattr(clip, "text_projection", None), nn.Parameter),
        "open_clip's ordinary blocks": bool(blocks) and all(hasattr(block, "attention") for block in blocks),
    }
    if missing := [what for what, there in wanted.items() if not there]:
        raise UserError(
            f"The model '{name}' cannot be the backbone.",
            f"It lacks {', '.join(missing)}.",
            "Choose an open_clip CLIP with a ViT image tower, such as ViT-L-14-quickgelu/openai.",
        )


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict as fp32: names, shapes and values in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
