"""Methods whose only view of an image is CLIP's own image feature (CLIP zero-shot, CoOp, CSP)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Method


class GlobalImageFeature(Method):
    """A method that reads the class token's feature of the frozen tower and nothing else of an image.

    All such methods share this one function, so features computed for one of them serve the others.
    """

    @torch.no_grad()
    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"image": [B, d]}, CLIP's image feature before normalisation, without gradient."""
        return {"image": self.backbone.image_embedding(images)}
