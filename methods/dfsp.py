"""DFSP: soft prompts whose text, averaged per state and per object, is fused with the image tokens.

Lu, Guo, Liu, Guo, "Decomposed Soft Prompt Guided Fusion Enhancing for Compositional Zero-Shot Learning", CVPR 2023
(arXiv 2211.10681); the authors' code is Forest-art/DFSP. Context, states and objects of "a photo of [state] [object]"
are learned, CLIP stays frozen. Fused features are mixed with CLIP's own, 0.2 to 0.8, and compared by cosine. The
variant that is cited as DFSP is text into image, `fusion="t2i"`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from datasets.base import Candidates, Vocabulary
from errors import UserError
from methods.backbone.clip import Backbone
from methods.base import Ablation, Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.dfsp_fusion import Averaging, DecomposedFusion, Fusion, Layout, primitive_sums
from methods.parts.memo import LastCall, PerObject
from methods.parts.prompts import PrimitiveTable, SoftPrompt
from methods.parts.scoring import cosine_logits, unit

# Composed texts (image, pair) computed at once: each holds a few vectors of the text width.
COMPOSED_AT_ONCE = 2**14


class DFSPConfig(MethodConfig):
    """Settings of DFSP; names of the released configurations in brackets.

    fusion: text into image, image into text, both, or none
    layout: how the rows of the image are handed to the text (i2t and bif alone), "released" mixes the images of a batch
    mix_images: in evaluation with the released layout, cut a batch into groups of so many images, so that scores do not
        depend on the evaluation batch if that is a multiple; None mixes the whole batch
    decompose_over: the candidates whose text is averaged
    depth [SA_K]: self blocks per modality
    dropout [attr_dropout]: on the table of primitives
    clip_share [res_w]: weight of CLIP's own feature
    soft_prompt_weight [sp_w], primitive_weight [att_obj_w]: weights of the losses without fusion
    primitive_scores_at_test: weight of the state and object scores in a pair's score
    """

    # mix_images is read outside of training mode alone. In training all candidates are training pairs, so that both
    # values of decompose_over average the same.
    score_only: ClassVar[frozenset[str]] = frozenset({"mix_images", "decompose_over", "primitive_scores_at_test"})

    fusion: Fusion = "t2i"
    layout: Layout = "per_image"
    mix_images: int | None = Field(None, ge=1)
    decompose_over: Literal["candidates", "train_pairs"] = "candidates"
    depth: int = Field(1, ge=0)
    dropout: float = Field(0.3, ge=0.0, lt=1.0)
    fusion_dropout: float = Field(0.3, ge=0.0, lt=1.0)
    clip_share: float = Field(0.8, ge=0.0, le=1.0)
    soft_prompt_weight: float = Field(0.1, ge=0.0)
    primitive_weight: float = Field(0.01, ge=0.0)
    primitive_scores_at_test: float = Field(0.0, ge=0.0)
    learn_context: bool = True
    learn_primitives: bool = True
    context_length: int = Field(8, ge=7)


class DFSP(Method):
    """Decomposed fusion with soft prompts: learned are context, primitives and the fusion of the chosen variant."""

    Config: ClassVar[type[MethodConfig]] = DFSPConfig
    config: DFSPConfig
    info = MethodInfo(
        name="dfsp",
        title="Decomposed Fusion with Soft Prompt",
        paper="Lu, Guo, Liu, Guo, Decomposed Soft Prompt Guided Fusion Enhancing for Compositional Zero-Shot Learning",
        venue="CVPR 2023",
        arxiv="2211.10681",
        frozen_image_features=True,
        candidate_independent=False,
        needs=("soft_prompt", "image_tokens", "text_tokens"),
        ablations=(
            Ablation("no_fusion", {"fusion": "none"}, "Does fusing image and text help at all?"),
            Ablation("image_to_text", {"fusion": "i2t"}, "Is it better to fuse the image into the text?"),
            Ablation("both_ways", {"fusion": "bif"}, "Does fusing in both directions help?"),
            Ablation(
                "image_to_text_released",
                {"fusion": "i2t", "layout": "released"},
                "What does the released code's mixing of the images of a batch change?",
            ),
            Ablation(
                "both_ways_released",
                {"fusion": "bif", "layout": "released"},
                "What does that mixing change with both directions?",
            ),
            Ablation(
                "decompose_train_pairs",
                {"decompose_over": "train_pairs"},
                "Does it matter that evaluation averages over more candidates than training?",
            ),
            Ablation("fixed_context", {"learn_context": False}, "Does learning 'a photo of' help?"),
            Ablation("fixed_primitives", {"learn_primitives": False}, "Does learning the words help?"),
            Ablation("no_primitive_loss", {"primitive_weight": 0.0}, "Do the state and object losses help?"),
            Ablation("no_soft_prompt_loss", {"soft_prompt_weight": 0.0}, "Does the loss before fusion help?"),
            Ablation("fused_only", {"clip_share": 0.0}, "Can the fused features do without CLIP's own?"),
            Ablation("half_fused", {"clip_share": 0.5}, "Is a larger share of fused features better?"),
            Ablation("clip_90", {"clip_share": 0.9}, "Is a smaller share of fused features better?"),
            Ablation("clip_only", {"clip_share": 1.0}, "What is left, as a floor, where no fused feature is read?"),
            Ablation("no_self_blocks", {"depth": 0}, "Are the self-attention blocks after fusion needed?"),
            Ablation("two_self_blocks", {"depth": 2}, "Do deeper self-attention blocks help?"),
            Ablation("no_dropout", {"dropout": 0.0}, "Does dropout on the learned words help unseen pairs?"),
            Ablation("no_fusion_dropout", {"fusion_dropout": 0.0}, "Does dropout in the fusion help?"),
            Ablation(
                "primitive_scores", {"primitive_scores_at_test": 0.1}, "Do state and object scores help at test time?"
            ),
        ),
        deviations=(
            "i2t and bif: each image is fused by itself; the released reshape mixes the images of a batch "
            "(layout='released')",
            "fp32 instead of CLIP in fp16 without loss scaling",
            "one variant, t2i, on every data set; the released configuration of UT-Zappos is i2t",
            "the epoch is chosen by validation AUC; released: by best unseen accuracy on MIT-States, by loss elsewhere",
            "a primitive that no candidate contains is an error; the released code computes NaN",
            "last self blocks compute only the row that is read out: the same numbers",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: DFSPConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        self.table = PrimitiveTable(backbone, vocabulary, config.dropout, trainable=config.learn_primitives)
        self.prompt = SoftPrompt(backbone, learn_context=config.learn_context, context_length=config.context_length)
        self._every: PerObject[Averaging] = PerObject()
        self._some: PerObject[Averaging] = PerObject()
        self.n_primitives = len(vocabulary.states) + len(vocabulary.objects)
        self.fuses = config.fusion != "none"
        self.composes = config.fusion in ("i2t", "bif")
        if self.fuses:
            self.fusion = DecomposedFusion(
                config.fusion,
                config.layout,
                vision_width=backbone.vision_width,
                text_width=backbone.text_width,
                image_tokens=backbone.n_patches + 1,
                text_rows=config.context_length * self.n_primitives,
                depth=config.depth,
                dropout=config.fusion_dropout,
            )
        self.mixes = self.composes and config.layout == "released"
        independent = not (self.fuses or config.primitive_scores_at_test)
        # What holds for this configuration, where the class can only say what holds for the default.
        self.info = dataclasses.replace(
            type(self).info, batch_independent=not self.mixes, candidate_independent=independent
        )
        self._fused: LastCall[list[tuple[Tensor, Tensor | None]]] = LastCall()

    # Image ------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return CLIP's "image" [B, d], not normalised, and the "tokens" [B, V, D] after the last block.

        Tokens are given where nothing is fused, too: frozen features are shared between variants.
        """
        (tokens,) = self.backbone.image_tokens(images)
        return {"image": self.backbone.project_tokens(tokens[:, 0]), "tokens": tokens}

    def fused_image(self, features: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> Tensor:
        """Return the image feature [B, d] after fusion, not yet mixed with CLIP's own."""
        if not self.fuses:
            return features["image"].float()
        with self._fp32():
            return self.backbone.project_tokens(self.fusion.image(features["tokens"].float(), text.get("memory")))

    def fuse(self, features: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return what pairs are compared with: the mixed image [B, d], and the words [B or 1, P, T] of i2t and bif."""
        image = self.mixed(features["image"], self.fused_image(features, text))
        if not self.composes:
            return image, None
        with self._fp32():
            return image, self.fusion.words(text["decomposed"], features["tokens"].float(), self.prompt.eot)

    def mixed(self, own: Tensor, fused: Tensor) -> Tensor:
        """Return the weighted sum of CLIP's own and the fused features, neither of them normalised."""
        return self.config.clip_share * own.float() + (1 - self.config.clip_share) * fused

    # Text -------------------------------------------------------------------------------------------------------------

    def text(self, candidates: Candidates, table: Tensor, primitives: bool) -> dict[str, Tensor]:
        """Return what C candidates give for a table [P, T].

        own: [C, d], before fusion, not normalised
        rows: int64 [C, 2], of state and object in the table
        text: [C, d], fused and mixed, length 1, where that needs no image (t2i, none)
        decomposed: [P, L, T], mean tokens of each primitive (i2t, bif)
        memory: what images attend to (t2i, bif)
        primitives: [P, d], mean unit feature of each primitive, only if asked for

        A primitive without a candidate to average is a `UserError`.
        """
        rows = self.table.pair_rows(candidates)
        if self.fuses:
            text = self._fused_text(candidates, table, rows)
        else:
            own = self.prompt.encode(self.backbone, table, rows)
            text = {"own": own, "text": unit(own)}
        if primitives:
            averaging = self._averaging(candidates, False, rows.device)
            sums = primitive_sums(unit(text["own"]), rows, self.n_primitives)
            text["primitives"] = sums / averaging.counts[:, None]
        return {**text, "rows": rows}

    def _fused_text(self, candidates: Candidates, table: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Go through the candidates pass by pass, so that the tokens of an open world never lie in memory at once."""
        device, some = rows.device, self.config.decompose_over == "train_pairs"
        averaging = self._averaging(candidates, some, device)
        size, eot = self.backbone.text_chunk, self.prompt.eot
        own, fused, sums = [], [], torch.zeros((), device=table.device)
        passes = self.prompt.passes(self.backbone, table, rows, all_tokens=True)
        for number, ((features, tokens), part) in enumerate(zip(passes, rows.split(size), strict=True)):
            own.append(features)
            with self._fp32():
                assert tokens is not None  # all_tokens
                tokens = tokens.float()
                averaged = averaging.of_pass(number * size, size, tokens, part)
                sums = sums + primitive_sums(*averaged, self.n_primitives)
                if not self.composes:
                    fused.append(self.backbone.project_text(self.fusion.text(tokens, eot)))
        text = {"own": torch.cat(own)}
        decomposed = sums / averaging.counts[:, None, None]
        with self._fp32():
            if self.fusion.to_image is not None:
                text["memory"] = self.fusion.to_image.memory(decomposed)
        if self.composes:
            return {**text, "decomposed": decomposed}
        return {**text, "text": unit(self.mixed(text["own"], torch.cat(fused)))}

    def _averaging(self, candidates: Candidates, some: bool, device: torch.device) -> Averaging:
        """Return how primitives are averaged over all candidates, or over `some`, which are the training pairs."""
        kept = self._some if some else self._every
        return kept.get(candidates, device, lambda: self._average(candidates, some, device))

    def _average(self, candidates: Candidates, some: bool, device: torch.device) -> Averaging:
        kept = np.flatnonzero(candidates.seen) if some else np.arange(len(candidates))
        rows = candidates.pairs[kept] + np.array([0, self.table.n_states])
        counts = np.bincount(rows.reshape(-1), minlength=self.n_primitives)
        if len(missing := np.flatnonzero(counts == 0)):
            name = [*candidates.vocabulary.states, *candidates.vocabulary.objects][missing[0]]
            raise UserError(
                f"DFSP averages the text of the pairs of every state and every object, and '{name}' has no pair.",
                f"So have {len(missing)} of the {self.n_primitives} states and objects.",
                "Give it candidates in which each of them occurs.",
            )
        numbers = torch.as_tensor(counts, device=device).float()
        return Averaging(numbers, kept, torch.as_tensor(kept, device=device) if some else None)

    # Scores -----------------------------------------------------------------------------------------------------------

    def pair_logits(
        self, image: Tensor, words: Tensor | None, text: Mapping[str, Tensor], chunk: slice = slice(None)
    ) -> Tensor:
        """Return the fused logits [B, n] of what `fuse` returned against the candidates of `chunk`."""
        if words is None:
            return cosine_logits(image, text["text"][chunk], self.backbone.logit_scale)
        size = max(1, COMPOSED_AT_ONCE // len(words))
        parts = []
        for own, rows in zip(text["own"][chunk].split(size), text["rows"][chunk].split(size), strict=True):
            if self.backbone.recompute and torch.is_grad_enabled():
                parts.append(recompute(self._composed_logits, image, words, own, rows, use_reentrant=False))
            else:
                parts.append(self._composed_logits(image, words, own, rows))
        return torch.cat(parts, dim=1)

    def composed_text(self, words: Tensor, rows: Tensor) -> Tensor:
        """Return the fused text features [B or 1, n, d] of pairs, composed of the words of their state and object."""
        with self._fp32():
            return self.backbone.project_text(self.fusion.compose(words, rows[:, 0], rows[:, 1]))

    def _composed_logits(self, image: Tensor, words: Tensor, own: Tensor, rows: Tensor) -> Tensor:
        features = unit(self.mixed(own, self.composed_text(words, rows)))
        if len(words) == 1:
            return cosine_logits(image, features[0], self.backbone.logit_scale)
        with self._fp32():
            return ((self.backbone.logit_scale * unit(image))[:, None] @ features.mT).squeeze(1)

    def branch_logits(self, features: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits before the losses: "pair" and "soft_prompt" [B, C], "state" [B, A], "object" [B, O].

        The last two are the means of "soft_prompt" over the candidates of each primitive; they are left out where the
        text has no "primitives".
        """
        scale = self.backbone.logit_scale
        logits = {
            "pair": torch.cat([self.pair_logits(*group, text) for group in self._fuse_groups(features, text)]),
            "soft_prompt": cosine_logits(features["image"], unit(text["own"]), scale),
        }
        if "primitives" in text:
            # The mean of cosines is the product with the mean of unit features, which is not of unit length.
            means = cosine_logits(features["image"], text["primitives"], scale)
            logits["state"], logits["object"] = means.tensor_split([self.table.n_states], dim=1)
        return logits

    def _losses(self, logits: Mapping[str, Tensor], batch: Batch) -> Losses:
        targets = {"pair": batch.pairs, "soft_prompt": batch.pairs, "state": batch.states, "object": batch.objects}
        # -1: the pair is no candidate
        terms = {name: functional.cross_entropy(logits[name], targets[name], ignore_index=-1) for name in logits}
        total = terms["pair"] + self.config.soft_prompt_weight * terms["soft_prompt"]
        if "state" in terms:
            total = total + self.config.primitive_weight * (terms["state"] + terms["object"])
        return Losses(total, terms)

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return CE(fused) + primitive_weight (CE(state) + CE(object)) + soft_prompt_weight CE(not fused)."""
        text = self.text(candidates, self.table(), primitives=self.config.primitive_weight > 0)
        return self._losses(self.branch_logits(self.encode(batch).encoded, text), batch)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the losses of an encoded batch over the prepared candidates, for selection by validation loss."""
        return self._losses(self.branch_logits(batch.encoded, prepared.tensors), batch)

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return what `text` gives for the candidates, without dropout on the words."""
        # Means that only the validation loss reads are no reason to refuse a list that lacks a primitive.
        occur = len(np.unique(candidates.states)) + len(np.unique(candidates.objects))
        complete = occur == self.n_primitives
        wanted = self.config.primitive_scores_at_test > 0 or (self.config.primitive_weight > 0 and complete)
        return Prepared(candidates, self.text(candidates, self.table.weight, primitives=wanted))

    @torch.no_grad()
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the fused logits [B, n] with the candidates of `chunk`; the images are fused once for all chunks."""
        text = prepared.tensors
        groups = self._fused.get((batch, prepared), lambda: self._fuse_groups(batch.encoded, text))
        scores = torch.cat([self.pair_logits(image, words, text, chunk) for image, words in groups])
        if self.config.primitive_scores_at_test > 0:
            primitives = cosine_logits(batch.encoded["image"], text["primitives"], self.backbone.logit_scale)
            states, objects = text["rows"][chunk].T
            scores = scores + self.config.primitive_scores_at_test * (primitives[:, states] + primitives[:, objects])
        return scores

    def _fuse_groups(
        self, features: Mapping[str, Tensor], text: Mapping[str, Tensor]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Fuse a batch in the groups of images that are mixed with each other; one group where nothing is mixed."""
        images = len(features["image"])
        size = images if self.training or not self.mixes else self.config.mix_images or images
        parts = {name: values.split(max(size, 1)) for name, values in features.items()}
        return [
            self.fuse({name: values[group] for name, values in parts.items()}, text)
            for group in range(len(parts["image"]))
        ]

    def _fp32(self) -> torch.autocast:
        """Return the context of the fusion, which is computed in fp32 under autocast too."""
        return torch.autocast(self.backbone.device.type, enabled=False)
