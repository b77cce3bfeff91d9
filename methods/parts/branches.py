"""The frame that Troika and MSCI share: three branches, image adapters, soft prompts, one score.

A pair, its state and its object are each recognised by a branch of its own: a prompt family on the text side; the
image feature, or what a disentangler makes of it, on the image side. Before they are compared, every text feature is
drawn towards the image by cross-attention; how, a subclass says in `attract`. CLIP is frozen; adapters are trained in
its image tower.

B images, T image tokens, d joint width; K pairs, A states, O objects.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Batch, Losses
from methods.parts.adapters import AdapterBank, placed
from methods.parts.branch_scoring import BranchScoring
from methods.parts.branch_settings import ThreeBranchConfig
from methods.parts.prompt_families import BRANCHES, Branch, PromptFamilies
from methods.parts.scoring import unit
from methods.parts.shares import image_dropout, images_of_all


class Disentangler(nn.Module):
    """From CLIP's image feature to one of the state or of the object alone (Troika, MSCI).

    Dropout(ReLU(BatchNorm(W x + b))) for features x [B, width]; the result has no negative entry.

    The papers call it an MLP. In training BatchNorm takes its statistics from the images that go through at once, so a
    micro-batch changes the numbers; of a single image there is no statistic, and the running one is used.
    """

    def __init__(self, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        """Return the feature [B, width], fp32 under autocast too (batch statistics in half precision are coarse)."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = self.linear(features.float())
            # The last batch of an epoch may hold one image, for which torch's BatchNorm raises in training.
            alone = self.training and images_of_all(len(hidden)) == 1
            hidden = self._by_running_statistics(hidden) if alone else self.norm(hidden)
            return image_dropout(functional.relu(hidden), self.dropout, self.training)

    def _by_running_statistics(self, hidden: Tensor) -> Tensor:
        norm = self.norm
        return functional.batch_norm(
            hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )


class ThreeBranch(BranchScoring):
    """Base of Troika and MSCI. A subclass gives `image_features`, `memories` and `attract`.

    rows_at_once: prompt vectors (images x prompts) that go through cross-attention together; with
    `Backbone.recompute` their activations are computed again in backward instead of kept. Both fit memory and change
    only rounding (rows_at_once also, with dropout, which random numbers fall where).
    """

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: ThreeBranchConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.prompts = PromptFamilies(
            backbone,
            vocabulary,
            config.dropout,
            learn_context=config.learn_context,
            shared_context=config.shared_context,
            shared_words=config.shared_words,
            branches=config.branches,
        )
        slots = placed(backbone.slot_names("vision"), config.adapters)
        self.adapters = AdapterBank(
            slots, backbone.vision_width, config.adapter_width, config.adapter_dropout, config.adapter_scale
        )
        own = [branch for branch in config.branches if branch != "pair" and config.disentangle]
        self.disentanglers = nn.ModuleDict(
            {branch: Disentangler(backbone.embed_dim, config.disentangler_dropout) for branch in own}
        )
        self.rows_at_once = 4096
        # The class says what holds for the default rule, the object what holds for its own.
        self.info = dataclasses.replace(type(self).info, candidate_independent=not self.needs_all_pairs)

    @abstractmethod
    def attract(self, text: Tensor, memory: Any) -> Tensor:
        """Return text features drawn towards each image, [B, K, d], of unit ones [K, d]; [K, d] if nothing draws."""

    def image_vectors(self, image: Tensor) -> dict[str, Tensor]:
        """Return the image feature of each branch [B, d], not normalised, of CLIP's own [B, d]."""
        return {
            branch: self.disentanglers[branch](image) if branch in self.disentanglers else image
            for branch in self.config.branches
        }

    def logits(
        self, features: Mapping[str, Tensor], text: Mapping[Branch, Tensor], memories: Mapping[Branch, Any]
    ) -> dict[Branch, Tensor]:
        """Return the logits [B, n] of each branch in `text`, which holds unit features [n, d].

        Prompts of branches that attend to the same memory go through together.
        """
        groups: dict[int, list[Branch]] = {}
        for branch in text:
            groups.setdefault(id(memories[branch]), []).append(branch)
        logits = {}
        for branches in groups.values():
            memory = memories[branches[0]]
            images = torch.stack([features[branch] for branch in branches], dim=1)  # [B, G, d]
            images = functional.normalize(images.float(), dim=-1)  # a disentangled feature may be all zeros
            together = self._group_logits(torch.cat([text[branch] for branch in branches]), memory, images)
            sizes = [len(text[branch]) for branch in branches]
            for column, (branch, part) in enumerate(zip(branches, together.split(sizes, dim=1), strict=True)):
                logits[branch] = part[..., column]
        return logits

    def _group_logits(self, text: Tensor, memory: Any, images: Tensor) -> Tensor:
        """Return the logits [B, n, G] of prompts [n, d] with each of G unit image vectors [B, G, d]."""

        def of_chunk(text: Tensor) -> Tensor:
            drawn = self.attract(text, memory)
            with torch.autocast(images.device.type, enabled=False):
                drawn = functional.normalize(drawn.float(), dim=-1)
                # fp32 under autocast too, and the scale goes in before the product: see `cosine_logits`.
                return drawn @ (self.backbone.logit_scale * images).transpose(1, 2)

        chunks = text.split(max(1, self.rows_at_once // max(1, images_of_all(len(images)))))
        again = self.backbone.recompute and torch.is_grad_enabled()
        parts = [recompute(of_chunk, chunk, use_reentrant=False) if again else of_chunk(chunk) for chunk in chunks]
        return torch.cat(parts, dim=1)

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted sum of one cross-entropy per branch, over training pairs, all states and all objects."""
        features = self.encode(batch).encoded
        text = {branch: unit(vectors) for branch, vectors in self.prompts(self.backbone, candidates).items()}
        return self.losses(self.logits(features, text, self.memories(features)), batch)

    def losses(self, logits: Mapping[Branch, Tensor], batch: Batch) -> Losses:
        """Return the cross-entropy of each branch's logits [B, n], and their weighted sum."""
        targets: dict[Branch, Tensor] = {"pair": batch.pairs, "state": batch.states, "object": batch.objects}
        # -1: the pair is no candidate
        terms: dict[str, Tensor] = {
            name: functional.cross_entropy(logits[name], targets[name], ignore_index=-1) for name in logits
        }
        weights: dict[str, float] = dict(zip(BRANCHES, self.config.loss_weights, strict=True))
        return Losses(reduce(add, (weights[name] * term for name, term in terms.items())), terms)
