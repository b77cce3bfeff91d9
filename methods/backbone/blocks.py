"""Walking the blocks of a tower one at a time, with adapters beside attention and MLP or on what they give.

A block's own parts are put together here: those of open_clip's blocks, and in image towers those of timm's ViT and EVA.
An adapter has one of two places, and reads and adds without a normalisation in between:

    vision.3.attn      the sub-layer's un-normalised input h; added to the residual stream (Troika, section 4)
    vision.3.attn.out  the sub-layer's output o; o + Ad(o) goes into the residual stream (CAILA)

Attention and MLP of open_clip's blocks are computed with its weights, in an order of operations that costs less
(`heads.py`, `feed.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from errors import UserError
from methods.backbone.feed import feed
from methods.backbone.heads import attend_to_itself, in_parts
from methods.backbone.image_tower import image_tower
from methods.backbone.text_tower import reading_of, text_part

if TYPE_CHECKING:
    from open_clip import CLIP

# Slot name ("vision.3.attn", "text.0.mlp.out") -> module [..., width] -> [..., width].
Adapters = Mapping[str, Callable[[Tensor], Tensor]]
Tower = Literal["vision", "text"]
Place = Literal["beside", "out"]
_SubLayer = Callable[[Tensor], Tensor]
# The adapters of one block: "attn", "mlp", "attn.out", "mlp.out"; None where there is none.
BlockAdapters = Mapping[str, Callable[[Tensor], Tensor] | None]


def tower_blocks(clip: CLIP, tower: Tower) -> Sequence[nn.Module]:
    """Return the blocks of one tower of an open_clip model, none of an image tower that cannot be walked."""
    return image_tower(clip).blocks if tower == "vision" else text_part(clip).transformer.resblocks


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


@dataclass(frozen=True)
class Extent:
    """Which blocks of a tower run, and how: start..stop-1, all from start on where stop is None.

    adapters: by slot. again: compute a block's activations again in backward instead of keeping them.
    """

    start: int = 0
    stop: int | None = None
    adapters: Adapters | None = None
    again: bool = False


def walk(
    clip: CLIP, tower: Tower, tokens: Tensor, extent: Extent, mask: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield (block index, tokens [B, L, width] after it) for the blocks of an extent of a tower.

    mask: additive, of the attention. A range outside the tower or an unknown slot raises ValueError.
    """
    blocks = tower_blocks(clip, tower)
    start, stop = extent.start, len(blocks) if extent.stop is None else extent.stop
    if not 0 <= start <= stop <= len(blocks):
        raise ValueError(f"blocks {start}..{stop} asked for, the {tower} tower has {len(blocks)}")
    of_block = adapters_by_block(clip, tower, extent.adapters)
    rotary = image_tower(clip).positions(tokens.shape[1]) if tower == "vision" and stop > start else None
    for index in range(start, stop):
        attention, mlp = _sub_layers(blocks[index], mask if rotary is None else rotary[index])
        run = partial(_run, attention=attention, mlp=mlp, adapters=of_block[index])
        if extent.again and torch.is_grad_enabled():
            run = partial(recompute, run, use_reentrant=False)
        tokens = run(tokens)
        yield index, tokens


def adapters_by_block(clip: CLIP, tower: Tower, adapters: Adapters | None) -> list[BlockAdapters]:
    """Return the adapters of each block of a tower; an unknown slot raises ValueError."""
    given = adapters or {}
    # A misspelt slot would otherwise just do nothing. Slots of the other tower are fine: one mapping may serve both.
    known = {*slot_names(clip), *slot_names(clip, place="out")} if given else set()
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown adapter slots {', '.join(unknown)}; see Backbone.slot_names()")
    return [
        {part: given.get(f"{tower}.{index}.{part}") for part in ("attn", "mlp", "attn.out", "mlp.out")}
        for index in range(len(tower_blocks(clip, tower)))
    ]


def add_sublayer(hidden: Tensor, output: Tensor, part: Literal["attn", "mlp"], adapters: BlockAdapters) -> Tensor:
    """Return h + o + Ad(h) of a sub-layer with input h and output o, with o + Ad_out(o) in the place of o."""
    beside, on_output = adapters[part], adapters[f"{part}.out"]
    added = hidden + (output if on_output is None else output + on_output(output))
    return added if beside is None else added + beside(hidden)


def _run(tokens: Tensor, attention: _SubLayer, mlp: _SubLayer, adapters: BlockAdapters) -> Tensor:
    attended = add_sublayer(tokens, attention(tokens), "attn", adapters)
    return add_sublayer(attended, mlp(attended), "mlp", adapters)


def _sub_layers(block: Any, beside: Tensor | None) -> tuple[_SubLayer, _SubLayer]:
    """Return what a block adds to the residual stream by attention and by its MLP, each a function of the stream.

    beside: the mask of open_clip's blocks, the rotary positions of EVA's.
    """
    if hasattr(block, "ln_1"):  # open_clip's
        return (
            lambda tokens: block.ls_1(_attention(block, block.ln_1(tokens), beside)),
            lambda tokens: block.ls_2(feed(block.mlp, block.ln_2(tokens))),
        )
    if hasattr(block, "ls1"):  # timm's ViT
        return (
            lambda tokens: block.ls1(block.attn(block.norm1(tokens))),
            lambda tokens: block.ls2(block.mlp(block.norm2(tokens))),
        )
    if hasattr(block, "gamma_1"):  # timm's EVA
        return (
            lambda tokens: _scaled(block.gamma_1, block.attn(block.norm1(tokens), rope=beside)),
            lambda tokens: _scaled(block.gamma_2, block.mlp(block.norm2(tokens))),
        )
    return (  # EVA with the normalisation behind
        lambda tokens: block.norm1(block.attn(tokens, rope=beside)),
        lambda tokens: block.norm2(block.mlp(tokens)),
    )


def _scaled(factor: Tensor | None, found: Tensor) -> Tensor:
    return found if factor is None else factor * found


def _attention(block: Any, normed: Tensor, mask: Tensor | None) -> Tensor:
    if in_parts(block.attn):
        return attend_to_itself(block.attn, normed, mask)
    return block.attention(q_x=normed, attn_mask=mask)


def require_readable(clip: CLIP, name: str) -> None:
    """Raise `UserError` unless the parts of a model mean what this package takes them to mean."""
    size = getattr(getattr(clip, "visual", None), "image_size", (0, 1))
    known = reading_of(clip) is not None
    wanted = {
        "an image tower for square images": isinstance(size, int) or len(set(size)) == 1,
        "a text tower of open_clip with its feature at the end token, at an end of the context or a class token": known,
    }
    if missing := [what for what, there in wanted.items() if not there]:
        raise UserError(
            f"The model '{name}' cannot be the backbone.",
            f"It lacks {', '.join(missing)}.",
            "Choose another model, see 'list backbones', such as ViT-L-14-quickgelu/openai.",
        )


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict as fp32: names, shapes and values in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
