"""Methods whose only view of an image is CLIP's own image feature (CLIP zero-shot, CoOp, CSP)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Batch, Method, Prepared
from methods.parts.scoring import cosine_logits


class GlobalImageFeature(Method):
    """A method that reads the class token's feature of the frozen tower and nothing else of an image.

    All such methods share `image_features`, so features computed for one of them serve the others. `prepare` leaves the
    unit text features of the candidates as "text" [K, d]; a score is their cosine with the image times CLIP's scale.
    """

    @torch.no_grad()
    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"image": [B, d]}, CLIP's image feature before normalisation, without gradient."""
        return {"image": self.backbone.image_embedding(images)}

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the scaled cosines [B, n] with the candidates of `chunk`."""
        return cosine_logits(batch.encoded["image"], prepared.tensors["text"][chunk], self.backbone.logit_scale)
