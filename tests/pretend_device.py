"""What tests do on the pretended accelerator: training steps, whole runs, two processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import forked
import torch
from toy_runs import CPU, SMALL, make_trainer

from benchmarks.cost.pretend_device import DEVICE, Pretend
from benchmarks.running.choices import Choices, How
from benchmarks.runs.records import RunFolder
from benchmarks.studies.device_check import pretended_bench
from benchmarks.studies.made_images import made_dataset
from datasets.base import CompositionDataset
from methods.backbone.clip import Backbone
from methods.backbone.loading import build_clip
from methods.backbone.tokens import tokenizer_of
from methods.base import Batch, Method
from registry import BACKBONES, METHODS

BACKBONE = "tiny-on-device"
ON_DEVICE = replace(CPU, device=DEVICE, eval_batch=4)


def make_backbone() -> Backbone:
    """Return a random CLIP of two blocks in each tower: every operation here takes Python's time."""
    return Backbone.from_open_clip(build_clip(SMALL, "small", 0), tokenizer_of(SMALL, BACKBONE), BACKBONE, "random")


def small_dataset(images: int = 6) -> CompositionDataset:
    """Six seen pairs and two unseen ones, with made images."""
    return made_dataset("icon_states", images, pairs=6)


def known_backbone() -> str:
    """Return the name of a random tiny backbone, registered once."""
    if BACKBONE not in BACKBONES.names():
        BACKBONES.add(BACKBONE, "pretend_device:make_backbone")
    return BACKBONE


def built(name: str, dataset: CompositionDataset, **settings: object) -> Method:
    """Return a method on the CPU with random weights, always the same."""
    chosen = METHODS.get(name)
    backbone = make_backbone()
    torch.manual_seed(0)
    return chosen(backbone, dataset.vocabulary, chosen.Config(**settings))


def some_batch(dataset: CompositionDataset, device: torch.device, images: int = 4) -> Batch:
    """Return made images of training pairs on a device."""
    candidates = dataset.candidates("train")
    pairs = torch.arange(images) % len(candidates)
    labels = torch.from_numpy(candidates.pairs)[pairs]
    pixels = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    values = (labels[:, 0], labels[:, 1], pairs, pixels)
    return Batch(*(value.to(device) for value in values))


def bench(results: Path, dataset: CompositionDataset, *overrides: str, **choices: object):
    """Within, a workbench on the device that knows the data set as "made"."""
    how = How(device="cpu", workers=0, feature_cache=bool(choices.pop("feature_cache", False)))
    chosen = ("epochs=2", "batch_size=3", "augmentation=none", *overrides)
    made = pretended_bench(Choices(results=results, overrides=chosen, how=how, **{"precision": "fp32", **choices}))
    return _Knowing(made, dataset)


class _Knowing:
    def __init__(self, made, dataset: CompositionDataset) -> None:
        self.made, self.dataset = made, dataset

    def __enter__(self):
        workbench = self.made.__enter__()
        workbench.datasets["made"] = self.dataset
        return workbench

    def __exit__(self, *error: object) -> None:
        self.made.__exit__(*error)


def in_two_processes(root: Path, names: list[str]) -> None:
    """Train each method for an epoch in two processes that share every batch; AssertionError if one of them fails."""
    forked.in_two_processes(_one_of_two, root, names)


def _one_of_two(root: Path, names: list[str]) -> None:
    from benchmarks.training.distributed import start_group

    group = start_group(DEVICE)
    dataset, backbone = small_dataset(), make_backbone()
    with Pretend():
        backbone.to(DEVICE)
        for name in names:
            method = METHODS.get(name)
            own = root / name if group.leads else root / f"{name}-{group.rank}"
            made = make_trainer(
                own,
                dataset,
                backbone,
                method=method,
                config=method.Config(),
                execution=replace(ON_DEVICE, group=group),
                epochs=1,
                batch_size=5,
                augmentation="none",
            )
            made.folder = group.folder(RunFolder(root / name))
            made.method.to(DEVICE)
            group.barrier()
            made.run()
            group.barrier()
    group.close()
