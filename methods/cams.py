"""CAMS: latent units read the last vision blocks by gated cross-attention and part into state, object and pair.

"CAMS: Towards Compositional Zero-Shot Learning via Gated Cross-Attention and Multi-Space Disentanglement", arXiv
2511.16378; the authors' code is ybyangjing/CAMS. The last m blocks of the frozen image tower have Troika's adapters,
and one gated cross-attention layer reads each into 32 learned vectors. Three one-layer transformers make a state's, an
object's and a pair's feature of these (`parts/latent_units.py`); CLIP's own is a fourth branch. Prompts are Troika's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.backbone.text_activation import OtherActivation
from methods.base import Ablation, Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.adapters import AdapterBank, Placement, placed
from methods.parts.branch_settings import Probability, Weight, Weights
from methods.parts.fusion import Rule, ScoreFusion
from methods.parts.latent_units import (
    Blocks,
    GatedReading,
    LatentUnits,
    MultiSpace,
    UnitTransformer,
    last_blocks,
    require_divisor,
)
from methods.parts.memo import LastCall
from methods.parts.prompt_families import Branch, PromptFamilies
from methods.parts.prompts import PRIMITIVE_TEMPLATE, FixedPrompt
from methods.parts.scoring import unit

View = Literal["global", "pair", "state", "object"]
VIEWS: tuple[View, ...] = ("global", "pair", "state", "object")
TEXT: Mapping[View, Branch] = {"global": "pair", "pair": "pair", "state": "state", "object": "object"}
"""The family of prompts that each branch is compared with."""


class CAMSConfig(MethodConfig):
    """Settings of CAMS; names of the released configurations in brackets.

    branches: those that are trained and scored with; "global" compares CLIP's own image feature with pairs
    dropout [attr_dropout]: of the table of words
    attribute_word: "overwritten" has the same prompt "[context] x" for every state, as the released code
    text_activation: "gelu" runs the text tower with GELU, as the released code; "own" is what CLIP was trained with

    read_blocks [m_layers]: last vision blocks with adapters, which are read; below 1 a share of all, None is a third
    adapters, adapter_width, adapter_dropout, adapter_scale: see `AdapterBank`
    units [num_units], unit_dropout, train_units: see `LatentUnits`
    read_heads, read_dropout [gca_dropout], gate: see `GatedReading`
    shared_reader: one layer reads all blocks, else each has its own
    part_heads, part_dropout [msd_dropout]: of the three transformers
    feature_dropout: of the state's, the object's and the pair's feature

    learn_scale: the factor of all cosines is learned, as itself and not by its logarithm
    loss_weights: of (global, pair, state, object)
    beta: share of the global branch in a pair's logit, the rest is the pair branch's
    inference, score_weights: rule and weights of (pair, state, object), see `ScoreFusion`
    """

    score_only: ClassVar[frozenset[str]] = frozenset({"beta", "inference", "score_weights"})

    branches: tuple[View, ...] = VIEWS
    dropout: Probability = 0.3
    attribute_word: Literal["before_eot", "overwritten"] = "before_eot"
    text_activation: Literal["own", "gelu"] = "own"
    read_blocks: Blocks | None = None
    adapters: Placement = "both"
    adapter_width: int = Field(128, ge=1)
    adapter_dropout: Probability = 0.1
    adapter_scale: float = 0.1
    units: int = Field(32, ge=1)
    unit_dropout: Probability = 0.5
    train_units: bool = True
    read_heads: int = Field(16, ge=1)
    read_dropout: Probability = 0.1
    gate: bool = True
    shared_reader: bool = True
    part_heads: int = Field(8, ge=1)
    part_dropout: Probability = 0.1
    feature_dropout: Probability = 0.5
    learn_scale: bool = True
    loss_weights: tuple[Weight, Weight, Weight, Weight] = (1.0, 1.0, 0.5, 0.5)
    beta: float = Field(0.85, ge=0.0, le=1.0)
    inference: Rule = "logit_product"
    score_weights: Weights = (1.0, 1.0, 1.0)

    @field_validator("branches")
    @classmethod
    def _in_order(cls, branches: tuple[View, ...]) -> tuple[View, ...]:
        if not branches:
            raise ValueError("at least one branch is needed")
        return tuple(branch for branch in VIEWS if branch in branches)


class ImageSide(NamedTuple):
    """What a batch needs of its images for all chunks of candidates.

    pair: [B, d], the logits of pairs are its products with their texts; None without a branch of pairs
    log_probabilities: of "state" [B, A] and "object" [B, O]
    pair_normaliser: [B], log of the sum of exp(pair logits) over all candidates, where the rule needs it
    """

    pair: Tensor | None
    log_probabilities: Mapping[View, Tensor]
    pair_normaliser: Tensor | None


class CAMS(Method):
    """Gated cross-attention and multi-space disentanglement. What has no part in the result is not built."""

    Config: ClassVar[type[MethodConfig]] = CAMSConfig
    config: CAMSConfig
    info = MethodInfo(
        name="cams",
        title="Gated Cross-Attention and Multi-Space Disentanglement",
        paper="CAMS: Towards Compositional Zero-Shot Learning via Gated Cross-Attention and Multi-Space "
        "Disentanglement",
        venue="arXiv, November 2025",
        arxiv="2511.16378",
        needs=("soft_prompt", "image_tokens", "adapters"),
        ablations=(
            Ablation("global_only", {"branches": ["global"]}, "What do latent units bring to the adapted CLIP?"),
            Ablation("no_global_branch", {"branches": ["pair", "state", "object"]}, "Is CLIP's own feature needed?"),
            Ablation(
                "no_pair_branch", {"branches": ["global", "state", "object"]}, "Do pairs need a feature of the units?"
            ),
            Ablation("no_primitives", {"branches": ["global", "pair"]}, "What do states and objects bring?"),
            Ablation("no_state_branch", {"branches": ["global", "pair", "object"]}, "What does the state bring?"),
            Ablation("no_object_branch", {"branches": ["global", "pair", "state"]}, "What does the object bring?"),
            Ablation("no_gate", {"gate": False}, "Does the gate help?"),
            Ablation("reader_per_block", {"shared_reader": False}, "Should every block have a reader of its own?"),
            *(Ablation(f"read_{n}", {"read_blocks": n}, "How many blocks must be read?") for n in (1, 2, 4)),
            *(Ablation(f"units_{n}", {"units": n}, "How many latent units are needed?") for n in (4, 8, 16, 64)),
            Ablation("no_unit_dropout", {"unit_dropout": 0.0}, "Does dropping half of the latent units' values help?"),
            Ablation("no_feature_dropout", {"feature_dropout": 0.0}, "Does dropping half of the features help?"),
            Ablation("frozen_units", {"train_units": False}, "Do random vectors read as well as learned ones?"),
            Ablation("no_adapters", {"adapters": "none"}, "How much comes from training the image tower?"),
            Ablation("fixed_scale", {"learn_scale": False}, "Must the factor of the cosines be learned?"),
            *(
                Ablation(name, {"beta": beta}, "Which of the two logits of a pair should decide?")
                for name, beta in (("pair_logit_only", 0.0), ("equal_logits", 0.5), ("global_logit_only", 1.0))
            ),
            Ablation("pair_score_only", {"inference": "pair"}, "Are the primitives needed once trained with?"),
            Ablation("log_sum", {"inference": "log_sum"}, "Is it better to add log-probabilities?"),
            Ablation("logit_sum", {"inference": "logit_sum"}, "Should a state's and an object's probability be added?"),
            Ablation("probability_sum", {"inference": "probability_sum"}, "Is it better to add probabilities?"),
            Ablation(
                "same_state_prompts",
                {"attribute_word": "overwritten"},
                "What does it cost that the released code has one prompt for all states?",
            ),
            Ablation("gelu_text", {"text_activation": "gelu"}, "Does GELU in a text tower of QuickGELU matter?"),
        ),
        deviations=(
            "each state has its own prompt; the released code overwrites its word, so that all are the same, the state "
            "branch learns nothing and its probabilities are equal (attribute_word)",
            "the text tower runs with the activation it was trained with; released: GELU in the text tower and "
            "QuickGELU in the image tower (text_activation)",
            "latent units are trained, as in the released code of today; until January 2026 it left them as drawn, and "
            "the published numbers may be from before (train_units)",
            "fp32 or bf16; the released code trains in fp16 autocast and evaluates in fp32",
            "heads of 16 and 8 are those of width 1,024; of each tower the same share of blocks is read (read_blocks)",
            "a norm and a dropout that the released code builds and never uses are not built",
            "fewer than 64 candidates can be scored, where the released code fails",
            "an image that cannot be read is an error; released: another image of its folder takes its place",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: CAMSConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        families = {TEXT[branch] for branch in config.branches}
        self.text_side = OtherActivation(backbone, nn.GELU) if config.text_activation == "gelu" else backbone
        self.prompts = PromptFamilies(backbone, vocabulary, config.dropout, branches=families)
        if config.attribute_word == "overwritten" and "state" in families:
            self.prompts.families["state"] = FixedPrompt(backbone, PRIMITIVE_TEMPLATE, 1, learn_context=True)
        self.taps = last_blocks(config.read_blocks, backbone.n_vision_blocks, "read_blocks")
        slots = [slot for slot in backbone.slot_names("vision") if int(slot.split(".")[1]) in self.taps]
        sizes = (config.adapter_width, config.adapter_dropout, config.adapter_scale)
        self.adapters = AdapterBank(placed(slots, config.adapters), backbone.vision_width, *sizes)
        spaces = [branch for branch in config.branches if branch != "global"]
        self.spaces = self._spaces(spaces) if spaces else None
        self.learned_scale = nn.Parameter(backbone.logit_scale.detach().clone()) if config.learn_scale else None
        self.rule = ScoreFusion(config.inference, config.score_weights)
        self.info = dataclasses.replace(type(self).info, candidate_independent=not self.rule.needs_normaliser)
        self._image_side: LastCall[ImageSide] = LastCall()

    def _spaces(self, names: Sequence[str]) -> MultiSpace:
        config, width = self.config, self.backbone.vision_width
        require_divisor(config.read_heads, width, "read_heads")
        require_divisor(config.part_heads, width, "part_heads")
        count = 1 if config.shared_reader else len(self.taps)
        readers = [GatedReading(width, config.read_heads, config.read_dropout, config.gate) for _ in range(count)]
        units = LatentUnits(config.units, width, readers, config.unit_dropout, config.train_units)
        transformers = {name: UnitTransformer(width, config.part_heads, config.part_dropout) for name in names}
        return MultiSpace(units, transformers, self.backbone.embed_dim, config.feature_dropout)

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines, a scalar."""
        return self.backbone.logit_scale if self.learned_scale is None else self.learned_scale

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the adapted CLIP's "image" feature [B, d] and those of branches in use [B, d], not normalised."""
        if self.spaces is None:
            return {"image": self.backbone.image_embedding(images, self.adapters.slots)}
        read = self.backbone.image_tokens(images, self.taps, self.adapters.slots)
        parts = self.spaces(read, self.backbone.recompute)
        return {"image": self.backbone.project_tokens(read[-1][:, 0]), **parts}

    def text(self, candidates: Candidates, dropout: bool = True) -> dict[Branch, Tensor]:
        """Return the unit text features of each family: "pair" [K, d], "state" [A, d], "object" [O, d]."""
        text = self.prompts(self.text_side, candidates, dropout)
        return {family: unit(vectors) for family, vectors in text.items()}

    def scaled(self, features: Mapping[str, Tensor], branch: View) -> Tensor:
        """Return scale * f / |f|, fp32 [B, d]: its products with unit text features are a branch's logits."""
        feature = features["image" if branch == "global" else branch].float()
        return self.scale * functional.normalize(feature, dim=-1)  # dropout may leave nothing of a feature

    def logits(self, features: Mapping[str, Tensor], text: Mapping[Branch, Tensor]) -> dict[View, Tensor]:
        """Return the logits [B, n] of each branch, fp32 under autocast too, for unit text features [n, d]."""
        with torch.autocast(features["image"].device.type, enabled=False):
            return {name: self.scaled(features, name) @ text[TEXT[name]].T for name in self.config.branches}

    def losses(self, logits: Mapping[View, Tensor], batch: Batch) -> Losses:
        """Return the cross-entropy of each branch's logits [B, n] over images of candidates, and the weighted sum."""
        targets = {"global": batch.pairs, "pair": batch.pairs, "state": batch.states, "object": batch.objects}
        terms: dict[str, Tensor] = {
            name: functional.cross_entropy(values, targets[name], ignore_index=-1) for name, values in logits.items()
        }
        weights: dict[str, float] = dict(zip(VIEWS, self.config.loss_weights, strict=True))
        return Losses(reduce(add, (weights[name] * term for name, term in terms.items())), terms)

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted cross-entropies over training pairs (twice), all states and all objects."""
        features = self.encode(batch).encoded
        return self.losses(self.logits(features, self.text(candidates)), batch)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the losses of an encoded batch over the prepared candidates, for selection by validation loss."""
        text: dict[Branch, Tensor] = {TEXT[name]: prepared.tensors[TEXT[name]] for name in self.config.branches}
        return self.losses(self.logits(batch.encoded, text), batch)

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return the unit text features of each family by its name, and the pairs' "states" and "objects" [K]."""
        states, objects = torch.as_tensor(candidates.pairs, device=self.backbone.device).T
        text = {str(family): vectors for family, vectors in self.text(candidates, dropout=False).items()}
        return Prepared(candidates, text | {"states": states, "objects": objects})

    @torch.no_grad()
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the fused scores [B, n] of the pairs in `chunk`; states and objects are judged once per batch."""
        tensors = prepared.tensors
        side = self._image_side.get((batch, prepared), lambda: self._side(batch.encoded, tensors))
        return self.rule(
            None if side.pair is None else _products(side.pair, tensors["pair"][chunk]),
            side.log_probabilities.get("state"),
            side.log_probabilities.get("object"),
            tensors["states"][chunk],
            tensors["objects"][chunk],
            side.pair_normaliser,
        )

    def _side(self, features: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> ImageSide:
        branches, beta = self.config.branches, self.config.beta
        shares: dict[View, float] = {"global": beta, "pair": 1 - beta}
        both = "global" in branches and "pair" in branches
        # The logits are linear in these: one product with a pair's text where the released code takes two.
        parts = [
            self.scaled(features, name) * (share if both else 1.0) for name, share in shares.items() if name in branches
        ]
        pair = reduce(add, parts) if parts else None
        primitives: list[View] = [name for name in branches if name in ("state", "object")]
        probabilities = {
            name: _products(self.scaled(features, name), tensors[name]).log_softmax(dim=1) for name in primitives
        }
        normaliser = None
        if pair is not None and self.rule.needs_normaliser:
            normaliser = _products(pair, tensors["pair"]).logsumexp(dim=1)
        return ImageSide(pair, probabilities, normaliser)


def _products(images: Tensor, text: Tensor) -> Tensor:
    """Return the products [B, n] of images [B, d] and texts [n, d], fp32 under autocast too."""
    with torch.autocast(images.device.type, enabled=False):
        return images @ text.T
