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

from datasets.base import Candidates, Vocabulary, World
from methods.backbone.clip import Backbone
from methods.base import Batch, Losses, Method, Prepared
from methods.parts.adapters import AdapterBank, placed
from methods.parts.branch_settings import ThreeBranchConfig
from methods.parts.disentangler import Disentangler
from methods.parts.fusion import ScoreFusion
from methods.parts.memo import LastCall
from methods.parts.prompts import BRANCHES, Branch, PromptFamilies
from methods.parts.scoring import unit
from methods.parts.shares import images_of_all


@dataclasses.dataclass(frozen=True)
class ImageSide:
    """What a batch needs of its images for all chunks of candidates.

    log_probabilities: of "state" [B, A] and "object" [B, O]. pair_logits: [B, K] where the rule needs all of them at
    once, with their pair_normaliser [B]; else None. pair_memory: what the prompts of pairs attend to, where they are
    still to come.
    """

    log_probabilities: Mapping[Branch, Tensor]
    pair_memory: Any = None
    pair_logits: Tensor | None = None
    pair_normaliser: Tensor | None = None


class ThreeBranch(Method):
    """Base of Troika and MSCI. A subclass gives `image_features`, `memories` and `attract`.

    rows_at_once: prompt vectors (images x prompts) that go through cross-attention together; with
    `Backbone.recompute` their activations are computed again in backward instead of kept. Both fit memory and change
    only rounding (rows_at_once also, with dropout, which random numbers fall where). final: whether the weights and
    divisors of the final test are in force.
    """

    config: ThreeBranchConfig

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
        self.final = False
        self._image_side: LastCall[ImageSide] = LastCall()
        # The class says what holds for the default rule, the object what holds for its own.
        alone = not (ScoreFusion(config.inference).needs_normaliser and "pair" in config.branches)
        self.info = dataclasses.replace(type(self).info, candidate_independent=alone)

    # What a subclass gives --------------------------------------------------------------------------------------------

    @abstractmethod
    def memories(self, features: Mapping[str, Tensor]) -> dict[Branch, Any]:
        """Return what each branch's prompts attend to, of what `image_features` gave; the same object where shared."""

    @abstractmethod
    def attract(self, text: Tensor, memory: Any) -> Tensor:
        """Return text features drawn towards each image, [B, K, d], of unit ones [K, d]; [K, d] if nothing draws."""

    def image_vectors(self, image: Tensor) -> dict[str, Tensor]:
        """Return the image feature of each branch [B, d], not normalised, of CLIP's own [B, d]."""
        return {
            branch: self.disentanglers[branch](image) if branch in self.disentanglers else image
            for branch in self.config.branches
        }

    # Logits -----------------------------------------------------------------------------------------------------------

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

    # The contract -----------------------------------------------------------------------------------------------------

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted sum of one cross-entropy per branch, over training pairs, all states and all objects."""
        features = self.encode(batch).encoded
        text = {branch: unit(vectors) for branch, vectors in self.prompts(self.backbone, candidates).items()}
        return self._losses(self.logits(features, text, self.memories(features)), batch)

    def _losses(self, logits: Mapping[Branch, Tensor], batch: Batch) -> Losses:
        targets: dict[Branch, Tensor] = {"pair": batch.pairs, "state": batch.states, "object": batch.objects}
        # -1: the pair is no candidate
        terms: dict[str, Tensor] = {
            name: functional.cross_entropy(logits[name], targets[name], ignore_index=-1) for name in logits
        }
        weights: dict[str, float] = dict(zip(BRANCHES, self.config.loss_weights, strict=True))
        return Losses(reduce(add, (weights[name] * term for name, term in terms.items())), terms)

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return the unit text features of each branch by its name, and the pairs' "states" and "objects" [K].

        Nothing is dropped, whatever the mode.
        """
        text = self.prompts(self.backbone, candidates, dropout=False)
        pairs = torch.as_tensor(candidates.pairs, device=self.backbone.device)
        indices = {"states": pairs[:, 0], "objects": pairs[:, 1]}
        return Prepared(candidates, {branch: unit(vectors) for branch, vectors in text.items()} | indices)

    @torch.no_grad()
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the fused scores [B, n] of the pairs in `chunk`; states and objects are judged once per batch."""
        side = self._image_side.get((batch, prepared), lambda: self._side(batch, prepared))
        tensors, pair_logits = prepared.tensors, None
        if side.pair_logits is not None:
            pair_logits = side.pair_logits[:, chunk]
        elif "pair" in self.config.branches:
            text: dict[Branch, Tensor] = {"pair": tensors["pair"][chunk]}
            pair_logits = self.logits(batch.encoded, text, {"pair": side.pair_memory})["pair"]
        return self.fusion(prepared.candidates.world)(
            pair_logits,
            side.log_probabilities.get("state"),
            side.log_probabilities.get("object"),
            tensors["states"][chunk],
            tensors["objects"][chunk],
            side.pair_normaliser,
        )

    def _side(self, batch: Batch, prepared: Prepared) -> ImageSide:
        memories = self.memories(batch.encoded)
        whole = ScoreFusion(self.config.inference).needs_normaliser
        wanted = [branch for branch in self.config.branches if branch != "pair" or whole]
        text = {branch: prepared.tensors[branch] for branch in wanted}
        logits = self.logits(batch.encoded, text, memories)
        pair_logits = logits.pop("pair", None)
        probabilities = {branch: value.log_softmax(dim=1) for branch, value in logits.items()}
        if pair_logits is None:
            return ImageSide(probabilities, memories.get("pair"))
        return ImageSide(probabilities, None, pair_logits, pair_logits.logsumexp(dim=1))

    def fusion(self, world: World) -> ScoreFusion:
        """Return the rule in force: in the final evaluation with the weights and the divisor of the test."""
        config = self.config
        if not self.final:
            return ScoreFusion(config.inference, config.score_weights)
        if world == "open":
            weights, divisor = config.open_test_score_weights, config.open_test_primitive_divisor
        else:
            weights, divisor = config.test_score_weights, config.test_primitive_divisor
        return ScoreFusion(config.inference, config.score_weights if weights is None else weights, divisor)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the losses of an encoded batch over the prepared candidates, for selection by validation loss."""
        text = {branch: prepared.tensors[branch] for branch in self.config.branches}
        logits = self.logits(batch.encoded, text, self.memories(batch.encoded))
        if self.config.validation_loss == "scores" and "pair" in logits:
            logits["pair"] = self.score(batch, prepared, slice(None))
        return self._losses(logits, batch)

    def on_epoch_start(self, epoch: int) -> None:
        """Leave training mode from the second epoch on where the released loop does (`train_mode`)."""
        self._image_side = LastCall()  # what the last evaluation left would only fill memory
        if self.config.train_mode == "first_epoch_only" and epoch > 0:
            self.eval()

    def on_final_evaluation(self) -> None:
        """Put the weights and divisors of the final test in force."""
        self.final = True
