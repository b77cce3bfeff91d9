"""Does everything run on an accelerator, and what does a training step ask of one? On a pretended device.

    python -m benchmarks.studies.device_check                              # counts of a training step, minutes
    python -m benchmarks.studies.device_check --update docs/profile.md     # and put the table there
    python -m benchmarks.studies.device_check --places msci                # which lines wait, copy and compute most
    python -m benchmarks.studies.device_check --grid                       # whole runs, every method on every axis

No accelerator is needed: `benchmarks/cost/pretend_device.py` stands for one, refuses tensors of two devices and counts.
Counts are of a training step at the size of tiny-icons: its backbone, the 350 training pairs of icon_states, the
settings of the presets, the second step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from benchmarks.cost.counting import build
from benchmarks.cost.labels import LabelSpace, label_space
from benchmarks.cost.pretend_device import DEVICE, Counted, MixedDevices, Pretend
from benchmarks.cost.timing import random_batch
from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs import files
from benchmarks.runs.spec import Precision
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.gpu_equality import Killed, kill_in_second_epoch
from benchmarks.studies.made_images import made_dataset
from benchmarks.studies.program import page_with, program
from benchmarks.training.execution import Execution, Report
from benchmarks.training.optimizers import make_optimizer
from benchmarks.training.steps import Stepper
from datasets.base import World
from errors import UserError
from methods.backbone import load_backbone
from registry import METHODS

LABELS = "icon_states"
IMAGES = 8
START, END = "<!-- counted by benchmarks.studies.device_check -->", "<!-- end -->"
AXES = ("fp32", "bf16", "open", "frozen", "killed")
"""Of the grid: precision, an open world with a searched threshold, frozen features kept on disk, a run that goes on."""


def step_counts(
    name: str, labels: LabelSpace, images: int = IMAGES, precision: Precision = "fp32", places: bool = False
) -> Counted:
    """Return what the second training step of a method asks of the device; `MixedDevices` where it is refused."""
    torch.manual_seed(0)
    backbone = load_backbone("tiny-icons")
    method, training = build(name, backbone, labels)
    training = training.model_copy(update={"batch_size": images, "micro_batch": None})
    candidates = labels.dataset.candidates("train")
    with Pretend(places) as counted:
        method.to(DEVICE).train()
        batch = random_batch(backbone, candidates, images, 0)
        optimizer, _ = make_optimizer(method, training)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=False)
        execution = Execution(DEVICE, precision)
        stepper = Stepper(method, training, execution, candidates, optimizer, scaler, lambda message: None)
        stepper.step(batch, "the first step")
        counted.clear()
        stepper.step(batch, "the second step")
    return counted


def table(methods: Sequence[str], labels: LabelSpace, images: int = IMAGES) -> str:
    """Return the counts of the methods as Markdown."""
    heads = ("method", "synchronisations", "copies", "kernels", "views")
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name in methods:
        found = step_counts(name, labels, images)
        numbers = (found.synchronisations, found.copies, found.kernels, found.views)
        lines.append(f"| {name} | {' | '.join(f'{counter.total():,}' for counter in numbers)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


@contextmanager
def pretended_bench(choices: Choices) -> Iterator[Workbench]:
    """Within, the device is there, and the workbench that is yielded computes on it."""
    with Pretend(), mock.patch("benchmarks.running.workbench.choose_device", return_value=DEVICE):
        yield Workbench(choices)


def whole_run(name: str, results: Path, axis: str) -> None:
    """Do a run of a method on the device along an axis of `AXES`; whatever fails is raised."""
    if axis == "killed":
        try:
            _run(name, results, axis, kill_in_second_epoch)
        except Killed:
            pass
        else:
            raise RuntimeError("the run was not killed")
    _run(name, results, axis)


def _run(name: str, results: Path, axis: str, report: Report | None = None, images: int = 8) -> None:
    overrides = ("epochs=2", f"batch_size={images // 2}", "augmentation=none")
    how = How(device="cpu", workers=0, feature_cache=axis == "frozen")
    precision = "bf16" if axis == "bf16" else "fp32"
    with pretended_bench(Choices(results=results, overrides=overrides, precision=precision, how=how)) as workbench:
        workbench.datasets["made"] = made_dataset(LABELS, images, 6)
        world: World = "open" if axis == "open" else "closed"
        (planned,) = plan_runs([RunRequest(name, "made", "tiny-icons", world, "clean", 0)], workbench)
        execute(planned, workbench, report)


def grid(methods: Sequence[str], axes: Sequence[str] = AXES) -> bool:
    """Do whole runs of every method along every axis, print what becomes of each, return whether all went well."""
    well = True
    for name in methods:
        for axis in axes:
            if axis == "killed" and not METHODS.get(name).info.trains:
                continue
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    whole_run(name, Path(folder), axis)
                    said = "done"
                except (MixedDevices, RuntimeError, TypeError, ValueError, UserError) as error:
                    said, well = f"{type(error).__name__}: {error}", False
            print(f"{name:16s} {axis:8s} {time.process_time() - start:5.1f} s  {said}", flush=True)
    return well


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for name in METHODS.names() if METHODS.get(name).info.trains]
    parser.add_argument("--methods", nargs="+", metavar="NAME")
    parser.add_argument("--images", type=int, default=IMAGES, help="in a batch of the counted step")
    parser.add_argument("--update", type=page_with(START, END), help="document whose table is replaced")
    parser.add_argument("--places", metavar="NAME", help="print the lines of this method's step")
    parser.add_argument("--grid", action="store_true", help="whole runs instead of counts")
    parser.add_argument("--axes", nargs="+", default=AXES, choices=AXES, help="of the whole runs")
    asked = parser.parse_args(arguments)
    if asked.grid:
        if not grid(asked.methods or METHODS.names(), asked.axes):
            parser.exit(1)
        return
    labels = label_space(LABELS)
    if asked.places is not None:
        for place, count in step_counts(asked.places, labels, asked.images, places=True).places.most_common():
            print(f"{count:6d} {place}")
        return
    made = table(asked.methods or every, labels, asked.images)
    if asked.update is not None:
        files.put_between(asked.update, START, END, f"\n{made}\n")


if __name__ == "__main__":
    main()
