"""Does the suite run on this GPU, how fast, and is it right? One command, no network, under ten minutes.

    python -m benchmarks.studies.gpu_check                                  # on the first cuda device
    python -m benchmarks.studies.gpu_check --update docs/gpu_guide.md       # and put the tables there
    python -m benchmarks.studies.gpu_check --device cpu --backbone tiny-icons --labels icon_states --pairs 12 --images 4

Weights are random and images made; label spaces are real and ship with the suite. Measured are milliseconds of a
training step, images per second in training and evaluation, and the most memory beside its estimate, for every method,
label space and precision. Checked are: losses, gradients and scores against those of the processor in fp32; two runs
against each other, bit for bit; a run that was killed and went on against one that was not; a compiled step against one
that is not. What does not fit into `--seconds` is left out and said.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cost.counting import backbone_name, subject
from benchmarks.cost.labels import LabelSpace, label_space
from benchmarks.cost.record import Settings
from benchmarks.cost.timing import measure
from benchmarks.running.choices import choose_device
from benchmarks.running.process import deterministic, device_facts
from benchmarks.runs import files
from benchmarks.runs.environment import cpu_name
from benchmarks.runs.spec import Precision
from benchmarks.studies import gpu_equality
from benchmarks.studies.gpu_equality import Problem
from benchmarks.studies.made_images import made_dataset
from benchmarks.studies.program import page_with, program
from benchmarks.training.memory import release
from errors import UserError
from registry import METHODS

START, END = "<!-- measured by benchmarks.studies.gpu_check -->", "<!-- end -->"
FEW_PAIRS = 64
"""Training pairs of the checks, which the processor goes through as well."""


@dataclass
class Found:
    """What came out. rows: of measurements. checks: name, whether it is right, what was seen. left_out: why what."""

    device: str
    backbone: str
    images: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether every check is."""
        return all(right for _, right, _ in self.checks)

    def markdown(self) -> str:
        """Return the tables as a document has them."""
        heads = ("data set", "method", "precision", "ms/step", "img/s", "eval img/s", "GB", "GB est.")
        lines = [
            f"{self.device}, {self.backbone}, {self.images} images in a batch.",
            "",
            f"| {' | '.join(heads)} |",
            f"| --- | --- | --- |{' ---: |' * (len(heads) - 3)}",
            *(f"| {' | '.join(_cells(row))} |" for row in self.rows),
            "",
            "| check | right | seen |",
            "| --- | --- | --- |",
            *(f"| {name} | {'yes' if right else '**no**'} | {seen} |" for name, right, seen in self.checks),
        ]
        return "\n".join([*lines, *(["", f"Left out: {'; '.join(self.left_out)}."] if self.left_out else [])])


def _cells(row: dict[str, Any]) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else f"{value:{form}}"

    numbers = (("ms", ",.1f"), ("rate", ",.1f"), ("eval_rate", ",.1f"), ("gigabytes", ".2f"), ("estimate", ".2f"))
    return [row["labels"], row["method"], row["precision"], *(shown(row[name], form) for name, form in numbers)]


def labels_of(name: str, pairs: int | None, images: int) -> LabelSpace:
    """Return a label space, or the first pairs of it."""
    if pairs is None:
        return label_space(name)
    return LabelSpace(name, made_dataset(name, images, pairs), images)


def measured(name: str, labels: LabelSpace, settings: Settings) -> dict[str, Any]:
    """Return a row of measurements."""
    timing = measure(name, settings, labels)
    step, images = timing.step, settings.batch
    bytes_used = timing.memory_evaluation if step is None else timing.memory_training
    foreseen = subject(name, settings, labels).estimate
    release()
    return {
        "labels": labels.name,
        "method": name,
        "precision": settings.precision,
        "ms": None if step is None else 1e3 * step.median,
        "rate": None if step is None else images / step.median,
        "eval_rate": images / timing.evaluation.median,
        "gigabytes": None if bytes_used is None else bytes_used / 1e9,
        "estimate": (foreseen.evaluation if step is None else foreseen.training) / 1e9,
    }


def check(options: argparse.Namespace, say: Callable[[str], None]) -> Found:
    """Measure and check what was asked for, as long as there is time."""
    device = choose_device(options.device)
    end = time.monotonic() + options.seconds
    deterministic()
    facts = device_facts(device)
    found = Found(str(facts.get("gpu", cpu_name())), options.backbone, options.images)

    def attempt(what: str, work: Callable[[], None]) -> None:
        if time.monotonic() > end:
            found.left_out.append(f"{what} (no time)")
            return
        say(what)
        try:
            work()
        except (RuntimeError, UserError) as error:  # such as memory that runs out
            found.left_out.append(f"{what} ({' '.join(str(error).split())[:160]})")
        release()

    few = min(FEW_PAIRS, options.pairs or FEW_PAIRS)
    dataset = made_dataset(options.labels[0], options.images, few)
    problem = Problem(dataset, backbone_name(options.backbone), device, min(4, options.images))

    def equal(name: str) -> None:
        found.checks.append((f"{name}: equal to the processor", *gpu_equality.equal(problem, name)))

    def same(title: str, work: Callable[[Problem, str, Path], tuple[bool, str]], name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found.checks.append((f"{name}: {title}", *work(problem, name, Path(folder))))

    def compiled(name: str) -> None:
        found.checks.append((f"{name}: --compile", *gpu_equality.compiled(problem, name)))

    def timed(name: str, space: LabelSpace, settings: Settings) -> None:
        found.rows.append(measured(name, space, settings))

    for name in options.methods:
        attempt(f"{name}: equality with the processor", partial(equal, name))
    trained = [name for name in options.methods if METHODS.get(name).info.trains]
    for name in trained[-1:]:
        attempt(f"{name}: two runs", partial(same, "two runs are the same", gpu_equality.repeats, name))
        attempt(f"{name}: a killed run", partial(same, "goes on after a kill", gpu_equality.resumes, name))
        if options.compile:
            attempt(f"{name}: --compile", partial(compiled, name))
    for labels in options.labels:
        space = labels_of(labels, options.pairs, options.images)
        for precision in options.precisions:
            for name in options.methods:
                settings = Settings(
                    methods=(name,),
                    backbone=options.backbone,
                    labels=labels,
                    batch=options.images,
                    steps=options.steps,
                    device=str(device),
                    precision=precision,
                )
                attempt(f"{labels} {name} {precision}", partial(timed, name, space, settings))
    return found


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """Check, print the tables, and end with 1 where a check is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="ViT-L-14-quickgelu/random")
    parser.add_argument("--labels", nargs="+", default=["mit_states", "cgqa"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=METHODS.names(), metavar="NAME")
    parser.add_argument("--precisions", nargs="+", default=list(precisions), choices=precisions)
    parser.add_argument("--images", type=int, default=16, help="in a batch")
    parser.add_argument("--pairs", type=int, help="only so many training pairs of each label space")
    parser.add_argument("--steps", type=int, default=3, help="timed ones, after one that is not")
    parser.add_argument("--seconds", type=float, default=540, help="begin nothing new after so many")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--json", type=Path, help="also write what was found there")
    parser.add_argument("--update", type=page_with(START, END), help="document whose tables are replaced")
    options = parser.parse_args(arguments)
    found = check(options, lambda what: print(what, file=sys.stderr, flush=True))
    print(found.markdown())
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": found.rows, "checks": found.checks, "left_out": found.left_out}))
    if options.update is not None:
        files.put_between(options.update, START, END, f"\n{found.markdown()}\n")
    if not found.right:
        parser.exit(1)


if __name__ == "__main__":
    main()
