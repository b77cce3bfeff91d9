"""The text tower with another activation in its MLPs and the same weights, for codes that ran CLIP in another form.

OpenAI's CLIP was trained with QuickGELU. A code that builds its text tower with GELU and loads the same weights gets
other features (in open_clip that is the difference of `ViT-L-14` and `ViT-L-14-quickgelu`). Here that is a second view
of the one backbone that all methods share: nothing of CLIP is copied or changed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from methods.backbone.text import TextSide

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock

    from methods.backbone.clip import Backbone


class OtherActivation(TextSide):
    """The text side of a backbone whose text blocks have `activation()` in the place of their own activation.

    Everything else is the backbone's, as it stands when it is asked for: weights, device, passes, recomputing.
    """

    def __init__(self, backbone: Backbone, activation: Callable[[], nn.Module]) -> None:
        self._backbone = backbone
        blocks = [_with(block, activation) for block in backbone.clip.transformer.resblocks]
        self.clip = cast("CLIP", _View(backbone, SimpleNamespace(resblocks=blocks)))

    def __getattr__(self, name: str) -> Any:  # asked for what is not found here
        return getattr(self.__dict__["_backbone"], name)


class _View:
    """CLIP with another `transformer`; a tensor is asked of CLIP each time, which may have moved."""

    def __init__(self, backbone: Backbone, transformer: SimpleNamespace) -> None:
        self._backbone = backbone
        self.transformer = transformer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_backbone"].clip, name)


def _with(block: ResidualAttentionBlock, activation: Callable[[], nn.Module]) -> SimpleNamespace:
    """Return what walking the blocks uses of one, with the MLP's linear maps around another activation."""
    kept = {name: getattr(block, name) for name in ("ln_1", "attn", "attention", "ls_1", "ln_2", "ls_2")}
    parts = [part if any(True for _ in part.parameters()) else activation() for part in block.mlp.children()]
    return SimpleNamespace(**kept, mlp=nn.Sequential(*parts))
