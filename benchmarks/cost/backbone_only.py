"""The backbone alone, in a method's clothes: what a method with soft prompts must compute at the least.

In a training step: the frozen image tower once over the batch, without gradient; the text tower over all training pairs
("a photo of [state] [object]", shared prefixes) with the gradient of the vectors of states and objects. In evaluation:
the image tower. Images and texts are never compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.prompts import PrimitiveTable, SoftPrompt

NAME = "backbone"


class BackboneOnly(Method):
    """Not registered: there is nothing to learn from it."""

    info = MethodInfo(name=NAME, title="backbone only", paper="", frozen_image_features=True)

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: MethodConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.table = PrimitiveTable(backbone, vocabulary)
        self.prompt = SoftPrompt(backbone)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return CLIP's image feature [B, d]."""
        return {"image": self.backbone.image_embedding(images)}

    def _text(self, candidates: Candidates) -> Tensor:
        return self.prompt.encode(self.backbone, self.table(), self.table.pair_rows(candidates))

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return a number whose gradient reaches every prompt; the images add nothing to it."""
        self.encode(batch)
        return Losses(self._text(candidates).sum())

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return the text features [K, d] of the candidates."""
        return Prepared(candidates, {"text": self._text(candidates)})

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return zeros [B, n]: nothing is compared."""
        image = batch.encoded["image"]
        return image.new_zeros(len(image), len(range(*chunk.indices(len(prepared.candidates)))))
