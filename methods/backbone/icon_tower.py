"""The image tower of tiny-icons-siglip: timm's own ViT in a size that timm has no name for.

It is SigLIP's in small: no class token, and a learned query that attends to the patches is the image feature. open_clip
builds image towers by timm's names alone, so the name is given to timm here; importing this module is enough.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer


@register_model
def vit_icons_patch8_map_64(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    **options: Any,
) -> VisionTransformer:
    """Return a ViT with random weights: 64 x 64 pixels, patch 8, 6 blocks of width 96, 3 heads, attention pooling.

    pretrained_cfg, pretrained_cfg_overlay, cache_dir: what timm's `create_model` says of weights; there are none, and
        `pretrained` raises ValueError.
    options: what it passes on, `num_classes` and `global_pool` among them.
    """
    if pretrained:
        raise ValueError("timm has no weights of vit_icons_patch8_map_64")
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3, "mlp_ratio": 2.0}
    return VisionTransformer(**{**shape, "class_token": False, "global_pool": "map", **options})
