"""Walking the blocks of an open_clip tower one at a time, with adapters beside attention and MLP or on their output.

A block's own parts are put together here. An adapter in a slot such as "vision.3.attn" is parallel, as in Troika
(section 4 of its description): it reads the un-normalised input of the sub-layer, and its output is added to the
residual stream. One in "vision.3.attn.out" is sequential, as in CAILA: it reads what the sub-layer gives, and its
output is added to that before the residual addition. Attention and MLP are computed with open_clip's weights, in an
order of operations that costs less (`heads.py`, `feed.py`).
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

# Slot name ("vision.3.attn", "text.0.mlp.out") -> module [..., width] -> [..., width].
Adapters = Mapping[str, Callable[[Tensor], Tensor]]
# The same of one block: "attn", "mlp", "attn.out", "mlp.out"; what is not there is None.
BlockAdapters = Mapping[str, Callable[[Tensor], Tensor] | None]
Tower = Literal["vision", "text"]
Place = Literal["beside", "out"]


def tower_blocks(clip: CLIP, tower: Tower) -> Sequence[ResidualAttentionBlock]:
    """Return the blocks of one tower of an open_clip CLIP."""
    return (clip.visual.transformer if tower == "vision" else clip.transformer).resblocks


def slot_names(clip: CLIP, tower: Tower | None = None, place: Place = "beside") -> tuple[str, ...]:
    """Return the adapter slots of a tower (of both when None): attn and mlp of block 0, of block 1, ...

    place: "beside" a sub-layer's input, or on its "out"put.
    """
    return tuple(
        f"{side}.{index}.{part}{'.out' if place == 'out' else ''}"
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
    of_block = adapters_by_block(clip, tower, adapters)
    length = tokens.shape[1]
    mask = None if tower == "vision" else clip.attn_mask[:length, :length]
    for index in range(start, stop):
        run = partial(_run, blocks[index], mask=mask, adapters=of_block[index])
        if again and torch.is_grad_enabled():
            run = partial(recompute, run, use_reentrant=False)
        tokens = run(tokens)
        yield index, tokens


def adapters_by_block(clip: CLIP, tower: Tower, adapters: Adapters | None) -> list[BlockAdapters]:
    """Return the adapters of each block of a tower; an unknown slot raises ValueError."""
    # A misspelt slot would otherwise just do nothing. Slots of the other tower are fine: one mapping may serve both.
    if adapters and (unknown := sorted({*adapters} - {*slot_names(clip), *slot_names(clip, place="out")})):
        raise ValueError(f"unknown adapter slots {', '.join(unknown)}; see Backbone.slot_names()")
    given = adapters or {}
    return [
        {part: given.get(f"{tower}.{index}.{part}") for part in ("attn", "mlp", "attn.out", "mlp.out")}
        for index in range(len(tower_blocks(clip, tower)))
    ]


def add_sublayer(hidden: Tensor, output: Tensor, part: Literal["attn", "mlp"], adapters: BlockAdapters) -> Tensor:
    """Return h + o + Ad(h) of a sub-layer with input h and output o, with o + Ad_out(o) in the place of o."""
    beside, on_output = adapters[part], adapters[f"{part}.out"]
    added = hidden + (output if on_output is None else output + on_output(output))
    return added if beside is None else added + beside(hidden)


def _run(block: ResidualAttentionBlock, tokens: Tensor, mask: Tensor | None, adapters: BlockAdapters) -> Tensor:
    attended = add_sublayer(tokens, block.ls_1(_attention(block, block.ln_1(tokens), mask)), "attn", adapters)
    return add_sublayer(attended, block.ls_2(feed(block.mlp, block.ln_2(attended))), "mlp", adapters)


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
