"""Counting without computing: trained parameters, FLOPs by part, memory; a method whose tensors have shapes alone.

Works for any open_clip ViT and any label space in seconds and without its weights. What is counted is followed exactly,
chunk by chunk; nothing is extrapolated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.cost.backbone_only import NAME, BackboneOnly
from benchmarks.cost.labels import LabelSpace
from benchmarks.cost.parts import PartMeter
from benchmarks.cost.record import Estimate, Flops, Row, Settings
from benchmarks.running.fake_tensors import ByPlace, fake_batch, fake_weights
from benchmarks.running.memory_estimate import estimate
from benchmarks.runs.resolution import resolve
from benchmarks.runs.spec import TrainingConfig
from benchmarks.training.execution import Execution
from datasets.base import Candidates
from errors import UserError
from methods.backbone.clip import Backbone
from methods.backbone.loading import TINY, shapes_of_clip
from methods.backbone.products import as_torch_does
from methods.base import Method, MethodConfig
from registry import METHODS


def backbone_name(name: str) -> str:
    """Return the full name of a backbone: an open_clip model without weights is one with random weights.

    >>> backbone_name("ViT-B-32"), backbone_name("tiny-icons")
    ('ViT-B-32/random', 'tiny-icons')
    """
    return name if name == TINY or "/" in name else f"{name}/random"


def empty_backbone(name: str) -> Backbone:
    """Return a backbone on the meta device: the right shapes, no numbers, no memory. `UserError` for an unknown one."""
    return Backbone.from_open_clip(*shapes_of_clip(name), digest="")


def build(name: str, backbone: Backbone, labels: LabelSpace) -> tuple[Method, TrainingConfig]:
    """Return a method with the settings of its preset for the label space; `reference.NAME` is the backbone alone."""
    if name == NAME:
        return BackboneOnly(backbone, labels.dataset.vocabulary, MethodConfig()), TrainingConfig()
    method_class = METHODS.get(name)
    resolved = resolve(name, method_class.Config, labels.name)
    built = method_class(backbone, labels.dataset.vocabulary, method_class.Config.model_validate(resolved.method))
    return built, resolved.training


@dataclass(frozen=True)
class Subject:
    """A method without numbers and all that its cost depends on.

    preset_batch: its own batch size, whatever that of `training` is.
    trains: whether it has training steps at all.
    """

    method: Method
    training: TrainingConfig
    preset_batch: int
    trains: bool
    candidates: dict[str, Candidates]
    execution: Execution

    @property
    def estimate(self) -> Estimate:
        """What it takes of memory, in bytes."""
        found = estimate(self.method, self.training, self.execution, self.candidates)
        steps = found.weights + found.gradients + found.optimizer + found.training
        return Estimate(
            weights=found.weights,
            training=steps if self.trains else 0,
            evaluation=found.weights + found.optimizer + found.evaluation,
        )


def subject(name: str, settings: Settings, labels: LabelSpace) -> Subject:
    """Return a method as it is to be counted."""
    backbone = empty_backbone(settings.backbone)
    backbone.recompute = settings.recompute
    method, training = build(name, backbone, labels)
    batch = settings.batch or training.batch_size
    return Subject(
        method,
        training.model_copy(update={"batch_size": batch, "micro_batch": None}),
        batch if name == NAME else training.batch_size,
        method.info.trains and training.epochs > 0,
        {
            "train": labels.dataset.candidates("train"),
            "test": labels.dataset.candidates("test", settings.world),
        },
        Execution(torch.device("cpu"), settings.precision, eval_batch=batch),
    )


def count(name: str, settings: Settings, labels: LabelSpace) -> Row:
    """Return a method's row with parameters, FLOPs and the estimate of memory."""
    one = subject(name, settings, labels)
    method, batch = one.method, one.training.batch_size
    parameters = sum(parameter.numel() for parameter in method.trained().values())
    memory = one.estimate
    images = labels.train_images if one.trains else 0
    flops = count_flops(method, batch, one.candidates, one.execution.pair_chunk, images)
    return Row(
        method=name,
        batch=batch,
        preset_batch=one.preset_batch,
        epochs=one.training.epochs if one.trains else 0,
        parameters=parameters,
        flops=flops,
        estimate=memory,
    )


def count_flops(
    method: Method, images: int, candidates: dict[str, Candidates], pair_chunk: int, train_images: int
) -> Flops:
    """Count a training step and an evaluation batch of so many images. `method` is used up.

    train_images: of an epoch; 0 where nothing is trained.
    """
    mode = fake_weights(method)
    batch = fake_batch(method, mode, images)
    step, step_parts = 0, dict[str, int]()
    if train_images:
        method.train()
        with counting() as total:
            step, step_parts = _by_part(
                method, total, lambda: method.training_loss(batch, candidates["train"]).total.backward()
            )
    method.eval()
    test = candidates["test"]
    with torch.no_grad():
        with counting() as total:
            prepared = method.prepare(test)
            prepare = total()

        def score() -> None:
            encoded = method.encode(batch)
            for start in range(0, len(test), pair_chunk):
                method.score(encoded, prepared, slice(start, min(start + pair_chunk, len(test))))

        with counting() as total:
            evaluation, eval_parts = _by_part(method, total, score)
    return Flops(
        train_step=step,
        train_parts=step_parts,
        eval_batch=evaluation,
        eval_parts=eval_parts,
        prepare=prepare,
        train_image=step / images,
        eval_image=evaluation / images,
        train_epoch=step / images * train_images,
    )


def _by_part(method: Method, total: Callable[[], int], work: Callable[[], None]) -> tuple[int, dict[str, int]]:
    meter = PartMeter(total)
    with meter.watching(method):
        work()
    meter.settle()
    return total(), {part: int(value) for part, value in meter.costs.items() if value}


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Count the FLOPs of the block, of fake or real tensors; what is yielded tells them so far.

    torch's table of operations lacks attention on the CPU, and a fused path of whole attention layers would hide what
    is in it.
    """
    aten: Any = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with as_torch_does(), FlopCounterMode(display=False, custom_mapping=attention) as counter, ByPlace():
                yield counter.get_total_flops
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def count_or_say(name: str, settings: Settings, labels: LabelSpace) -> Row:
    """Return `count`, or a row that says in a sentence why nothing could be counted."""
    try:
        return count(name, settings, labels)
    except (RuntimeError, NotImplementedError, UserError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Row(method=name, batch=settings.batch, preset_batch=0, epochs=0, error=f"Not counted: {reason}")
