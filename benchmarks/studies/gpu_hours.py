"""Hours and memory of a run on a large GPU, estimated from counted FLOPs: the table of docs/gpu_guide.md.

    python -m benchmarks.studies.gpu_hours                      # about twenty minutes: every method is followed in full
    python -m benchmarks.studies.gpu_hours --update docs/gpu_guide.md

Hours are FLOPs divided by FLOP/s. FLOPs: in each epoch those of training all images and of evaluating the validation
images, with the candidates' text, and at the end those of evaluating both splits. A training step is counted with the
preset's micro-batch, for the text of all training pairs is computed once for each. FLOP/s are a share of a GPU's peak,
which is assumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cost.counting import count, subject
from benchmarks.cost.labels import label_space
from benchmarks.cost.record import Row, Settings
from benchmarks.runs import files
from benchmarks.runs.resolution import resolve
from benchmarks.studies.program import page_with, program
from datasets.layout import LayoutReader
from datasets.published import Published
from registry import DATASETS, METHODS

DATA = ("mit_states", "ut_zappos", "cgqa")
PEAK = {"bf16": 312e12, "fp32": 19.5e12}
"""FLOP/s of an A100 as its maker states them: dense matrix products in bf16, and fp32 without TF32."""
SHARE = {"bf16": 0.35, "fp32": 0.6}
"""What of the peak is assumed to be reached: an assumption, not a measurement."""
START, END = "<!-- estimated by benchmarks.studies.gpu_hours -->", "<!-- end -->"


@dataclass(frozen=True)
class Cost:
    """A run. flops: of all of it. gigabytes: at its fullest in training, by precision."""

    method: str
    epochs: int
    batch: int
    micro_batch: int
    flops: float
    gigabytes: dict[str, float]

    def hours(self, precision: str) -> float:
        """Return the estimated hours at a precision."""
        return self.flops / (PEAK[precision] * SHARE[precision]) / 3600


def run_flops(row: Row, epochs: int, images: Sequence[int]) -> float:
    """Return the FLOPs of a run, from counts at its micro-batch. images: of training, validation and test.

    The candidates' text is prepared for every validation and the test; validation has the test's count of it.
    """
    train, val, test = images
    once = row.flops
    assert once is not None  # one that could not be counted has raised before
    each = train * once.train_image + val * once.eval_image + once.prepare
    return epochs * each + (val + test) * once.eval_image + 2 * once.prepare


def cost(method: str, name: str, backbone: str) -> Cost:
    """Estimate a run with the settings of its preset."""
    reader = DATASETS.get(name)
    assert isinstance(reader, LayoutReader)  # `DATA` are
    about: Published = reader.published
    training = resolve(method, METHODS.get(method).Config, name).training
    micro = training.micro_batch or training.batch_size
    settings = Settings(methods=(method,), backbone=backbone, labels=name, batch=micro)
    labels = label_space(name)
    row = count(method, settings, labels)
    memory = {
        precision: subject(method, settings.model_copy(update={"precision": precision}), labels).estimate.training
        for precision in PEAK
    }
    return Cost(
        method,
        row.epochs,
        training.batch_size,
        micro,
        run_flops(row, row.epochs, (about.train.images, about.val.images, about.test.images)),
        {precision: size / 1e9 for precision, size in memory.items()},
    )


def table(methods: Sequence[str], backbone: str) -> str:
    """Return the table as Markdown."""
    heads = ("data set", "method", "epochs", "batch", "micro-batch", "PFLOPs", "hours bf16", "fp32", "GB bf16", "fp32")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    for name in DATA:
        for method in methods:
            one = cost(method, name, backbone)
            cells = [name, method, str(one.epochs), str(one.batch), str(one.micro_batch), f"{one.flops / 1e15:,.0f}"]
            cells += [f"{one.hours(precision):.1f}" for precision in PEAK]
            cells += [f"{one.gigabytes[precision]:.0f}" for precision in PEAK]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


@program
def main() -> None:
    """Print the table, and put it into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for name in METHODS.names() if METHODS.get(name).info.trains]
    parser.add_argument("--methods", nargs="+", default=every)
    parser.add_argument("--backbone", default="ViT-L-14-quickgelu")
    parser.add_argument("--update", type=page_with(START, END), help="document whose table is replaced")
    arguments = parser.parse_args()
    for name in arguments.methods:
        METHODS.check(name)
    made = table(arguments.methods, arguments.backbone)
    if arguments.update is not None:
        files.put_between(arguments.update, START, END, f"\n{made}\n")


if __name__ == "__main__":
    main()
