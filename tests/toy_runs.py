"""Small runs for the tests of training: a random tiny backbone, CSP on the toy data set, in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.runs.records import RunFolder
from benchmarks.runs.result import Result
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.training.batches import Surroundings, untold
from benchmarks.training.execution import Execution
from benchmarks.training.frozen_features import FeatureStore
from benchmarks.training.loop import Trainer
from datasets.transforms import derived_seed
from methods.backbone.clip import Backbone
from methods.backbone.loading import build_clip
from methods.backbone.tokens import tokenizer_of
from methods.csp import CSP, CSPConfig

CONFIG = json.loads((Path(__file__).parents[1] / "methods/backbone/tiny-icons.json").read_text())
SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""Two blocks in each tower: with arrays this small, the number of operations is what takes time."""


class Killed(BaseException):
    """Stands for a process that ends without another word."""


CPU = Execution(torch.device("cpu"), eval_batch=7, pair_chunk=5)


def make_backbone(config: Mapping[str, Any] = SMALL) -> Backbone:
    return Backbone.from_open_clip(build_clip(config, "tiny", 0), tokenizer_of(config, "tiny"), "tiny", "random")


def make_trainer(
    folder, toy, backbone, *, method=CSP, config=None, report=untold, execution=CPU, store=None, **settings
):
    config = CSPConfig(dropout=0.3) if config is None else config
    settings = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "augmentation": "clip", **settings}
    spec = RunSpec(
        method=method.info.name,
        method_config=config.model_dump(mode="json"),
        training=TrainingConfig(**settings),
        dataset="toy",
        dataset_digest="toy",
        backbone="tiny",
        backbone_digest="random",
        seed=5,
    )
    record = RunFolder(folder)
    record.start(spec, provenance={}, command_line=[], environment={})
    torch.manual_seed(derived_seed("init", spec.seed))
    built = method(backbone, toy.vocabulary, config if isinstance(config, method.Config) else method.Config())
    surroundings = Surroundings(FeatureStore() if store is None else store, report)
    return Trainer(spec, record, built, toy, execution, surroundings)


def numbers(result: Result | dict) -> str:
    """Everything of a result but how long it took, as text; NaN equals NaN in it."""
    result = result.content() if isinstance(result, Result) else result
    return json.dumps({key: value for key, value in result.items() if key != "cost"}, sort_keys=True)


def without_times(epochs: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in epochs]


def whole_run(toy, results, report) -> None:
    """Do the run below a results folder from wherever it stands, as `bench.py run` does, for the kill loop."""
    folder = RunFolder(results / "run")
    if folder.status != "done":
        trainer = make_trainer(folder.path, toy, make_backbone(), report=report, batch_size=16, epochs=2)
        folder.finish(trainer.run())
    folder.tidy()
