"""What an image tower offers beside its pooled feature, and how tokens enter and leave its blocks.

Three kinds, all of them open_clip's or timm's own modules:

    OpenClipTower   open_clip's ViT: a class token or the mean of the patches is the feature
    TimmTower       timm's ViT and EVA: class token, mean or attention pooling; some with rotary positions
    PooledTower     every other tower (ConvNeXt, ResNet, FastViT, Swin ...): one feature of the whole image
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.offers import IMAGE_ANY_LENGTH, IMAGE_BLOCKS, IMAGE_CLASS_TOKEN

if TYPE_CHECKING:
    from open_clip import CLIP


class ImageTower:
    """A tower of images. B images, P patches, D width, d joint width; nothing is normalised.

    blocks: its blocks in order, none where nothing can be read in between.
    width: D.
    patches: P.
    prefix: number of tokens before the patches, 0 or 1.
    class_feature: whether the projected class token after the last block is the image feature.
    """

    blocks: Sequence[nn.Module] = ()
    width: int = 0
    patches: int = 0
    prefix: int = 0
    class_feature: bool = False

    def __init__(self, visual: nn.Module) -> None:
        self.visual: Any = visual

    @property
    def offers(self) -> frozenset[str]:
        """What methods may ask of its images, see `offers.OFFERS`."""
        return frozenset()

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens [B, prefix + P, D] that enter block 0."""
        raise NotImplementedError

    def positions(self, length: int) -> Sequence[Tensor | None]:
        """Return for each block the rotary positions of a sequence of `length` tokens, None where there are none."""
        return [None] * len(self.blocks)

    def pool(self, tokens: Tensor) -> Tensor:
        """Return the image feature [B, d] of tokens [B, prefix + P, D] after the last block."""
        raise NotImplementedError

    def project(self, tokens: Tensor) -> Tensor:
        """Return tokens [..., D] of any block in the joint space, [..., d]."""
        raise NotImplementedError

    def whole(self, images: Tensor) -> Tensor:
        """Return the image feature [B, d], block by block where that is possible."""
        raise NotImplementedError


class PooledTower(ImageTower):
    """A tower that gives one feature of the whole image."""

    def whole(self, images: Tensor) -> Tensor:
        found = self.visual(images)
        return found[0] if isinstance(found, tuple) else found  # CoCa's gives its tokens for captions, too


class OpenClipTower(ImageTower):
    """open_clip's own ViT without attention pooling."""

    prefix = 1

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual)
        self.blocks = self.visual.transformer.resblocks
        self.width = self.visual.conv1.out_channels
        self.patches = len(self.visual.positional_embedding) - 1
        self.class_feature = self.visual.pool_type == "tok"

    @property
    def offers(self) -> frozenset[str]:
        return IMAGE_BLOCKS | IMAGE_ANY_LENGTH | (IMAGE_CLASS_TOKEN if self.class_feature else frozenset())

    def embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        # fp32 under autocast too: what blocks add up over the depth of the tower would be rounded at every sum.
        patches = visual.conv1(images).float().flatten(2).transpose(1, 2)  # [B, P, D]
        class_token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        return visual.ln_pre(tokens + visual.positional_embedding.to(tokens.dtype))

    def pool(self, tokens: Tensor) -> Tensor:
        if self.class_feature:
            return self.project(tokens[:, 0])
        pooled, _ = self.visual._pool(tokens)
        return pooled @ self.visual.proj

    def project(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens) @ self.visual.proj


class TimmTower(ImageTower):
    """timm's ViT or EVA within open_clip's `TimmModel`."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual)
        self.trunk = self.visual.trunk
        self.blocks = self.trunk.blocks
        self.width = self.trunk.embed_dim
        self.patches = self.trunk.patch_embed.num_patches
        self.prefix = self.trunk.num_prefix_tokens
        self.class_feature = self.trunk.global_pool == "token"

    @property
    def offers(self) -> frozenset[str]:
        free = frozenset() if self._rope() is not None else IMAGE_ANY_LENGTH
        return IMAGE_BLOCKS | free | (IMAGE_CLASS_TOKEN if self.class_feature else frozenset())

    def embed(self, images: Tensor) -> Tensor:
        placed = self.trunk._pos_embed(self.trunk.patch_embed(images))
        return self.trunk.norm_pre(placed[0] if isinstance(placed, tuple) else placed).float()

    def positions(self, length: int) -> Sequence[Tensor | None]:
        rope = self._rope()
        if rope is None:
            return [None] * len(self.blocks)
        if length != self.prefix + self.patches:
            raise ValueError(f"{length} tokens: rotary positions are known for the {self.patches} patches of an image")
        known = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(self.trunk.patch_embed.grid_size)
        mixed = getattr(self.trunk, "rope_mixed", False)  # then each block has its own
        return list(known) if mixed else [known] * len(self.blocks)

    def pool(self, tokens: Tensor) -> Tensor:
        return self.visual.head(self.trunk.forward_head(self.trunk.norm(tokens)))

    def project(self, tokens: Tensor) -> Tensor:
        trunk = self.trunk
        return self.visual.head(trunk.head(trunk.fc_norm(trunk.norm(tokens))))

    def _rope(self) -> Any:
        return getattr(self.trunk, "rope", None)


def image_tower(clip: CLIP) -> ImageTower:
    """Return how the images of an open_clip model are read."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    visual = clip.visual
    if isinstance(visual, VisionTransformer):
        ordinary = all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
        known = visual.pool_type == "tok" or (visual.pool_type == "avg" and visual.final_ln_after_pool)
        return OpenClipTower(visual) if ordinary and known and visual.attn_pool is None else PooledTower(visual)
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and _timm_kind(trunk):
        pooled = trunk.global_pool in ("token", "avg", "map") and trunk.num_prefix_tokens <= 1
        return TimmTower(visual) if pooled else PooledTower(visual)
    return PooledTower(visual)


def _timm_kind(trunk: nn.Module) -> bool:
    from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
    from timm.models.vision_transformer import Block, VisionTransformer

    known = {VisionTransformer: (Block,), Eva: (EvaBlock, EvaBlockPostNorm)}.get(type(trunk))
    blocks: Any = getattr(trunk, "blocks", ())
    return known is not None and all(type(block) in known for block in blocks)
