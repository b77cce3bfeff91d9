"""CLIP zero-shot: the cosine of the image with "a photo of {state} {object}", nothing trained.

The baseline of Nayak et al. (ICLR 2023), section "CLIP": names are tokenised in full, one template, no ensemble.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from datasets.base import Candidates, clean_label
from methods.base import Batch, Losses, MethodInfo, Prepared
from methods.parts.frozen import GlobalImageFeature
from methods.parts.scoring import unit


class CLIPZeroShot(GlobalImageFeature):
    """CLIP with the full names of state and object in the prompt."""

    info = MethodInfo(
        name="clip_zero_shot",
        title="CLIP zero-shot",
        paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML 2021",
        arxiv="2103.00020",
        trains=False,
        frozen_image_features=True,
        needs=("pooled_image",),
        deviations=(
            "fp32 instead of the official fp16, whose logits tie often; scores are always fp32",
            "the context is as long as the longest prompt instead of 16 tokens, which changes nothing",
        ),
    )

    def pair_text(self, candidates: Candidates) -> Tensor:
        """Return the text features [K, d] of "a photo of {state} {object}", before normalisation.

        Words are tokenised once each, not once per pair.
        """
        words = candidates.vocabulary
        parts = ["a photo of", *map(clean_label, words.states), *map(clean_label, words.objects)]
        pairs = torch.from_numpy(candidates.pairs) + torch.tensor([1, 1 + len(words.states)])
        rows = torch.cat([torch.zeros_like(pairs[:, :1]), pairs], dim=1)
        return self.backbone.encode_ids(self.backbone.tokenize_joined(parts, rows))

    @torch.no_grad()
    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the cross-entropy of the true pair; it carries no gradient, for there is nothing to train."""
        encoded = self.encode(batch)
        logits = self.score(encoded, self.prepare(candidates), slice(None))
        loss = functional.cross_entropy(logits, encoded.pairs)
        return Losses(loss, {"pair": loss})

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return {"text": [K, d]}, the unit text features of the candidates."""
        return Prepared(candidates, {"text": unit(self.pair_text(candidates))})
