"""CSP: one learned vector per state and per object in the prompt "a photo of [state] [object]".

Nayak, Yu, Bach, "Learning to Compose Soft Prompts for Compositional Zero-Shot Learning", ICLR 2023 (arXiv 2204.03574);
the authors' code is BatsResearch/csp. An unseen pair is two vectors that were each learned from other pairs. Both
encoders stay frozen; the loss is the cross-entropy over all training pairs.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Ablation, Batch, Losses, MethodConfig, MethodInfo, Prepared
from methods.parts.frozen import GlobalImageFeature
from methods.parts.prompts import PrimitiveTable, SoftPrompt
from methods.parts.scoring import cosine_logits, unit


class CSPConfig(MethodConfig):
    """Settings of CSP.

    dropout: probability of an element of the table to be zero in a training pass (the code calls it attribute dropout;
        it falls on objects too)
    learn_context: train "a photo of" as well, one context for all pairs
    init: what the rows start as, the mean of the label's token embeddings or random values of the same deviation
    """

    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    learn_context: bool = False
    init: Literal["words", "random"] = "words"


class CSP(GlobalImageFeature):
    """Compositional soft prompting: learned are the rows of `table` and nothing else."""

    Config: ClassVar[type[MethodConfig]] = CSPConfig
    config: CSPConfig
    info = MethodInfo(
        name="csp",
        title="Compositional Soft Prompting",
        paper="Nayak, Yu, Bach, Learning to Compose Soft Prompts for Compositional Zero-Shot Learning",
        venue="ICLR 2023",
        arxiv="2204.03574",
        frozen_image_features=True,
        needs=("pooled_image", "soft_prompt"),
        ablations=(
            Ablation("no_dropout", {"dropout": 0.0}, "Does dropout on the learned vectors help unseen pairs?"),
            Ablation("learned_context", {"learn_context": True}, "Does learning 'a photo of' as well help?"),
            Ablation("random_init", {"init": "random"}, "How much do the words' own embeddings bring?"),
        ),
        deviations=(
            "fp32 instead of the official fp16 without loss scaling, whose logits tie often",
            "images are encoded without gradient; the official code computes that gradient and drops it",
            "prompts have the shortest context, 7 tokens, instead of 8 in training and 16 in evaluation: same features",
            "the epoch is chosen on validation; the official code keeps every epoch and chooses outside",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: CSPConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.table = PrimitiveTable(backbone, vocabulary, config.dropout, config.init)
        self.prompt = SoftPrompt(backbone, learn_context=config.learn_context)

    def pair_text(self, candidates: Candidates, table: Tensor) -> Tensor:
        """Return the text features [K, d] of the candidates before normalisation, for a table [A + O, T]."""
        return self.prompt.encode(self.backbone, table, self.table.pair_rows(candidates))

    def pair_logits(self, batch: Batch, candidates: Candidates) -> Tensor:
        """Return the logits [B, K] of a training pass: all candidates under one dropout mask."""
        text = unit(self.pair_text(candidates, self.table()))
        return cosine_logits(self.encode(batch).encoded["image"], text, self.backbone.logit_scale)

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the cross-entropy over the training pairs, mean over the batch (the paper's equation 2).

        The paper's weight penalty is the optimizer's weight decay.
        """
        loss = functional.cross_entropy(self.pair_logits(batch, candidates), batch.pairs)
        return Losses(loss, {"pair": loss})

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return {"text": [K, d]}, the unit text features of the candidates, never under dropout."""
        return Prepared(candidates, {"text": unit(self.pair_text(candidates, self.table.weight))})
