"""The image side of the backbone: tokens after any block, raw or projected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.backbone.blocks import Adapters, tower_blocks, walk

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
        """Width D of the vision tower."""
        return self.clip.visual.conv1.out_channels

    @property
    def n_vision_blocks(self) -> int:
        """Number of blocks of the vision tower."""
        return len(tower_blocks(self.clip, "vision"))

    @property
    def n_patches(self) -> int:
        """Number P of patch tokens, without the class token."""
        return len(self.clip.visual.positional_embedding) - 1

    @property
    def image_size(self) -> int:
        """Height and width of the images the model takes, in pixels."""
        return self.clip.visual.image_size[0]

    def embed_images(self, images: Tensor) -> Tensor:
        """Return the tokens that enter vision block 0, class token first, [B, 1 + P, D].

        images: normalised float [B, 3, H, W]; other H and W than `image_size` raise ValueError.
        """
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels, the backbone takes {self.image_size}")
        visual = self.clip.visual
        # fp32 under autocast too: what blocks add up over the depth of the tower would be rounded at every sum.
        patches = visual.conv1(images).float().flatten(2).transpose(1, 2)  # [B, P, D]
        class_token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        return visual.ln_pre(tokens + visual.positional_embedding.to(tokens.dtype))

    def run_vision_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, adapters: Adapters | None = None
    ) -> Tensor:
        """Run vision blocks start..stop-1 on tokens [B, any length, D]; stop None means to the end."""
        for _, after in walk(self.clip, "vision", tokens, start, stop, adapters, self.recompute):
            tokens = after
        return tokens

    def image_tokens(
        self, images: Tensor, taps: Sequence[int] = (-1,), adapters: Adapters | None = None
    ) -> tuple[Tensor, ...]:
        """Return the raw tokens [B, 1 + P, D] after each block in `taps`, in that order; class token first.

        A negative tap counts from the last block. Blocks after the last tap are not run. A tap outside the tower
        raises ValueError. `project_tokens` takes the result on to the joint space.
        """
        wanted = [tap + self.n_vision_blocks if tap < 0 else tap for tap in taps]
        if not wanted or not all(0 <= tap < self.n_vision_blocks for tap in wanted):
            raise ValueError(f"taps {tuple(taps)} asked for, the vision tower has {self.n_vision_blocks} blocks")
        passes = [self._tokens(part, wanted, adapters) for part in self.passes_of(images)]
        return passes[0] if len(passes) == 1 else tuple(torch.cat(parts) for parts in zip(*passes, strict=True))

    def passes_of(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the images in parts that go through the tower one after the other: all at once but on a processor
        without gradients."""
        if images.is_cpu and self.in_passes and not torch.is_grad_enabled():
            return images.split(IMAGES_ON_A_CPU)
        return (images,)

    def _tokens(self, images: Tensor, wanted: Sequence[int], adapters: Adapters | None) -> tuple[Tensor, ...]:
        steps = walk(self.clip, "vision", self.embed_images(images), 0, max(wanted) + 1, adapters, self.recompute)
        kept = {index: tokens for index, tokens in steps if index in wanted}
        return tuple(kept[tap] for tap in wanted)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Return vision tokens [..., D] of any block after ln_post and the projection, [..., d]."""
        return self.clip.visual.ln_post(tokens) @ self.clip.visual.proj

    def image_embedding(self, images: Tensor, adapters: Adapters | None = None) -> Tensor:
        """Return CLIP's image feature [B, d], not normalised: the projected class token after the last block."""
        (tokens,) = self.image_tokens(images, adapters=adapters)
        return self.project_tokens(tokens[:, 0])
