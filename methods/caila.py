"""CAILA: adapters in every layer of both towers, a set for each of pairs, states and objects, and a mixture of them.

Zheng, Zhu, Nevatia, "CAILA: Concept-Aware Intra-Layer Adapters for Compositional Zero-Shot Learning", WACV 2024 (arXiv
2305.16681); the authors' code is zhaohengz/CAILA. An image goes through the vision tower twice, with the adapters of
states and with those of objects. From a middle block on, the tokens of both streams go on together with a mixture of
adapters. In training, one stream of a sample is sometimes that of another image, which makes a new pair of labels
(concept shift).

B images, P patches, D vision width, d joint width; K pairs, A states, O objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from datasets.concept_shift import Primitive, ShiftRule
from datasets.resizing import Resizing
from errors import UserError
from methods.backbone.blocks import Adapters, Tower
from methods.backbone.clip import Backbone
from methods.backbone.text_tower import text_part
from methods.base import Batch, Losses, Method, MethodConfig, MethodInfo, Prepared
from methods.parts.caila_settings import ABLATIONS, WORDS, CAILAConfig
from methods.parts.memo import PairIndices
from methods.parts.prompt_families import BRANCHES, Branch
from methods.parts.scoring import unit
from methods.parts.sentences import Sentences
from methods.parts.sequential_adapters import AdapterSet, Mixture, SequentialAdapter
from methods.parts.shares import image_dropout

STREAMS: tuple[Primitive, ...] = ("state", "object")
RELEASED_VIEW = Resizing(interpolation="bilinear", margin=256 / 224)
"""How the released code brings images of validation and test to the size of the model."""


class CAILA(Method):
    """Concept-aware intra-layer adapters."""

    Config: ClassVar[type[MethodConfig]] = CAILAConfig
    config: CAILAConfig
    info = MethodInfo(
        name="caila",
        title="Concept-Aware Intra-Layer Adapters",
        paper="Zheng et al., CAILA: Concept-Aware Intra-Layer Adapters for Compositional Zero-Shot Learning",
        venue="WACV 2024",
        arxiv="2305.16681",
        needs=("image_tokens", "adapters", "any_length", "text_adapters", "causal_text"),
        ablations=ABLATIONS,
        deviations=(
            "adapters start as nothing; released: at random, far from CLIP (up_init)",
            "the scales of states and objects start at CLIP's; released: at 20 times that (primitive_scale)",
            "weight decay leaves the token table alone; released: it moves every row, those of no sentence and the "
            "template's towards zero at each step (token_decay)",
            "a sample whose other primitive is seen with nothing else is not shifted; released: its image is replaced "
            "(shift_without_alternative)",
            "cosines and logits are fp32 under autocast; released: in training half precision, in fp16 at a scale of "
            "2,000 steps of 0.5 (half_logits)",
            "a pair's score is the trained scale times the cosine, so that a softmax of scores is what was trained; "
            "released: the cosine (score)",
            "images are augmented as for every method; released: a random part of them, resized (augmentation)",
            "images of validation and test are cut out as for every method; released: bilinear, 256/224 of the size "
            "(test_view)",
            "combine_output is a switch of its own; in the released code it has no effect",
            "second images and all other draws come from the run's seed; the released code reads none",
            "a stream is not computed of an image that is replaced, nor in evaluation beyond the block where both are "
            "joined: released, and unused",
            "the mixup of the released code, off in all its configurations, is not built",
        ),
    )

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: CAILAConfig) -> None:
        super().__init__(backbone, vocabulary, config)
        layers = backbone.n_vision_blocks
        mixed = layers // 2 if config.mixture_layers is None else config.mixture_layers
        if mixed > layers:
            raise UserError(
                f"CAILA is to have {mixed} mixture layers.",
                f"The vision tower of {backbone.name} has {layers} blocks.",
                f"Set mixture_layers to at most {layers}.",
            )
        self.mixture_start = layers - mixed
        text = BRANCHES if config.text_adapters else ()
        self.text = nn.ModuleDict({branch: self._adapters("text") for branch in text})
        self.vision = nn.ModuleDict({branch: self._adapters("vision") for branch in STREAMS})
        self.mixture = self._adapters("vision", self.mixture_start, self._mixture)
        self.sentences = Sentences(backbone, vocabulary, WORDS)
        self._indices = PairIndices()
        start = backbone.clip.logit_scale.detach().clone().reshape(()) + math.log(config.primitive_scale)
        self.scales = nn.ParameterDict({"state": nn.Parameter(start.clone()), "object": nn.Parameter(start.clone())})
        self._thaw()

    def _adapters(
        self, tower: Tower, start: int = 0, make: Callable[[SequentialAdapter], nn.Module] = lambda own: own
    ) -> AdapterSet:
        """Return a set of adapters for a tower, from a block on, in the blocks that the settings give them to."""
        config, backbone = self.config, self.backbone
        width, stop = (backbone.vision_width if tower == "vision" else backbone.text_width), None
        if tower == "vision":
            start = max(start, config.adapter_start)
            stop = config.adapter_end if config.vision_adapters else 0
        slots = backbone.slot_names(tower, "out")
        per_block = 2  # attention and MLP
        slots = slots[per_block * start : None if stop is None else per_block * stop]
        activation, bottleneck = backbone.activation(tower), max(1, width // config.reduction)
        return AdapterSet(
            {slot: make(SequentialAdapter(width, bottleneck, activation, config.up_init)) for slot in slots}
        )

    def _mixture(self, own: SequentialAdapter) -> Mixture:
        config = self.config
        latents, outputs = (config.combination if on else None for on in (config.combine_latent, config.combine_output))
        return Mixture(own, latents, outputs)

    def _thaw(self) -> None:
        """Train what the method trains of CLIP: its LayerNorms, both projections, its scale, and the token table."""
        clip = self.backbone.clip
        for module in clip.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        for name, parameter in clip.named_parameters():
            # The projections' names in open_clip's own towers and in timm's.
            if "text_projection" in name or name in ("visual.proj", "visual.head.proj.weight", "logit_scale"):
                parameter.requires_grad_(True)
        self.token_table.requires_grad_(self.config.learn_tokens)

    @property
    def token_table(self) -> nn.Parameter:
        """CLIP's table of token vectors."""
        return text_part(self.backbone.clip).token_embedding.weight

    @property
    def shifts(self) -> ShiftRule | None:
        """Which samples get a second image in training."""
        config = self.config
        if config.shift == 0:
            return None
        return ShiftRule(config.shift, config.object_shift_share, config.shift_without_alternative)

    @property
    def resizing(self) -> Resizing:
        """How images of validation and test are brought to the size of the model."""
        return RELEASED_VIEW if self.config.test_view == "released" else self.backbone.resizing

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return the optimizer's groups; without decay of the token table, that is a group by itself."""
        table = self.token_table
        if self.config.token_decay == "coupled" or not table.requires_grad:
            return super().parameter_groups(lr, weight_decay)
        others = [parameter for parameter in self.trained().values() if parameter is not table]
        return [
            {"params": others, "lr": lr, "weight_decay": weight_decay},
            {"params": [table], "lr": lr, "weight_decay": 0.0},
        ]

    def stream(self, images: Tensor, branch: Branch) -> Tensor:
        """Return the tokens of the state or object stream where both are joined, [B, 1 + P, D]."""
        entering = self.backbone.embed_images(images)
        return self.backbone.run_vision_blocks(entering, 0, self.mixture_start, self._slots(self.vision, branch))

    def primitive_feature(self, tokens: Tensor, branch: Branch) -> Tensor:
        """Return the feature [B, d] of a stream's tokens, run to the end with the stream's own adapters."""
        last = self.backbone.run_vision_blocks(tokens, self.mixture_start, None, self._slots(self.vision, branch))
        return self.backbone.project_tokens(last[:, 0])

    def mixed_feature(self, states: Tensor, objects: Tensor) -> Tensor:
        """Return the feature [B, d] of both streams' tokens [B, 1 + P, D], side by side through the mixture.

        The two class tokens are averaged before the last LayerNorm and the projection.
        """
        streams = cast(Mapping[Branch, AdapterSet], self.vision)  # a ModuleDict forgets
        adapters: Adapters = {
            slot: cast(Mixture, mixture).of(*(cast(SequentialAdapter, streams[branch][slot]) for branch in STREAMS))
            for slot, mixture in self.mixture.slots.items()
        }
        tokens = torch.cat([states, objects], dim=1)
        last = self.backbone.run_vision_blocks(tokens, self.mixture_start, None, adapters)
        return self.backbone.project_tokens((last[:, 0] + last[:, states.shape[1]]) / 2)

    @staticmethod
    def _slots(sets: nn.ModuleDict, branch: Branch) -> Adapters:
        return cast(AdapterSet, sets[branch]).slots if branch in sets else {}

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return {"image": [B, d]}, the mixture's feature before normalisation."""

        def read(part: Tensor) -> tuple[Tensor]:
            return (self.mixed_feature(self.stream(part, "state"), self.stream(part, "object")),)

        return {"image": self.backbone.read_in_passes(images, read)[0]}

    def text_features(self, candidates: Candidates) -> dict[Branch, Tensor]:
        """Return the features of each kind of sentence, not normalised: pair [K, d], state [A, d], object [O, d]."""
        vectors = self.sentences.token_vectors(self.backbone)
        return {
            branch: self.sentences.encode(
                self.backbone,
                branch,
                candidates,
                vectors,
                self._slots(self.text, branch),
                beginning_learns=self.config.template_gradient,
            )
            for branch in BRANCHES
        }

    def pair_text(self, text: Mapping[Branch, Tensor], candidates: Candidates) -> Tensor:
        """Return unit text features of the candidates [K, d]: the mean of un-normalised features, then normalised."""
        if self.config.pair_text == "pair":
            return unit(text["pair"])
        states, objects = self._indices.of(candidates, text["pair"].device)
        return unit((text["pair"] + text["state"][states] + text["object"][objects]) / 3)

    def logits(self, image: Tensor, text: Tensor, scale: Tensor | float, *, may_round: bool = False) -> Tensor:
        """Return scale * image . text of unit features, [B, K], fp32 unless autocast may round them."""
        if may_round:
            return scale * (image @ text.T)
        with torch.autocast(image.device.type, enabled=False):
            return (scale * image.float()) @ text.float().T

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the weighted sum of the cross-entropies of pairs, states and objects.

        A second image takes the place of the first in its stream, and its labels that of the sample's.
        """
        if batch.images is None:
            raise ValueError("the batch has no images")
        labels: dict[Branch, Tensor] = {"pair": batch.pairs, "state": batch.states, "object": batch.objects}
        tokens: dict[Branch, Tensor] = {}
        image: dict[Branch, Tensor] = {}
        for branch in STREAMS:
            images = batch.images
            if branch in batch.second:
                second = batch.second[branch]
                images = images.index_copy(0, second.rows, second.images)
                labels["pair"] = labels["pair"].index_copy(0, second.rows, second.pairs)
                labels[branch] = labels[branch].index_copy(0, second.rows, second.labels)
            tokens[branch] = self.stream(images, branch)
            image[branch] = unit(self.primitive_feature(tokens[branch], branch))
        mixed, p = self.mixed_feature(tokens["state"], tokens["object"]), self.config.image_dropout
        if self.config.dropout_after_norm:
            image["pair"] = image_dropout(unit(mixed), p, self.training)
        else:
            image["pair"] = unit(image_dropout(mixed, p, self.training))
        text = self.text_features(candidates)
        of: dict[Branch, Tensor] = {"pair": self.pair_text(text, candidates)}
        scales: dict[Branch, Tensor] = {"pair": self.backbone.logit_scale}
        for branch in STREAMS:
            of[branch], scales[branch] = unit(text[branch]), self.scales[branch].reshape(()).exp()
        half = self.config.half_logits
        terms: dict[str, Tensor] = {
            # -1: the pair is no candidate
            branch: functional.cross_entropy(
                self.logits(image[branch], of[branch], scales[branch], may_round=half).float(),
                labels[branch],
                ignore_index=-1,
            )
            for branch in BRANCHES
        }
        weighted = (w * terms[branch] for w, branch in zip(self.config.loss_weights, BRANCHES, strict=True))
        return Losses(reduce(add, weighted), terms)

    @torch.no_grad()
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return the unit text features of the candidates as "text" [K, d]."""
        return Prepared(candidates, {"text": self.pair_text(self.text_features(candidates), candidates)})

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return the cosines [B, n] with the candidates of `chunk`, or the trained scale times these."""
        return self._scores(batch, prepared.tensors["text"][chunk], self.config.score == "logit")

    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the cross-entropy of the pairs' logits."""
        loss = functional.cross_entropy(self._scores(batch, prepared.tensors["text"], True).float(), batch.pairs)
        return Losses(loss, {"pair": loss})

    def _scores(self, batch: Batch, text: Tensor, scaled: bool) -> Tensor:
        scale = self.backbone.logit_scale if scaled else 1.0
        return self.logits(unit(batch.encoded["image"]), text, scale)
