"""How the text tower of an open_clip model is read: where its feature is, what its positions see, how it is padded.

    end     the feature is the end token's, the prompt's last (CLIP, MobileCLIP, PE-Core)
    last    that of the last position of the context, which is padding (SigLIP, CLIPA)
    first   that of the first position
    class   that of a class token behind the padding (CoCa)

Where positions see later ones, or the feature lies behind the padding, a text is padded to the whole context as it was
in training, for the padding takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from open_clip import CLIP

Place = Literal["end", "last", "first", "class"]

_PLACES: dict[str, Place] = {"argmax": "end", "eos": "end", "last": "last", "first": "first"}


def text_part(clip: CLIP) -> Any:
    """Return the module that holds the text tower: `CLIP` itself, or the `text` of other classes."""
    return getattr(clip, "text", clip)


@dataclass(frozen=True)
class Reading:
    """How text features are read.

    place: see the module. causal: whether positions see earlier ones alone. end_id: the id of the end token, None where
    it is the largest of a text. context: the longest text, in tokens.
    """

    place: Place
    causal: bool
    end_id: int | None
    context: int

    @property
    def short(self) -> bool:
        """Whether nothing behind the end token counts, so that texts need no padding."""
        return self.causal and self.place == "end"


def reading_of(clip: CLIP) -> Reading | None:
    """Return how a model's text is read; None where it is in a way that is not known here."""
    part = text_part(clip)
    if not hasattr(part, "positional_embedding") or not hasattr(part, "token_embedding"):
        return None
    blocks = [*part.transformer.resblocks]
    if not blocks or not all(hasattr(block, "attention") for block in blocks) or getattr(part, "use_pad_mask", False):
        return None
    pool = getattr(part, "pool_type", None) or getattr(part, "text_pool_type", None)
    classed = getattr(part, "cls_emb", None) is not None
    place = "class" if classed else _PLACES.get(pool or "")
    end_id = None
    if pool == "eos" and not classed:
        end_id = part.text_eos_id if hasattr(part, "text_eos_id") else part.eos_id
    if place is None or (classed and part.correct_cls_mask):
        return None
    return Reading(place, part.attn_mask is not None, end_id, len(part.positional_embedding) - classed)


def joint_width(clip: CLIP) -> int:
    """Return the width d of the joint space."""
    part = text_part(clip)
    projection = getattr(part, "text_projection", None)
    if projection is None:
        return part.output_dim if hasattr(part, "proj") else part.token_embedding.embedding_dim
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]


def project(clip: CLIP, tokens: Tensor) -> Tensor:
    """Return text tokens [..., T] after the last LayerNorm and the projection, [..., d]."""
    part = text_part(clip)
    normed = part.ln_final(tokens)
    if part.text_projection is None:
        return normed
    linear = isinstance(part.text_projection, nn.Linear)
    return part.text_projection(normed) if linear else normed @ part.text_projection


def end_positions(reading: Reading, ids: Tensor, pad: int) -> Tensor:
    """Return the position of the end token of each row of ids, int64 [K], as open_clip finds it."""
    if reading.place == "class":
        return (ids != pad).sum(dim=1) - 1
    if reading.place == "end" and reading.end_id is not None:
        return (ids == reading.end_id).int().argmax(dim=1)
    return ids.argmax(dim=1)  # the end token has the largest id of all


def padded(clip: CLIP, reading: Reading, vectors: Tensor, ends: Tensor, pad: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (what enters text block 0, the mask of its attention) for token vectors [K, L, T] without positions.

    ends: int64 [K], of the end tokens. pad: the padding's vector [T]. The result is as long as the reading needs: L, or
    the whole context, or with a class token that and one more.
    """
    part = text_part(clip)
    positions = part.positional_embedding
    behind = 0 if reading.short else reading.context - vectors.shape[1]
    if behind > 0:
        filling = pad.to(vectors.dtype).expand(len(vectors), behind, -1)
        vectors = torch.cat([vectors, filling], dim=1)
    if reading.place == "class":
        vectors = torch.cat([vectors, part.cls_emb.to(vectors.dtype).expand(len(vectors), 1, -1)], dim=1)
    length = vectors.shape[1]
    mask = None if part.attn_mask is None else part.attn_mask[:length, :length]
    if reading.place == "class":
        # As open_clip masks padding in CoCa: the mask is one position late, so the first padding is seen, and the class
        # token sees itself in texts that fill the context alone.
        seen = torch.arange(length, device=vectors.device) <= (ends + 1)[:, None]  # [K, length]
        assert mask is not None  # a class token is put behind causal text alone
        mask = mask + torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, -torch.inf)[:, None, None]
    return vectors + positions[:length].to(vectors.dtype), mask


def feature_token(reading: Reading, tokens: Tensor, ends: Tensor) -> Tensor:
    """Return the token [K, T] that is the feature, of tokens [K, length, T] after the last block."""
    if reading.place == "end":
        return tokens[torch.arange(len(tokens), device=tokens.device), ends]
    return tokens[:, 0 if reading.place == "first" else -1]
