"""A whole profile: every method counted, then measured one after the other, each in its own process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.cost.backbone_only import NAME
from benchmarks.cost.children import with_timing
from benchmarks.cost.counting import backbone_name, count_or_say, empty_backbone
from benchmarks.cost.decoding import measure_decoding
from benchmarks.cost.labels import label_space
from benchmarks.cost.record import Labels, Profile, Row, Settings
from benchmarks.runs.environment import capture_environment
from errors import UserError
from registry import BACKBONES, METHODS

Progress = Callable[[str], None]
"""Takes in what is being done now."""


def silent(what: str) -> None:
    """Report nothing."""


def take(settings: Settings, command: Sequence[str] = (), report: Progress = silent) -> Profile:
    """Count and, unless `flops_only`, measure. Wrong names are `UserError`s before anything is done.

    A method that fails is a row with its reason.
    """
    for name in settings.methods:
        METHODS.check(name)
    labels = label_space(settings.labels)
    backbone = empty_backbone(settings.backbone)
    if not settings.flops_only:
        full = backbone_name(settings.backbone)
        BACKBONES.check(full)
        if full.partition("/")[2] not in ("", "random"):
            raise UserError(
                f"Profiles are taken with random weights, not with '{settings.backbone}'.",
                "What a method costs does not depend on the numbers in its weights.",
                f"Pass --backbone {full.partition('/')[0]}.",
            )
    rows: list[Row] = []
    for name in (NAME, *settings.methods):
        report(f"{name}: counting")
        row = count_or_say(name, settings, labels)
        if not settings.flops_only:
            report(f"{name}: measuring")
            row = with_timing(row, settings)
        rows.append(row)
    decoding = None
    if not settings.flops_only:
        report("decoding")
        decoding = measure_decoding(backbone, *settings.image)
    dataset = labels.dataset
    return Profile(
        settings=settings,
        labels=Labels(
            states=len(dataset.vocabulary.states),
            objects=len(dataset.vocabulary.objects),
            train_pairs=len(dataset.train_pairs),
            candidates=len(dataset.candidates("test", settings.world)),
            train_images=labels.train_images,
        ),
        environment=environment(settings.device),
        command=tuple(command),
        backbone=rows[0],
        rows=tuple(rows[1:]),
        decoding=decoding,
    )


def environment(device: str) -> dict[str, Any]:
    """Return what the numbers were measured with."""
    facts: dict[str, Any] = {**capture_environment(), "device": device, "threads": torch.get_num_threads()}
    if hasattr(os, "getloadavg"):
        facts["load"] = os.getloadavg()[0]
    if device.startswith("cuda"):
        facts |= {"gpu": torch.cuda.get_device_name(torch.device(device)), "cuda": torch.version.cuda}
    return facts
