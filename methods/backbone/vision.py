"""The image side of the backbone: tokens after any block, raw or projected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.backbone.blocks import Adapters, Extent, walk
from methods.backbone.image_tower import ImageTower, image_tower

if TYPE_CHECKING:
    from open_clip import CLIP


IMAGES_ON_A_CPU = 32
"""Images that go through the tower together there without gradients: the values of a block then stay in its cache."""


class VisionSide:
    """Image methods of `Backbone`. B images, P patches, D vision width, d joint width; nothing is normalised."""

    clip: CLIP
    recompute: bool
    in_passes: bool = True
    """Whether `IMAGES_ON_A_CPU` holds; not where a processor stands for an accelerator, whose memory is estimated."""

    @property
    def vision_width(self) -> int:
        """Width D of the vision tower; 0 of one that gives a pooled feature alone."""
        return self.image_tower.width

    @property
    def n_vision_blocks(self) -> int:
        """Number of blocks of the vision tower; 0 of one that gives a pooled feature alone."""
        return len(self.image_tower.blocks)

    @property
    def n_patches(self) -> int:
        """Number P of patch tokens, without the class token."""
        return self.image_tower.patches

    @property
    def image_tower(self) -> ImageTower:
        """What the vision tower is, and how tokens enter and leave its blocks."""
        return image_tower(self.clip)

    @property
    def image_size(self) -> int:
        """Height and width of the images the model takes, in pixels."""
        size = self.clip.visual.image_size
        return size if isinstance(size, int) else size[0]

    def embed_images(self, images: Tensor) -> Tensor:
        """Return the tokens that enter vision block 0, [B, 1 + P, D] with the class token first, or [B, P, D].

        images: normalised float [B, 3, H, W]; other H and W than `image_size` raise ValueError.
        """
        self._require_size(images)
        return self.image_tower.embed(images)

    def run_vision_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, adapters: Adapters | None = None
    ) -> Tensor:
        """Run vision blocks start..stop-1 on tokens [B, any length, D]; stop None means to the end.

        Blocks with rotary positions (no offer `any_length`) run on the tokens of whole images alone, else ValueError.
        """
        for _, after in walk(self.clip, "vision", tokens, Extent(start, stop, adapters, self.recompute)):
            tokens = after
        return tokens

    def image_tokens(
        self, images: Tensor, taps: Sequence[int] = (-1,), adapters: Adapters | None = None
    ) -> tuple[Tensor, ...]:
        """Return the raw tokens [B, 1 + P, D] after each block in `taps`, in that order; class token first.

        A tower without a class token gives [B, P, D]. A negative tap counts from the last block. Blocks after the last
        tap are not run. A tap outside the tower raises ValueError. `project_tokens` takes the result on to the joint
        space, `joint_tokens` with the image feature in front.
        """
        wanted = [tap + self.n_vision_blocks if tap < 0 else tap for tap in taps]
        if not wanted or not all(0 <= tap < self.n_vision_blocks for tap in wanted):
            raise ValueError(f"taps {tuple(taps)} asked for, the vision tower has {self.n_vision_blocks} blocks")
        return self.read_in_passes(images, lambda part: self._tokens(part, wanted, adapters))

    def read_in_passes(self, images: Tensor, read: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what `read` makes of images, part by part on a processor without gradients, else at once."""
        if images.is_cpu and self.in_passes and not torch.is_grad_enabled():
            passes = [read(part) for part in images.split(IMAGES_ON_A_CPU)]
            return passes[0] if len(passes) == 1 else tuple(torch.cat(parts) for parts in zip(*passes, strict=True))
        return read(images)

    def _tokens(self, images: Tensor, wanted: Sequence[int], adapters: Adapters | None) -> tuple[Tensor, ...]:
        extent = Extent(0, max(wanted) + 1, adapters, self.recompute)
        steps = walk(self.clip, "vision", self.embed_images(images), extent)
        kept = {index: tokens for index, tokens in steps if index in wanted}
        return tuple(kept[tap] for tap in wanted)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Return vision tokens [..., D] of any block in the joint space, after the tower's last norm, [..., d].

        A tower with attention pooling projects the pooled token; its patches go the same way, without the pooling.
        """
        return self.image_tower.project(tokens)

    def patch_tokens(self, tokens: Tensor) -> Tensor:
        """Return the patches [B, P, ...] of what `image_tokens` gave, raw or projected."""
        return tokens[:, self.image_tower.prefix :]

    def pool_tokens(self, tokens: Tensor) -> Tensor:
        """Return the image feature [B, d] of all tokens of an image after the last block."""
        return self.image_tower.pool(tokens)

    def joint_tokens(self, tokens: Tensor) -> Tensor:
        """Return the image feature and then the patches in the joint space, [B, 1 + P, d], of all tokens after a block.

        Of a class token's tower that is all tokens projected.
        """
        tower = self.image_tower
        if tower.class_feature:
            return tower.project(tokens)
        return torch.cat([tower.pool(tokens)[:, None], tower.project(tokens[:, tower.prefix :])], dim=1)

    def image_embedding(self, images: Tensor, adapters: Adapters | None = None) -> Tensor:
        """Return CLIP's image feature [B, d], not normalised. A tower without blocks takes no adapters: ValueError."""
        if self.n_vision_blocks:
            (tokens,) = self.image_tokens(images, adapters=adapters)
            return self.pool_tokens(tokens)
        if adapters:
            raise ValueError(f"unknown adapter slots {', '.join(sorted(adapters))}: the vision tower has no blocks")
        self._require_size(images)
        (feature,) = self.read_in_passes(images, lambda part: (self.image_tower.whole(part).float(),))
        return feature

    def _require_size(self, images: Tensor) -> None:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels, the backbone takes {self.image_size}")
