"""Hyper-parameters by a grid, judged on validation alone; every method gets the same number of trials.

    python -m benchmarks.studies.tune csp --grid lr=1e-3,3e-3,1e-2 dropout=0,0.3 --out docs/tuning/csp.md

Each point of the grid is an ordinary run, recorded under `--results`, so that a broken search goes on where it was. The
log has every point, best first; test numbers are not shown.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.running.choices import Choices
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.numbers import Metrics
from benchmarks.runs.records import RunRecord
from benchmarks.runs.suites import RunRequest
from datasets import cache
from errors import UserError


def points(grid: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every combination of "key=a,b,c" texts as tuples of "key=value".

    >>> points(["lr=1,2", "dropout=0"])
    [('lr=1', 'dropout=0'), ('lr=2', 'dropout=0')]
    """
    axes = []
    for text in grid:
        key, _, values = text.partition("=")
        axes.append([f"{key}={value}" for value in values.split(",")])
    return list(itertools.product(*axes))


def search(
    method: str, dataset: str, backbone: str, seeds: Sequence[int], grid: Sequence[str], results: Path
) -> list[tuple[tuple[str, ...], list[RunRecord]]]:
    """Run every point with every seed and return the records, best mean validation AUC first."""
    found = []
    every = points(grid)
    shared = Workbench(Choices(results=results))
    for number, point in enumerate(every, start=1):
        workbench = replace(shared, choices=replace(shared.choices, overrides=point))
        requests = [RunRequest(method, dataset, backbone, "closed", "clean", seed) for seed in seeds]
        records = [execute(run, workbench, command_line=sys.argv) for run in plan_runs(requests, workbench)]
        found.append((point, records))
        print(f"{number}/{len(every)} {' '.join(point)}: val AUC {mean_auc(records):.4f}", flush=True)
    return sorted(found, key=lambda item: -mean_auc(item[1]))


def mean_auc(records: Sequence[RunRecord]) -> float:
    """Return the mean validation AUC of some finished runs; a `UserError` where validation defines none."""
    found = [_validation(record) for record in records]
    if lacking := next((metrics.undefined["auc"] for metrics in found if math.isnan(metrics.auc)), ""):
        raise UserError(
            "Settings cannot be tuned on this data set.",
            f"The validation AUC is undefined: {lacking}.",
            "Give validation images of seen and of unseen pairs.",
        )
    return statistics.fmean(metrics.auc for metrics in found)


def _validation(record: RunRecord) -> Metrics:
    found = record.finished.metrics.val
    assert found is not None, "every run that is trained keeps them"
    return found


def log(
    method: str, dataset: str, seeds: Sequence[int], found: Sequence[tuple[tuple[str, ...], Sequence[RunRecord]]]
) -> str:
    """Return the search as Markdown."""
    lines = [
        f"# Tuning of {method} on {dataset}",
        "",
        f"{len(found)} points x {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}; the mean "
        "validation AUC decides (percent). Epochs: the mean of the selected ones, counted from 1.",
        "",
        "| settings | val AUC | val HM | epoch |",
        "| --- | ---: | ---: | ---: |",
    ]
    for point, records in found:
        hm = statistics.fmean(_validation(record).best_hm for record in records)
        epochs = [epoch for record in records if (epoch := record.finished.selection.epoch) is not None]
        selected = f"{statistics.fmean(epochs) + 1:.1f}" if len(epochs) == len(records) else "–"
        lines.append(f"| {' '.join(point)} | {mean_auc(records) * 100:.2f} | {hm * 100:.2f} | {selected} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search and write the log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method")
    parser.add_argument("--grid", nargs="+", required=True, metavar="KEY=A,B,C")
    parser.add_argument("--dataset", default="icon_states")
    parser.add_argument("--backbone", default="tiny-icons")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101], help="not those of the reported runs")
    parser.add_argument("--results", type=Path, default=cache.home() / "tuning")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = search(options.method, options.dataset, options.backbone, options.seeds, options.grid, options.results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(log(options.method, options.dataset, options.seeds, found))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
