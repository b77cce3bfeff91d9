"""CoOp for pairs: a learned context before the frozen vectors of state and object, one context for all pairs.

Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022 (arXiv 2109.01134), in the form in
which Nayak et al. (ICLR 2023) compare it with CSP; the code is BatsResearch/csp. CSP learns the words and keeps the
sentence, CoOp keeps the words and learns the sentence.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Ablation, Batch, Losses, MethodConfig, MethodInfo, Prepared
from methods.parts.frozen import GlobalImageFeature
from methods.parts.prompts import PrimitiveTable, SoftPrompt
from methods.parts.scoring import cosine_logits, unit

RANDOM_DEVIATION = 0.02  # of random context vectors, as in Zhou et al.


class CoOpConfig(MethodConfig):
    """Settings of CoOp.

    context_init: start the three context vectors as the words "a photo of", or as small random values.
    """

    context_init: Literal["words", "random"] = "words"


class CoOp(GlobalImageFeature):
    """Context optimisation: learned is `prompt.context` [3, T] and nothing else; `table` is a constant."""

    Config: ClassVar[type[MethodConfig]] = CoOpConfig
    config: CoOpConfig
    info = MethodInfo(
        name="coop",
        title="Context Optimization",
        paper="Zhou, Yang, Loy, Liu, Learning to Prompt for Vision-Language Models",
        venue="IJCV 2022",
        arxiv="2109.01134",
        frozen_image_features=True,
        needs=("pooled_image", "soft_prompt"),
        ablations=(
            Ablation("random_context", {"context_init": "random"}, "How much does starting from 'a photo of' bring?"),
        ),
        deviations=(
            "CSP's variant of CoOp: three context vectors, and one mean vector for each name instead of its tokens",
            "fp32 instead of the official fp16 without loss scaling, whose logits tie often",
            "images are encoded without gradient; the official code computes that gradient and drops it",
            "prompts have the shortest context, 7 tokens, instead of 8 in training and 16 in evaluation: same features",
            "the epoch is chosen on validation; the official code keeps every epoch and chooses outside",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: CoOpConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.table = PrimitiveTable(backbone, vocabulary, trainable=False)
        self.prompt = SoftPrompt(backbone, learn_context=True)
        if config.context_init == "random" and self.prompt.context is not None:
            nn.init.normal_(self.prompt.context, std=RANDOM_DEVIATION)

    def pair_text(self, candidates: Candidates) -> Tensor:
        """Return the text features [K, d] of the candidates before normalisation."""
        return self.prompt.encode(self.backbone, self.table.weight, self.table.pair_rows(candidates))

    def pair_logits(self, batch: Batch, candidates: Candidates) -> Tensor:
        """Return the scaled cosines [B, K] of a training pass."""
        text = unit(self.pair_text(candidates))
        return cosine_logits(self.encode(batch).encoded["image"], text, self.backbone.logit_scale)

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the cross-entropy over the training pairs, mean over the batch."""
        loss = functional.cross_entropy(self.pair_logits(batch, candidates), batch.pairs)
        return Losses(loss, {"pair": loss})

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return {"text": [K, d]}, the unit text features of the candidates."""
        return Prepared(candidates, {"text": unit(self.pair_text(candidates))})
