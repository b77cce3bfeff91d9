"""The contract of a method: what a method offers to training and evaluation, and what it is handed.

A method is a torch module built from (backbone, vocabulary, config). It never names a device, prints or saves.
Training calls `training_loss`; evaluation calls `prepare` once per candidate list, `encode` once per batch of images
and `score` once per chunk of candidates.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary, World
from datasets.concept_shift import Primitive, ShiftRule
from datasets.resizing import Resizing
from methods.offers import require_fit

if TYPE_CHECKING:
    from methods.backbone.clip import Backbone


class MethodConfig(BaseModel):
    """Settings of a method that change its numbers; a subclass holds every default. Unknown keys are refused.

    score_only: names of the settings that neither the initial weights nor the training loss depend on. Runs that differ
    in these alone train the same weights, so they are trained once (`benchmarks/running/joint.py`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score_only: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Ablation:
    """A named switch of a method: the config values it sets and the question it answers."""

    name: str
    changes: Mapping[str, Any]
    question: str


@dataclass(frozen=True)
class MethodInfo:
    """What a method is, for people and for the suite.

    trains: whether there is anything to train
    frozen_image_features: whether `image_features` depends on the image and the frozen backbone alone (not on anything
        trained, nor on settings), so that its output may be kept and shared by methods that have the same function
    batch_independent: whether an image's scores are the same whatever else is in its batch
    candidate_independent: whether a pair's score is the same whatever else is a candidate
    needs: what it asks of a backbone, names of `methods.offers.OFFERS`; on others it is refused
    """

    name: str
    title: str
    paper: str
    venue: str = ""
    arxiv: str | None = None
    trains: bool = True
    frozen_image_features: bool = False
    batch_independent: bool = True
    candidate_independent: bool = True
    needs: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecondImages:
    """Second images of S samples of a batch, which replace one primitive: what a sample shows and is called then.

    rows: int64 [S], places in the batch, ascending
    images: float [S, 3, H, W], normalised, each of some image that shows the new primitive
    labels: int64 [S], the new label of the primitive
    pairs: int64 [S], columns of the pair that it makes with the other primitive
    """

    rows: Tensor
    images: Tensor
    labels: Tensor
    pairs: Tensor

    def within(self, start: int, stop: int) -> SecondImages | None:
        """Return those of the samples start .. stop - 1, with rows counted from there; None if there are none."""
        some = (self.rows >= start) & (self.rows < stop)
        if not some.any():
            return None
        return SecondImages(self.rows[some] - start, self.images[some], self.labels[some], self.pairs[some])


@dataclass(frozen=True)
class Batch:
    """A batch of images on the method's device.

    images: float [B, 3, H, W], normalised, or None where cached features replace them
    states, objects: int64 [B]
    pairs: int64 [B], column of the true pair in the candidates in use (-1: not a candidate)
    features: what `Method.image_features` returned, each [B, ...], or None before `encode`
    second: by the primitive that they replace, in training batches of a method that asks for them (`Method.shifts`)
    """

    states: Tensor
    objects: Tensor
    pairs: Tensor
    images: Tensor | None = None
    features: Mapping[str, Tensor] | None = None
    second: Mapping[Primitive, SecondImages] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def encoded(self) -> Mapping[str, Tensor]:
        """The features of a batch that went through `Method.encode`; ValueError for one that did not."""
        if self.features is None:
            raise ValueError("the batch is not encoded")
        return self.features


@dataclass(frozen=True)
class Losses:
    """Named unweighted loss terms (scalars) and the weighted total that is minimised."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What does not depend on the image: the candidates and the method's tensors for them."""

    candidates: Candidates
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Method(nn.Module, abc.ABC):
    """Base class of all methods. Subclasses set `info` and `Config`, and call `super().__init__` first.

    info: of a class what holds for its default configuration; an object may have its own, for its configuration.
    """

    info: MethodInfo
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, config: MethodConfig) -> None:
        super().__init__()
        if self.info.needs:
            require_fit(self.info.name, self.info.needs, backbone.name, backbone.offers)
        self.backbone = backbone
        self.vocabulary = vocabulary
        self.config = config

    @property
    def shifts(self) -> ShiftRule | None:
        """Which samples of a training epoch get a second image (`Batch.second`); None is none."""
        return None

    @property
    def resizing(self) -> Resizing:
        """How images are brought to the backbone's size where they are not augmented."""
        return self.backbone.resizing

    @abc.abstractmethod
    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return what `score` needs of normalised images [B, 3, H, W], whatever the candidates; each value [B, ...]."""

    @abc.abstractmethod
    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Return the losses of a batch against the training candidates; `batch.pairs` are their columns."""

    @abc.abstractmethod
    def prepare(self, candidates: Candidates) -> Prepared:
        """Return text features and whatever else the candidates alone decide; once per evaluation, no gradient."""

    @abc.abstractmethod
    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return scores [B, n] of an encoded batch against the candidates `chunk` selects; higher is better.

        The scores of a pair do not depend on how the candidates are cut into chunks.
        """

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with `features` filled; a batch that already has them is returned as it is."""
        if batch.features is not None:
            return batch
        if batch.images is None:
            raise ValueError("the batch has neither images nor features")
        return replace(batch, features=self.image_features(batch.images))

    def on_epoch_start(self, epoch: int) -> None:
        """Hook before each epoch (counted from 0)."""

    def after_step(self) -> None:
        """Hook after each optimizer step."""

    def on_final_evaluation(self) -> None:
        """Hook before the selected weights are evaluated for the record, after all epochs."""

    def scoring(self, world: World) -> str | None:
        """Return in words what beside the trained state decides about scores in a world at this moment.

        Scores of the same state and words are not computed again. None, also where `on_final_evaluation` does something
        that nobody has put into words: they are.
        """
        return "" if type(self).on_final_evaluation is Method.on_final_evaluation else None

    def validation_losses(self, batch: Batch, prepared: Prepared) -> Losses:
        """Return the losses of an encoded batch against the prepared candidates, for selection by validation loss."""
        loss = functional.cross_entropy(self.score(batch, prepared, slice(None)).float(), batch.pairs)
        return Losses(loss, {"pair": loss})

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters to train by name; CLIP's own are frozen unless the method switched them on."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups; override where parts of a method have their own rates."""
        return [{"params": list(self.trained().values()), "lr": lr, "weight_decay": weight_decay}]

    def checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors that make up the trained state: trained parameters and the method's own buffers."""
        own_buffers = {name: value for name, value in self.named_buffers() if not name.startswith("backbone.")}
        persistent = self.state_dict().keys()
        tensors = {**self.trained(), **{name: value for name, value in own_buffers.items() if name in persistent}}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def load_checkpoint(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what `checkpoint` returned; a missing, extra or misshapen tensor raises ValueError naming it."""
        own = self.checkpoint()
        wrong = sorted(own.keys() ^ tensors.keys()) or sorted(
            name for name in own if own[name].shape != tensors[name].shape
        )
        if wrong:
            names = ", ".join(wrong)
            raise ValueError(f"checkpoint of {self.info.name} does not fit: {names} missing, extra or misshapen")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
