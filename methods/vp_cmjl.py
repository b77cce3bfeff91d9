"""VP-CMJL: textual prototypes and visual proxies, two classifiers of one image feature that are tied to each other.

Zhang et al., "Learning Visual Proxy for Compositional Zero-Shot Learning", ICCV 2025 (arXiv 2501.13859); the authors'
code is codefish12-09/VP_CMJL. Prompts and adapters are Troika's. The text side compares the image with texts of pairs;
with those of states and objects it compares what the image reads of them by attention, whose weights are logits as
well. The proxy side has a free vector per state and object, which one linear map composes into those of pairs. A
divergence ties the two sides in training, and a score is a mixture of both.

B images, d joint width; K pairs, A states, O objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.base import Ablation, Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.adapters import AdapterBank, Placement, placed
from methods.parts.branch_settings import Probability, Weight, Weights
from methods.parts.branches import Disentangler
from methods.parts.fusion import Rule, ScoreFusion
from methods.parts.memo import LastCall
from methods.parts.mixture import Mixing, Mixture, divergence
from methods.parts.prompt_families import BRANCHES, Branch, PromptFamilies
from methods.parts.scoring import unit
from methods.parts.visual_proxies import Composer, VisualProxies
from methods.parts.word_attention import WordAttention

PRIMITIVES: tuple[Branch, ...] = ("state", "object")
Logits = Mapping[str, Tensor]
"""Each side's logits [B, n] of the same pairs, states or objects."""


class VPCMJLConfig(MethodConfig):
    """Settings of VP-CMJL; names of the released code in brackets. Weights are those of (pair, state, object).

    sides: those that are trained and scored with
    dropout [attr_dropout]: of the table of words
    stray_word: prompts of states and objects have the frozen word x before the slot, as released for C-GQA
    adapters: beside which sub-layers of the image tower
    adapter_width, adapter_dropout, adapter_scale: of these adapters, see `AdapterBank`
    disentangler_dropout: of the states' and the objects' image features on the proxy side
    word_attention: False gives the text side those features too
    heads: of the attention to words; 16 on every backbone
    attention_logits: whether the attention weights, times CLIP's scale, are added to the logits of the words
    proxy_init, pair_proxy: see `VisualProxies`

    text_loss_weights, proxy_loss_weights: of the cross-entropies
    divergence_weight: of KL(q || p) between the pairs' distributions
    divergence_target: the side that is q
    detach_target: whether q gets no gradient

    proxy_weight [alpha], text_weight [beta]: of the sides in a score; a side that is alone has weight 1
    mixing: whether the sides' logits are added or, of states and objects and where the rule reads them of pairs, their
        probabilities
    inference, score_weights: see `ScoreFusion`
    """

    score_only: ClassVar[frozenset[str]] = frozenset(
        {"proxy_weight", "text_weight", "mixing", "inference", "score_weights"}
    )

    sides: Literal["both", "text", "proxy"] = "both"
    dropout: Probability = 0.3
    stray_word: bool = False
    adapters: Placement = "both"
    adapter_width: int = Field(64, ge=1)
    adapter_dropout: Probability = 0.1
    adapter_scale: float = 0.1
    disentangler_dropout: Probability = 0.5
    word_attention: bool = True
    heads: int = Field(16, ge=1)
    attention_logits: bool = True
    proxy_init: Literal["text", "random"] = "text"
    pair_proxy: Composer = "linear"
    text_loss_weights: Weights = (1.0, 1.0, 1.0)
    proxy_loss_weights: Weights = (1.0, 1.0, 1.0)
    divergence_weight: Weight = 1.0
    divergence_target: Literal["text", "proxy"] = "text"
    detach_target: bool = False
    proxy_weight: Weight = 0.3
    text_weight: Weight = 0.7
    mixing: Mixing = "logits"
    inference: Rule = "logit_sum"
    score_weights: Weights = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _some_weight(self) -> VPCMJLConfig:
        if self.proxy_weight + self.text_weight == 0:
            raise ValueError("proxy_weight and text_weight are both 0, which leaves nothing to score with")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The sides that exist, with their weights in a score."""
        if self.sides != "both":
            return {self.sides: 1.0}
        return {"text": self.text_weight, "proxy": self.proxy_weight}


class VPCMJL(Method):
    """Visual proxies and textual prototypes."""

    Config: ClassVar[type[MethodConfig]] = VPCMJLConfig
    config: VPCMJLConfig
    info = MethodInfo(
        name="vp_cmjl",
        title="Visual Proxies and Cross-Modal Joint Learning",
        paper="Zhang et al., Learning Visual Proxy for Compositional Zero-Shot Learning",
        venue="ICCV 2025",
        arxiv="2501.13859",
        needs=("pooled_image", "soft_prompt", "adapters"),
        ablations=(
            Ablation("text_side", {"sides": "text"}, "What do visual proxies bring?"),
            Ablation("proxy_side", {"sides": "proxy"}, "How far do visual proxies go without prompts?"),
            *(
                Ablation(name, {"proxy_weight": proxy, "text_weight": 1.0 - proxy}, question)
                for name, proxy, question in (
                    ("text_scores", 0.0, "Are the proxies needed once trained with?"),
                    ("proxy_scores", 1.0, "Are the texts needed once trained with?"),
                    ("equal_sides", 0.5, "Must the sides be weighed differently?"),
                )
            ),
            Ablation("no_divergence", {"divergence_weight": 0.0}, "Does it help to tie the two sides?"),
            Ablation("detached_target", {"detach_target": True}, "Must both sides move towards each other?"),
            Ablation("proxy_target", {"divergence_target": "proxy"}, "Does the direction of the divergence matter?"),
            Ablation("no_attention_logits", {"attention_logits": False}, "Should attention weights be logits?"),
            Ablation("no_word_attention", {"word_attention": False}, "Does it help that the image reads the words?"),
            Ablation("mean_pair_proxy", {"pair_proxy": "mean"}, "Must the composition of proxies be learned?"),
            Ablation("composed_from_mean", {"pair_proxy": "linear_from_mean"}, "Should pair proxies start from text?"),
            Ablation("random_proxies", {"proxy_init": "random"}, "How much do the texts bring to the proxies?"),
            Ablation("stray_word", {"stray_word": True}, "What does the released stray word in the prompts change?"),
            Ablation("mixed_probabilities", {"mixing": "probabilities"}, "Should distributions be mixed, not logits?"),
            Ablation("logit_product", {"inference": "logit_product"}, "Is a product of probabilities better?"),
            Ablation("log_sum", {"inference": "log_sum"}, "Is it better to add log-probabilities?"),
            Ablation("pair_score_only", {"inference": "pair"}, "Are the primitives needed once trained with?"),
            Ablation("no_adapters", {"adapters": "none"}, "How much comes from training the image tower?"),
            Ablation("no_dropout", {"dropout": 0.0}, "Does dropout on the word vectors help unseen pairs?"),
        ),
        deviations=(
            "states and objects have Troika's prompts on every data set; released for C-GQA: with a stray x before the "
            "word (stray_word)",
            "the epoch is chosen by validation AUC; released: by the loss of the last validation batch divided by the "
            "number of batches (selection last_batch_loss, selection_batch)",
            "the learning rate falls every 5 epochs where the released settings say so; the code has 3 (step_size)",
            "pair proxies come from a linear map that starts random, as released; the abstract starts them from text "
            "(pair_proxy)",
            "the sides' logits are mixed, as released; the paper's figure draws distributions (mixing)",
            "a third attention block, which the released code builds and never uses, is not built",
            "the released training stops at its first validation (five values returned, six unpacked); ours goes on",
            "a last batch of one image uses BatchNorm's running statistics, where the released code fails",
            "proxies of pairs that are free vectors are not built: those of unseen pairs would never be trained",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: VPCMJLConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        width, with_text = backbone.embed_dim, config.sides != "proxy"
        self.prompts = self.proxies = None
        if with_text:
            self.prompts = PromptFamilies(backbone, vocabulary, config.dropout, stray_word=config.stray_word)
        slots = placed(backbone.slot_names("vision"), config.adapters)
        self.adapters = AdapterBank(
            slots, backbone.vision_width, config.adapter_width, config.adapter_dropout, config.adapter_scale
        )
        attending = PRIMITIVES if with_text and config.word_attention else ()
        disentangled = PRIMITIVES if config.sides != "text" or not config.word_attention else ()
        self.attentions = nn.ModuleDict({branch: WordAttention(width, config.heads) for branch in attending})
        self.disentanglers = nn.ModuleDict(
            {branch: Disentangler(width, config.disentangler_dropout) for branch in disentangled}
        )
        if config.sides != "text":
            self.proxies = VisualProxies(backbone, vocabulary, config.proxy_init, config.pair_proxy)
        self.rule = ScoreFusion(config.inference, config.score_weights)
        # The class says what holds for the default, the object what holds for its own configuration.
        self.info = dataclasses.replace(
            type(self).info,
            frozen_image_features=config.adapters == "none",
            candidate_independent=not self.rule.needs_normaliser,
        )
        self._judged: LastCall[dict[str, Tensor]] = LastCall()

    @property
    def mixture(self) -> Mixture:
        """How the sides are mixed."""
        return Mixture(self.config.weights, self.config.mixing)

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"image": [B, d]}, the image feature of the tower with its adapters, not normalised."""
        return {"image": self.backbone.image_embedding(images, self.adapters.slots)}

    def words(self, candidates: Candidates, dropout: bool) -> dict[str, Tensor]:
        """Return what candidates and vocabulary decide: unit texts and proxies, and what images read of the texts.

        "text.<branch>" and "proxy.<branch>" are [n, d], "keys.<branch>" and "values.<branch>" [heads, n, d / heads].
        """
        found: dict[str, Tensor] = {}
        if self.prompts is not None:
            texts = self.prompts(self.backbone, candidates, dropout=dropout)
            found |= {f"text.{branch}": unit(text) for branch, text in texts.items()}
            attentions = cast(Mapping[Branch, WordAttention], self.attentions)  # a ModuleDict forgets
            for branch, attention in attentions.items():
                found[f"keys.{branch}"], found[f"values.{branch}"] = attention.memory(texts[branch])
        if self.proxies is not None:
            rows = {"pair": self.proxies.pairs(candidates), "state": self.proxies.state, "object": self.proxies.object}
            found |= {f"proxy.{branch}": unit(proxies) for branch, proxies in rows.items()}
        return found

    def cosines(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the scaled cosines [B, n] of image features [B, d] with unit rows [n, d], fp32 as `cosine_logits`."""
        with torch.autocast(images.device.type, enabled=False):
            images = functional.normalize(images.float(), dim=-1)  # a disentangled feature may be all zeros
            return (self.backbone.logit_scale * images) @ rows.T

    def pair_logits(self, image: Tensor, words: Mapping[str, Tensor], chunk: slice = slice(None)) -> Logits:
        """Return each side's logits [B, n] of the pairs in `chunk`."""
        return {side: self.cosines(image, words[f"{side}.pair"][chunk]) for side in self.config.weights}

    def primitive_logits(self, image: Tensor, words: Mapping[str, Tensor]) -> Mapping[Branch, Logits]:
        """Return by branch each side's logits of all states [B, A] and of all objects [B, O]."""
        logits: dict[Branch, dict[str, Tensor]] = {branch: {} for branch in PRIMITIVES}
        for branch, found in logits.items():
            own = self.disentanglers[branch](image) if branch in self.disentanglers else image
            if self.prompts is not None:
                read, attended = own, None
                if branch in self.attentions:
                    memory = words[f"keys.{branch}"], words[f"values.{branch}"]
                    read, attended = self.attentions[branch](image, memory)
                found["text"] = self.cosines(read, words[f"text.{branch}"])
                if attended is not None and self.config.attention_logits:
                    found["text"] = found["text"] + self.backbone.logit_scale * attended
            if self.proxies is not None:
                found["proxy"] = self.cosines(own, words[f"proxy.{branch}"])
        return logits

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted sum of a cross-entropy per side and branch, and of the sides' divergence over pairs."""
        image = self.encode(batch).encoded["image"]
        return self._losses(image, self.words(candidates, dropout=True), batch)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the same losses of an encoded batch over the prepared candidates."""
        return self._losses(batch.encoded["image"], prepared.tensors, batch)

    def _losses(self, image: Tensor, words: Mapping[str, Tensor], batch: Batch) -> Losses:
        config, pairs = self.config, self.pair_logits(image, words)
        logits: dict[Branch, Logits] = {"pair": pairs, **self.primitive_logits(image, words)}
        targets: dict[Branch, Tensor] = {"pair": batch.pairs, "state": batch.states, "object": batch.objects}
        terms: dict[str, Tensor] = {}
        factors: dict[str, float] = {}
        for side in config.weights:
            for branch, factor in zip(BRANCHES, getattr(config, f"{side}_loss_weights"), strict=True):
                name = f"{side}_{branch}"  # -1: the pair is no candidate
                terms[name] = functional.cross_entropy(logits[branch][side], targets[branch], ignore_index=-1)
                factors[name] = factor
        if config.sides == "both" and config.divergence_weight > 0:
            moved = "proxy" if config.divergence_target == "text" else "text"
            target = pairs[config.divergence_target]
            terms["divergence"] = divergence(pairs[moved], target.detach() if config.detach_target else target)
            factors["divergence"] = config.divergence_weight
        return Losses(reduce(add, (factors[name] * term for name, term in terms.items())), terms)

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return `words` without dropout, and the pairs' "states" and "objects" [K]."""
        states, objects = torch.as_tensor(candidates.pairs, device=self.backbone.device).T
        return Prepared(candidates, self.words(candidates, dropout=False) | {"states": states, "objects": objects})

    @torch.no_grad()
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the fused scores [B, n] of the pairs in `chunk`; states and objects are judged once per batch."""
        image, tensors = batch.encoded["image"], prepared.tensors
        judged = self._judged.get((batch, prepared), lambda: self._judge(image, tensors))
        pairs, mixture = self.pair_logits(image, tensors, chunk), self.mixture
        if "pair" in judged:  # its log-probabilities, of which nothing is left to be normalised
            pair, normaliser = mixture.log_probability(pairs, judged["pair"]), torch.zeros_like(image[:, 0])
        else:
            pair, normaliser = mixture.logits(pairs), None
        states, objects = tensors["states"][chunk], tensors["objects"][chunk]
        return self.rule(pair, judged["state"], judged["object"], states, objects, normaliser)

    def _judge(self, image: Tensor, words: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return log-probabilities "state" [B, A] and "object" [B, O], and "pair", the normaliser, if it is needed."""
        mixture, primitives = self.mixture, self.primitive_logits(image, words)
        found = {str(k): mixture.log_probability(both, mixture.normaliser(both)) for k, both in primitives.items()}
        if self.rule.needs_normaliser:
            found["pair"] = mixture.normaliser(self.pair_logits(image, words))
        return found
