"""Trains the runs of one variant, in the process that has its instruction sets and threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.running.choices import Choices, How
from benchmarks.running.doing import execution_of
from benchmarks.running.execute import execute
from benchmarks.running.plan import PlannedRun, plan_runs
from benchmarks.running.process import deterministic, device_facts
from benchmarks.running.workbench import Workbench
from benchmarks.runs.asked import asked_of
from benchmarks.runs.environment import capture_environment
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.rounding.variants import Repeats, Variant
from benchmarks.training.batches import Surroundings
from benchmarks.training.loop import Trainer
from datasets.base import CompositionDataset
from datasets.transforms import derived_seed
from errors import UserError
from methods.base import Method
from registry import METHODS


def train(
    repeats: Repeats,
    name: str,
    variant: Variant,
    results: Path,
    datasets: Mapping[str, CompositionDataset] | None = None,
) -> None:
    """Do the runs of a variant that are not there yet, below `results / name`.

    Frozen features are computed anew in each run, since they are a part of what is rounded.

    datasets: by name, those that are loaded already.
    """
    _check_environment(name, variant)
    choices = Choices(
        results=results / name,
        overrides=tuple(repeats.settings),
        epochs=repeats.epochs,
        threads=variant.threads,
        how=How(device="cpu", feature_cache=False),
    )
    workbench = Workbench(choices, datasets=dict(datasets or {}))
    requests = [
        RunRequest(method, repeats.dataset, "tiny-icons", "closed", "clean", seed, short=repeats.short)
        for seed in repeats.seeds
        for method in repeats.methods
    ]
    for planned in plan_runs(requests, workbench):
        command_line = ["benchmarks.studies.rounding", name]
        if variant.moved == 0:
            execute(planned, workbench, command_line=command_line)
        elif planned.action != "nothing":
            _train_moved(planned, workbench, variant.moved, command_line)
        print(f"{name}: {planned.spec.run_id}", flush=True)


def _check_environment(name: str, variant: Variant) -> None:
    for key, value in variant.environment.items():
        if os.environ.get(key) != value:
            raise UserError(
                f"The variant '{name}' cannot be trained in this process.",
                f"It needs {key}={value} from before torch is imported.",
                "Use 'python -m benchmarks.studies.rounding run', which starts processes that have it.",
            )


def _train_moved(planned: PlannedRun, workbench: Workbench, place: int, command_line: list[str]) -> None:
    """Train a run one of whose initial numbers is moved; the record says which."""
    spec, folder = planned.spec, planned.folder
    deterministic()
    torch.manual_seed(derived_seed("init", spec.seed))
    method_class = METHODS.get(spec.method)
    backbone = workbench.backbone(planned.backbone).to(workbench.device)
    dataset = workbench.dataset(planned.dataset)
    config = method_class.Config.model_validate(spec.method_config)
    method = method_class(backbone, dataset.vocabulary, config).to(workbench.device)
    moved = move(method, place)
    environment: dict[str, Any] = {**capture_environment(), **device_facts(workbench.device), "moved": moved}
    folder.start(
        spec,
        provenance=planned.provenance,
        command_line=command_line,
        environment=environment,
        asked=asked_of(planned, None, ()),
    )
    around = Surroundings(workbench.features)
    trainer = Trainer(spec, folder, method, dataset, execution_of(planned, workbench), around)
    folder.finish(trainer.run())
    folder.tidy()


@torch.no_grad()
def move(method: Method, place: int) -> str:
    """Move one number of a trained tensor by one unit in the last place, away from 0; return which, in words.

    The first trained tensor by name with numbers other than 0 is taken, and in it the element of rank `place` (from 1)
    by size, so that what is added is no denormal number.
    """
    for name, tensor in sorted(method.trained().items()):
        flat = tensor.detach().view(-1)
        if flat.is_floating_point() and len(flat) >= place and flat.abs().max() > 0:
            index = int(flat.abs().sort(descending=True, stable=True).indices[place - 1])
            before = flat[index].clone()
            flat[index] = torch.nextafter(before, before.sign() * torch.inf)
            return f"{name}[{index}] from {before.item()!r} to {flat[index].item()!r}"
    raise UserError(
        f"Nothing of {method.info.name} can be moved.",
        f"No trained tensor has {place} numbers other than 0.",
        "Leave the method out.",
    )
