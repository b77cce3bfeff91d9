"""Refiner-style: queries that read image regions refine three branch vectors, which one mapper moves to the text space.

Our design after the abstract of "Refiner: Fine-grained Cross-modal Concepts Refinement for Compositional Zero-Shot
Learning" (ICASSP 2025), of which nothing but the abstract was available. It is no reproduction: every layer, weight and
number below is our own choice. From the abstract: learned queries capture region semantics against the background that
the class token picks up, and a robust image-to-text mapping is trained by aligning the image with states, objects and
pairs. Text features never depend on the image, and before training the logits are CLIP's with the same prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Ablation, Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.adapters import AdapterBank, Placement, placed
from methods.parts.branch_settings import Probability, Weight, Weights
from methods.parts.fusion import Rule, ScoreFusion
from methods.parts.memo import LastCall
from methods.parts.prompt_families import BRANCHES, Branch, PromptFamilies
from methods.parts.refinement import Mapper, Pool, QueryMask, QueryRefiner, query_overlap
from methods.parts.scoring import cosine_logits, unit
from methods.parts.shares import image_noise

FAST = ("refiner.", "mappers.")
"""Parameters that `head_lr_factor` is for: all but prompts and adapters."""


class RefinerStyleConfig(MethodConfig):
    """Settings of the Refiner-style model. Weights are those of (pair, state, object).

    branches: the alignments that are trained and scored with; the pair's is always one
    refine: whether queries refine the image feature
    queries, layers: per branch, and of the stack
    query_mask: which queries see each other
    share_refiner: one stack for all branches
    pool: how a branch's rows become one
    regions, region_blocks: which tokens the queries read, and after which vision blocks (negative counts from the
        last); those of several blocks lie side by side
    mapper: one for all branches, one for each, or none
    mapper_width: None is half the joint width

    map_noise: deviation of noise on the vectors before the mapper, in training
    map_cosine, global_weight, diversity_weight: weights of further losses: 1 - cos to the label's text, cross-entropy
        of the unrefined feature, and `query_overlap`
    head_lr_factor: learning rate of queries, refinement and mapper over that of prompts and adapters
    inference, score_weights: see `ScoreFusion`
    """

    score_only: ClassVar[frozenset[str]] = frozenset({"inference", "score_weights"})

    branches: tuple[Branch, ...] = BRANCHES
    refine: bool = True
    queries: int = Field(8, ge=1)
    layers: int = Field(2, ge=1)
    query_mask: QueryMask = "comp_only"
    share_refiner: bool = True
    pool: Pool = "attn"
    regions: Literal["patches", "all", "class"] = "patches"
    region_blocks: tuple[int, ...] = Field((-1,), min_length=1)
    mapper: Literal["shared", "per_branch", "none"] = "shared"
    mapper_width: int | None = Field(None, ge=1)
    dropout: Probability = 0.3
    refine_dropout: Probability = 0.1
    mapper_dropout: Probability = 0.1
    map_noise: Weight = 0.0
    map_cosine: Weight = 0.0
    global_weight: Weight = 0.0
    diversity_weight: Weight = 0.1
    adapters: Placement = "both"
    adapter_width: int = Field(64, ge=1)
    adapter_dropout: Probability = 0.1
    adapter_scale: float = 0.1
    loss_weights: Weights = (1.0, 1.0, 1.0)
    head_lr_factor: float = Field(1.0, gt=0.0)
    inference: Rule = "logit_product"
    score_weights: Weights = (1.0, 1.0, 1.0)

    @field_validator("branches")
    @classmethod
    def _with_pair(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        if "pair" not in branches:
            raise ValueError("the branch 'pair' is needed")
        return tuple(branch for branch in BRANCHES if branch in branches)


class RefinerStyle(Method):
    """Region queries and one image-to-text mapper over three prompt families."""

    Config: ClassVar[type[MethodConfig]] = RefinerStyleConfig
    config: RefinerStyleConfig
    info = MethodInfo(
        name="refiner_style",
        title="Refiner-style (our design)",
        paper="our design after the abstract of Refiner: Fine-grained Cross-modal Concepts Refinement for "
        "Compositional Zero-Shot Learning",
        venue="after ICASSP 2025",
        needs=("soft_prompt", "patch_tokens", "taps", "adapters"),
        ablations=(
            Ablation("no_refinement", {"refine": False}, "Do region queries help?"),
            Ablation("no_mapper", {"mapper": "none"}, "Does the image-to-text mapper help?"),
            Ablation(
                "no_refinement_no_mapper",
                {"refine": False, "mapper": "none"},
                "What does the plain three-branch prompt model reach, as a floor?",
            ),
            Ablation("mapper_per_branch", {"mapper": "per_branch"}, "Should the branches share one mapper?"),
            Ablation("align_pairs", {"branches": ["pair"]}, "Do alignments with states and objects help?"),
            Ablation("align_pairs_states", {"branches": ["pair", "state"]}, "Does the alignment with objects help?"),
            Ablation("align_pairs_objects", {"branches": ["pair", "object"]}, "Does the alignment with states help?"),
            *(
                Ablation(f"queries_{count}", {"queries": count}, "How many queries does a branch need?")
                for count in (1, 2, 4, 16)
            ),
            Ablation("one_layer", {"layers": 1}, "How deep must the refinement be?"),
            Ablation("three_layers", {"layers": 3}, "How deep must the refinement be?"),
            Ablation("query_mask_full", {"query_mask": "full"}, "Should all queries see each other?"),
            Ablation("query_mask_none", {"query_mask": "none"}, "Does the pair need state and object context?"),
            Ablation("separate_refiners", {"share_refiner": False}, "Should the branches share the layers?"),
            Ablation("mean_pooling", {"pool": "mean"}, "Does learned pooling help?"),
            Ablation("max_pooling", {"pool": "max"}, "Is the strongest region enough?"),
            Ablation("class_and_patches", {"regions": "all"}, "Does the class token hurt among the regions?"),
            Ablation("class_only", {"regions": "class"}, "Is it region information that helps?"),
            Ablation("second_last_block", {"region_blocks": [-2]}, "Are earlier tokens better regions?"),
            Ablation("two_blocks", {"region_blocks": [-2, -1]}, "Do tokens of several blocks help?"),
            Ablation("no_diversity", {"diversity_weight": 0.0}, "Do queries collapse without the diversity loss?"),
            Ablation("map_noise", {"map_noise": 0.01}, "Does noise make the mapping robust?"),
            Ablation("map_cosine", {"map_cosine": 1.0}, "Does pulling the image to its label's text help?"),
            Ablation("global_loss", {"global_weight": 1.0}, "Does a loss on the unrefined feature help?"),
            Ablation("no_adapters", {"adapters": "none"}, "How much comes from training the image tower?"),
            Ablation("pair_score_only", {"inference": "pair"}, "Are the primitive branches needed once trained with?"),
            Ablation(
                "probability_product",
                {"inference": "probability_product"},
                "What does the rule of Troika's paper do?",
            ),
            Ablation(
                "probability_sum",
                {"inference": "probability_sum", "score_weights": [1.0, 0.5, 0.5]},
                "Is it better to add probabilities?",
            ),
            Ablation(
                "log_sum",
                {"inference": "log_sum", "score_weights": [1.0, 0.5, 0.5]},
                "Is it better to add log-probabilities?",
            ),
        ),
        deviations=(
            "not a reproduction: architecture, losses and hyper-parameters are ours; no number of the paper was found",
            "a pair's score is fused by the rule of the suite's Troika, so that differences come from the features",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: RefinerStyleConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        width, branches = backbone.embed_dim, config.branches
        self.prompts = PromptFamilies(backbone, vocabulary, config.dropout, branches=branches)
        self.adapters = AdapterBank(
            placed(backbone.slot_names("vision"), config.adapters),
            backbone.vision_width,
            config.adapter_width,
            config.adapter_dropout,
            config.adapter_scale,
        )
        self.refiner = None
        if config.refine:
            self.refiner = QueryRefiner(
                width,
                config.queries,
                config.layers,
                # Queries that no branch would see are not built.
                banks=branches if config.query_mask == "none" else BRANCHES,
                read=branches,
                query_mask=config.query_mask,
                share=config.share_refiner,
                pool=config.pool,
                dropout=config.refine_dropout,
            )
        names = {"shared": ("shared",), "per_branch": branches, "none": ()}[config.mapper]
        hidden = width // 2 if config.mapper_width is None else config.mapper_width
        self.mappers = nn.ModuleDict({name: Mapper(width, hidden, config.mapper_dropout) for name in names})
        self.rule = ScoreFusion(config.inference, config.score_weights)
        # The class says what holds for the default, the object what holds for its own configuration.
        self.info = dataclasses.replace(
            type(self).info,
            frozen_image_features=config.adapters == "none" and self._reads_last_patches(),
            candidate_independent=not self.rule.needs_normaliser,
        )
        self._side: LastCall[tuple[dict[Branch, Tensor], dict[Branch, Tensor], Tensor | None]] = LastCall()

    def _reads_last_patches(self) -> bool:
        """Whether `image_features` gives what it gives by default: frozen features are shared between settings."""
        return self.config.refine and self.config.regions == "patches" and self.config.region_blocks == (-1,)

    # Image ------------------------------------------------------------------------------------------------------------

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return CLIP's "image" feature [B, d], not normalised, and the "regions" [B, N, d] that queries read."""
        blocks = [*self.config.region_blocks, -1] if self.refiner is not None else [-1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.adapters != "none"):
            *tapped, last = self.backbone.image_tokens(images, blocks, adapters=self.adapters.slots)
            image = {"image": self.backbone.pool_tokens(last)}
            if self.refiner is None:
                return image
            return image | {"regions": torch.cat([self._regions(tokens) for tokens in tapped], dim=1)}

    def _regions(self, tokens: Tensor) -> Tensor:
        """Return what queries read of all tokens of an image after a block, [B, N, d]."""
        backbone = self.backbone
        if self.config.regions == "class":
            return backbone.pool_tokens(tokens)[:, None]
        if self.config.regions == "all":
            return backbone.joint_tokens(tokens)
        return backbone.project_tokens(backbone.patch_tokens(tokens))

    def branch_vectors(self, features: Mapping[str, Tensor]) -> tuple[dict[Branch, Tensor], dict[Branch, Tensor]]:
        """Return u_b [B, d] of each branch, not normalised, and the query rows [B, K, d] of each bank."""
        own = unit(features["image"])
        rows: dict[Branch, Tensor] = {}
        vectors = dict.fromkeys(self.config.branches, own)
        if self.refiner is not None:
            rows = self.refiner.rows(features["regions"])
            refined = self.refiner(rows)
            vectors = {branch: own + refined[branch] for branch in self.config.branches}
        if self.training and self.config.map_noise > 0:
            vectors = {branch: v + self.config.map_noise * image_noise(v) for branch, v in vectors.items()}
        if not len(self.mappers):
            return vectors, rows
        shared = self.config.mapper == "shared"
        return {branch: self.mappers["shared" if shared else branch](v) for branch, v in vectors.items()}, rows

    # Training ---------------------------------------------------------------------------------------------------------

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted cross-entropies over training pairs, all states and all objects, and the regularisers."""
        config, scale = self.config, self.backbone.logit_scale
        features = self.encode(batch).encoded
        text = {branch: unit(values) for branch, values in self.prompts(self.backbone, candidates).items()}
        vectors, rows = self.branch_vectors(features)
        targets: dict[str, Tensor] = {"pair": batch.pairs, "state": batch.states, "object": batch.objects}
        terms: dict[str, Tensor] = {
            branch: functional.cross_entropy(cosine_logits(vectors[branch], text[branch], scale), targets[branch])
            for branch in config.branches
        }
        weights: dict[str, float] = dict(zip(BRANCHES, config.loss_weights, strict=True))
        if rows and config.queries > 1 and config.diversity_weight > 0:
            terms["diversity"], weights["diversity"] = query_overlap(list(rows.values())), config.diversity_weight
        if config.global_weight > 0:
            logits = cosine_logits(features["image"], text["pair"], scale)
            terms["global"], weights["global"] = functional.cross_entropy(logits, batch.pairs), config.global_weight
        if config.map_cosine > 0:
            cosines = [(unit(v) * text[b].detach()[targets[b]]).sum(dim=1) for b, v in vectors.items()]
            terms["map_cosine"], weights["map_cosine"] = 1 - torch.stack(cosines).mean(), config.map_cosine
        return Losses(reduce(add, (weights[name] * term for name, term in terms.items())), terms)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return two groups: prompts and adapters at `lr`, the rest at `lr` times `head_lr_factor`."""
        trained = self.trained()
        slow = [parameter for name, parameter in trained.items() if not name.startswith(FAST)]
        fast = [parameter for name, parameter in trained.items() if name.startswith(FAST)]
        groups = [{"params": slow, "lr": lr}, {"params": fast, "lr": lr * self.config.head_lr_factor}]
        return [group | {"weight_decay": weight_decay} for group in groups if group["params"]]

    # Scores -----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return the unit text features of each branch by its name, and the pairs' "states" and "objects" [K]."""
        text = self.prompts(self.backbone, candidates, dropout=False)
        states, objects = torch.as_tensor(candidates.pairs, device=self.backbone.device).T
        tensors = {branch: unit(values) for branch, values in text.items()}
        return Prepared(candidates, tensors | {"states": states, "objects": objects})

    @torch.no_grad()
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the fused scores [B, n] of the pairs in `chunk`; the images are refined once for all chunks."""
        tensors = prepared.tensors
        vectors, primitives, normaliser = self._side.get((batch, prepared), lambda: self._of_batch(batch, tensors))
        pair_logits = cosine_logits(vectors["pair"], tensors["pair"][chunk], self.backbone.logit_scale)
        return self.rule(
            pair_logits,
            primitives.get("state"),
            primitives.get("object"),
            tensors["states"][chunk],
            tensors["objects"][chunk],
            normaliser,
        )

    def _of_batch(
        self, batch: Batch, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[Branch, Tensor], dict[Branch, Tensor], Tensor | None]:
        """Return the branch vectors, the log-probabilities of states and objects, and the pairs' normaliser [B]."""
        vectors, _ = self.branch_vectors(batch.encoded)
        scale = self.backbone.logit_scale
        primitives: dict[Branch, Tensor] = {
            branch: cosine_logits(vectors[branch], tensors[branch], scale).log_softmax(dim=1)
            for branch in self.config.branches
            if branch != "pair"
        }
        if not self.rule.needs_normaliser:
            return vectors, primitives, None
        return vectors, primitives, cosine_logits(vectors["pair"], tensors["pair"], scale).logsumexp(dim=1)
