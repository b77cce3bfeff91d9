"""The one CLIP that all methods share: open_clip's modules, driven block by block.

`load_backbone("ViT-L-14-quickgelu/openai")` is the paper's backbone, `load_backbone("tiny-icons")` the committed small
one. Importing this package does not import open_clip.
"""

from methods.backbone.blocks import Adapters
from methods.backbone.clip import Backbone, load_backbone
from methods.backbone.loading import build_clip

__all__ = ["Adapters", "Backbone", "build_clip", "load_backbone"]
