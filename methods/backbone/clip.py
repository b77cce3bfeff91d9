"""The shared CLIP: an open_clip model whose towers can be run block by block, as far as they have blocks.

Nothing of CLIP is written again here: every block, norm and projection is open_clip's own module. What is added is the
walk over the blocks, so that a method can read tokens after any vision block (MSCI, DFSP), write its own vectors into a
prompt (CSP, CoOp), or add adapters beside attention and MLP (Troika) or on their
output (CAILA). Adapters are handed over per call, so a method may have several sets of them.

Widths and counts are asked of the model. CLIP's weights are frozen and in evaluation mode unless a method asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from datasets.resizing import Resizing
from methods.backbone.blocks import Place, Tower, require_readable, slot_names, tower_blocks, weights_digest
from methods.backbone.loading import find_clip
from methods.backbone.origin import OPENAI_MEAN, OPENAI_STD, Origin
from methods.backbone.text import TextSide
from methods.backbone.text_tower import joint_width
from methods.backbone.vision import VisionSide
from methods.offers import ALWAYS, TEXT_BLOCKS, TEXT_CAUSAL, TEXT_TOKENS

if TYPE_CHECKING:
    from open_clip import CLIP, SimpleTokenizer


class Backbone(VisionSide, TextSide, nn.Module):
    """An open_clip CLIP with token taps, adapter slots and text from embeddings.

    Build one with `load_backbone` or `Backbone.from_open_clip`.

    name: what it was loaded as, for records. digest: hexadecimal SHA-256 of the weights as they were loaded, and of the
    preprocessing that a weights file asks for. origin: where they come from; None if they were not loaded by name.
    text_chunk: prompts per pass of the text tower where a call does not say. recompute: whether activations are
    computed again in backward instead of kept: those of a pass of the text tower, of a vision block, and of whatever
    else of a method goes in passes. shared_prefix: whether prompts encode a beginning that they share once instead of
    once each (`prefix.py`). These fit memory or save work and change only rounding.
    """

    def __init__(self, clip: CLIP, tokenizer: SimpleTokenizer, name: str, digest: str) -> None:
        super().__init__()
        self.clip = clip.float().requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.name = name
        self.digest = digest
        self.origin: Origin | None = None
        self.text_chunk = 1024
        self.recompute = False
        self.shared_prefix = True

    @classmethod
    def from_open_clip(cls, model: CLIP, tokenizer: SimpleTokenizer, name: str, digest: str | None = None) -> Backbone:
        """Wrap an `open_clip.CLIP` and its `SimpleTokenizer`; the model is cast to fp32 and frozen in place.

        digest: SHA-256 of the weights, computed when None. A model that has to be read otherwise is a `UserError`.
        """
        require_readable(model, name)
        return cls(model, tokenizer, name, weights_digest(model.state_dict()) if digest is None else digest)

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of this module; CLIP itself stays in evaluation mode (no patch dropout)."""
        super().train(mode)
        self.clip.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip.logit_scale.device

    @property
    def embed_dim(self) -> int:
        """Width d of the joint space."""
        return joint_width(self.clip)

    @property
    def offers(self) -> frozenset[str]:
        """What methods may ask of it, a part of `offers.OFFERS`."""
        reading = self.reading
        at_end = reading.place == "end"
        text = TEXT_BLOCKS | (TEXT_TOKENS if at_end else frozenset()) | (TEXT_CAUSAL if reading.short else frozenset())
        return ALWAYS | self.image_tower.offers | text

    @property
    def image_mean(self) -> tuple[float, ...]:
        """Channel means that images are normalised with."""
        return tuple(getattr(self.clip.visual, "image_mean", None) or OPENAI_MEAN)

    @property
    def image_std(self) -> tuple[float, ...]:
        """Channel deviations that images are normalised with."""
        return tuple(getattr(self.clip.visual, "image_std", None) or OPENAI_STD)

    @property
    def resizing(self) -> Resizing:
        """How images are brought to `image_size`."""
        return Resizing.of(getattr(self.clip.visual, "preprocess_cfg", None) or {})

    @property
    def logit_scale(self) -> Tensor:
        """Factor of the cosine, exp of the stored logarithm: a scalar tensor (100 in OpenAI's weights)."""
        return self.clip.logit_scale.exp().reshape(())

    def activation(self, tower: Tower) -> nn.Module:
        """Return a new module of the kind that the MLPs of a tower have between their linear maps."""
        mlp = tower_blocks(self.clip, tower)[0].get_submodule("mlp")
        return type(mlp.get_submodule("gelu" if hasattr(mlp, "gelu") else "act"))()  # open_clip's name, timm's

    def slot_names(self, tower: Tower | None = None, place: Place = "beside") -> tuple[str, ...]:
        """Return the adapter slots of a tower (of both when None): attn and mlp of block 0, of block 1, ...

        place: "beside" a sub-layer's input ("vision.0.attn"), or on its "out"put ("vision.0.attn.out").
        """
        return slot_names(self.clip, tower, place)


def load_backbone(name: str, seed: int = 0) -> Backbone:
    """Return the backbone called `name`: fp32, frozen, on the CPU.

    name: "tiny-icons", or an open_clip model and its weights, "<model>/<pretrained tag>", "<model>/<local file>" or
    "<model>/random"; a file is looked for in CZSL_HOME/weights as well. seed: of random weights; nothing else depends
    on it. Anything that cannot be loaded is a `UserError`.
    """
    clip, tokenizer, recorded, origin = find_clip(name, seed)
    backbone = Backbone.from_open_clip(clip, tokenizer, recorded)
    if origin is not None:
        backbone.origin, backbone.digest = origin, origin.digest(backbone.digest)
    return backbone
