"""What the feature cache saves: CSP and DFSP (text into image) on icon_states with and without it, in one process.

    python -m benchmarks.studies.feature_cache_gain
    python -m benchmarks.studies.feature_cache_gain --update docs/feature_cache.md     # puts the table there

Without the cache every epoch runs the image tower on every training and validation image; with it an epoch reads
features that were computed before, once, which is timed by itself. Both train with the settings of a plain run and the
same random streams, so their trained tensors and scores are compared. The user's own feature cache is left alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.running.choices import Choices, How
from benchmarks.running.plan import PlannedRun, plan_runs
from benchmarks.running.process import deterministic
from benchmarks.running.workbench import Workbench
from benchmarks.runs import files
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.program import page_with, program
from benchmarks.training.batches import Surroundings
from benchmarks.training.execution import Execution
from benchmarks.training.frozen_features import FeatureStore
from benchmarks.training.loop import Trainer
from datasets.base import CompositionDataset
from datasets.transforms import derived_seed
from registry import METHODS

BEGIN, END = "<!-- measured by benchmarks.studies.feature_cache_gain -->", "<!-- end -->"


@dataclass(frozen=True)
class Training:
    """One training. filling: seconds to compute what the cache holds. epochs: seconds of training and validation of
    each. trained: the tensors after the last epoch. auc: of the test split."""

    filling: float
    epochs: Sequence[float]
    trained: Mapping[str, Tensor]
    auc: float

    @property
    def epoch(self) -> float:
        """Median of the epochs' seconds."""
        return statistics.median(self.epochs)


def train(planned: PlannedRun, workbench: Workbench, cached: bool) -> Training:
    """Train and evaluate a planned run in its folder with or without the cache."""
    spec, folder = planned.spec, planned.folder
    folder.start(spec, provenance={}, command_line=[], environment={})
    method_class = METHODS.get(spec.method)
    backbone = workbench.backbone(planned.backbone).to(workbench.device)
    torch.manual_seed(derived_seed("init", spec.seed))
    dataset = workbench.dataset(spec.dataset)
    method = method_class(backbone, dataset.vocabulary, method_class.Config.model_validate(spec.method_config))
    execution = Execution(workbench.device, spec.precision, workers=workbench.choices.how.workers or 0)
    store = FeatureStore(enabled=cached)
    trainer = Trainer(spec, folder, method.to(workbench.device), dataset, execution, Surroundings(store))
    start = time.perf_counter()
    for batches in trainer.batches.values() if cached else ():
        next(batches.ordered())
    filling = time.perf_counter() - start
    result = trainer.run()
    seconds = [record["train_seconds"] + record["val_seconds"] for record in folder.epochs()]
    trained = {name: value.detach().cpu().clone() for name, value in method.trained().items()}
    return Training(filling, seconds, trained, result.metrics.test.auc)


def compare(method: str, dataset: CompositionDataset, options: argparse.Namespace, folder: Path) -> list[Training]:
    """Train `method` with the cache and without."""
    found = []
    for cached in (True, False):
        choices = Choices(
            results=folder / f"{method}-{cached}",
            epochs=options.epochs,
            overrides=("selection=last", "augmentation=none"),  # what is compared are the tensors after the last epoch
            how=How(device=options.device, workers=options.workers),
        )
        workbench = Workbench(choices, datasets={dataset.name: dataset})
        request = RunRequest(method, dataset.name, options.backbone, "closed", "clean", 0)
        found.append(train(plan_runs([request], workbench)[0], workbench, cached))
    return found


def row(title: str, cached: Training, without: Training) -> str:
    """Return a line of the table."""
    apart = max(float((without.trained[name] - value).abs().max()) for name, value in cached.trained.items())
    size = max(float(value.abs().max()) for value in cached.trained.values())
    cells = (
        *(title, f"{without.epoch:.1f}", f"{cached.epoch:.1f}", f"{without.epoch / cached.epoch:.1f}"),
        *(f"{cached.filling:.1f}", f"{apart:.2g} of {size:.2g}", f"{abs(without.auc - cached.auc):.2g}"),
    )
    return f"| {' | '.join(cells)} |"


@program
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["csp", "dfsp"])
    parser.add_argument("--backbone", default="tiny-icons")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode images")
    parser.add_argument(
        "--update", type=page_with(BEGIN, END), metavar="PAGE", help="put the table into this page, too"
    )
    options = parser.parse_args()
    deterministic()
    # Rendered into the user's cache, once.
    dataset = Workbench(Choices(how=How(device=options.device))).dataset("icon_states")
    table = [
        "| method | s per epoch without | with | ratio | s to fill, once | trained tensors apart | test AUC apart |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    titles = {entry.name: entry.title for entry in METHODS.entries()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CZSL_HOME"] = folder  # a feature cache of this measurement's own
        for method in options.methods:
            table.append(row(titles[method], *compare(method, dataset, options, Path(folder))))
            print(table[-1], flush=True)
    print("\n".join(table))
    if options.update is not None:
        files.put_between(options.update, BEGIN, END, "\n".join(["", *table, ""]))


if __name__ == "__main__":
    main()
