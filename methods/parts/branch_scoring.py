"""How the three-branch methods score: text once per candidate list, states and objects once per batch, pairs in chunks.

What the branches are and how they are trained is in `branches.py`; nothing here is needed to follow the loss.

B images, d joint width; K pairs, A states, O objects.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets.base import Candidates, Vocabulary, World
from methods.backbone.clip import Backbone
from methods.base import Batch, Losses, Method, Prepared
from methods.parts.branch_settings import ThreeBranchConfig
from methods.parts.fusion import ScoreFusion
from methods.parts.memo import LastCall
from methods.parts.prompt_families import Branch, PromptFamilies
from methods.parts.scoring import unit


@dataclass(frozen=True)
class ImageSide:
    """What a batch needs of its images for all chunks of candidates.

    log_probabilities: of "state" [B, A] and "object" [B, O].
    pair_memory: what the prompts of pairs attend to, where they are still to come.
    pair_logits: [B, K] where the rule needs all of them at once, else None.
    pair_normaliser: [B], the log of the sum of their exponentials.
    """

    log_probabilities: Mapping[Branch, Tensor]
    pair_memory: Any = None
    pair_logits: Tensor | None = None
    pair_normaliser: Tensor | None = None


class BranchScoring(Method):
    """The half of a three-branch method that evaluates. The other half gives `prompts`, `memories`, `logits`, `losses`.

    final: whether the weights and divisors of the final test are in force.
    """

    config: ThreeBranchConfig
    prompts: PromptFamilies

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: ThreeBranchConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.final = False
        self._image_side: LastCall[ImageSide] = LastCall()

    @abstractmethod
    def memories(self, features: Mapping[str, Tensor]) -> dict[Branch, Any]:
        """Return what each branch's prompts attend to, of what `image_features` gave; the same object where shared."""

    @abstractmethod
    def logits(
        self, features: Mapping[str, Tensor], text: Mapping[Branch, Tensor], memories: Mapping[Branch, Any]
    ) -> dict[Branch, Tensor]:
        """Return the logits [B, n] of each branch in `text`, which holds unit features [n, d]."""

    @abstractmethod
    def losses(self, logits: Mapping[Branch, Tensor], batch: Batch) -> Losses:
        """Return the cross-entropy of each branch's logits [B, n], and their weighted sum."""

    @property
    def needs_all_pairs(self) -> bool:
        """Whether a pair's score depends on what else is a candidate."""
        return ScoreFusion(self.config.inference).needs_normaliser and "pair" in self.config.branches

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
        wanted = [branch for branch in self.config.branches if branch != "pair" or self.needs_all_pairs]
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
        return self.losses(logits, batch)

    def on_epoch_start(self, epoch: int) -> None:
        """Leave training mode from the second epoch on where the released loop does (`train_mode`)."""
        self._image_side = LastCall()  # what the last evaluation left would only fill memory
        if self.config.train_mode == "first_epoch_only" and epoch > 0:
            self.eval()

    def scoring(self, world: World) -> str | None:
        """Return the rule in force, which the final evaluation may change."""
        known = type(self).on_final_evaluation is BranchScoring.on_final_evaluation
        return repr(self.fusion(world)) if known else None

    def on_final_evaluation(self) -> None:
        """Put the weights and divisors of the final test in force."""
        self.final = True
