"""Small inputs for the tests of three-branch methods, and a full-size backbone without numbers."""

from __future__ import annotations

from functools import cache

import numpy as np
import open_clip
import torch

from datasets.base import Candidates, Vocabulary
from methods.backbone import Backbone, build_clip
from methods.backbone.tokens import tokenizer_of
from methods.base import Batch, Method

VOCABULARY = Vocabulary(("Faux.Leather", "red", "wet"), ("Boots.Mid-Calf", "apple", "car", "dog"))


def all_pairs() -> Candidates:
    """All 12 pairs; every third is unseen."""
    pairs = np.stack(np.divmod(np.arange(12), 4), axis=1)
    return Candidates(VOCABULARY, pairs, np.arange(12) % 3 > 0)


def eight_images() -> Batch:
    """Eight random images with their labels among `all_pairs`."""
    pairs = torch.tensor([0, 3, 5, 11, 7, 2, 5, 8])
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(pairs // 4, pairs % 4, pairs, images=images)


def perturb(method: Method, seed: int = 1, size: float = 0.05) -> None:
    """Move every trained tensor away from where it starts, so that no part is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.trained().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@cache
def full_size_backbone(name: str = "ViT-L-14-quickgelu") -> Backbone:
    """A CLIP of open_clip on the meta device: the right shapes, no memory, no numbers."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        clip = build_clip(config, "full size")
    return Backbone.from_open_clip(clip, tokenizer_of(config, "full size"), "full size", digest="")
