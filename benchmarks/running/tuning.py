"""Settings by a grid, judged on validation alone, with the same number of trials for every method.

Each point of the grid is an ordinary run with a record of its own, so that a search that broke off goes on where it
was. Test numbers lie in the records as in any, and nothing here reads them.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.running.execute import execute
from benchmarks.running.plan import PlannedRun, plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.numbers import Metrics
from benchmarks.runs.records import RunRecord
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from datasets.base import World
from datasets.streams import stream
from errors import UserError
from registry import METHODS

Point = tuple[str, ...]
"""Settings as `--set` takes them."""


@dataclass(frozen=True)
class Search:
    """What is tuned.

    grid: texts "key=a,b,c".
    budget: at most so many points; a larger grid is drawn from. None tries all.
    seeds: of each point, not those of reported runs.
    short: whether points have the presets' short training.
    """

    method: str
    grid: Sequence[str]
    dataset: str = "icon_states"
    backbone: str = "tiny-icons"
    world: World = "closed"
    seeds: Sequence[int] = (100, 101)
    budget: int | None = None
    short: bool = False

    @property
    def points(self) -> list[Point]:
        """The points to try, in the order of the grid; those that a budget leaves follow from the names alone."""
        every = points(self.grid)
        if self.budget is None or self.budget >= len(every):
            return every
        draw = stream("tuning", self.method, self.dataset, *self.grid)
        return [every[place] for place in sorted(draw.permutation(len(every))[: self.budget].tolist())]


@dataclass(frozen=True)
class Trial:
    """A point with its finished runs, one for each seed."""

    point: Point
    records: Sequence[RunRecord]

    @property
    def auc(self) -> float:
        """The mean validation AUC; a `UserError` where validation defines none."""
        return mean_auc(self.records)


def points(grid: Sequence[str]) -> list[Point]:
    """Return every combination of "key=a,b,c" texts as tuples of "key=value"; lists in brackets are one value.

    >>> points(["lr=1,2", "layers=[0, 1]"])
    [('lr=1', 'layers=[0, 1]'), ('lr=2', 'layers=[0, 1]')]
    """
    axes: dict[str, list[str]] = {}
    for text in grid:
        key, equals, values = text.partition("=")
        found = [value.strip() for value in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)]
        if not equals or not key.strip() or not all(found) or not found or values.count(",") >= len(values):
            raise UserError(
                f"The option '--grid {text}' is not understood.",
                "It needs a setting and its values.",
                "Write --grid lr=1e-3,3e-3 dropout=0,0.3.",
            )
        if key in axes:
            raise UserError(f"The setting '{key}' is twice in the grid.", "It has values already.", "Name it once.")
        axes[key] = [f"{key.strip()}={value}" for value in dict.fromkeys(found)]
    return list(itertools.product(*axes.values()))


def run_search(
    search: Search,
    workbench: Workbench,
    command_line: Sequence[str] = (),
    report: Callable[[int, int, Trial], None] = lambda number, count, trial: None,
) -> list[Trial]:
    """Do every run of a search that is not there yet and return the trials, the best mean validation AUC first.

    All settings are checked before anything runs. report: told (number of the point, how many there are, trial).
    """
    check_settings(search)
    planned = [(point, _planned(search, point, workbench)) for point in search.points]
    trials = []
    for number, (point, runs) in enumerate(planned, start=1):
        trial = Trial(point, [execute(run, workbench, command_line=command_line) for run in runs])
        report(number, len(planned), trial)
        trials.append(trial)
    return sorted(trials, key=lambda trial: -trial.auc)


def check_settings(search: Search) -> None:
    """Refuse a grid of settings of training for a method that is not trained, as a `UserError`."""
    if METHODS.get(search.method).info.trains:
        return
    for key in dict.fromkeys(setting.partition("=")[0] for point in search.points for setting in point):
        if key in TrainingConfig.model_fields:
            raise UserError(
                f"The setting '{key}' of {search.method} cannot be tuned.",
                "The method is not trained, so every value gives the same scores.",
                "Tune a method that is trained, see 'python bench.py list methods'.",
            )


def _planned(search: Search, point: Point, workbench: Workbench) -> list[PlannedRun]:
    overrides = (*workbench.choices.overrides, *point)
    bench = replace(workbench, choices=replace(workbench.choices, overrides=overrides))
    requests = [
        RunRequest(search.method, search.dataset, search.backbone, search.world, "clean", seed, short=search.short)
        for seed in search.seeds
    ]
    return plan_runs(requests, bench)


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


def log(search: Search, trials: Sequence[Trial]) -> str:
    """Return a search as Markdown, in the order of the trials."""
    seeds = search.seeds
    every = len(points(search.grid))
    drawn = f", drawn from {every} of the grid" if every > len(trials) else ""
    lines = [
        f"# Tuning of {search.method} on {search.dataset}",
        "",
        f"{len(trials)} points{drawn} x {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}; the mean "
        "validation AUC decides (percent). Epochs: the mean of the selected ones, counted from 1.",
        "",
        "| settings | val AUC | val HM | epoch |",
        "| --- | ---: | ---: | ---: |",
    ]
    for trial in trials:
        hm = statistics.fmean(_validation(record).best_hm for record in trial.records)
        epochs = [epoch for record in trial.records if (epoch := record.finished.selection.epoch) is not None]
        selected = f"{statistics.fmean(epochs) + 1:.1f}" if len(epochs) == len(trial.records) else "–"
        lines.append(f"| {' '.join(trial.point)} | {trial.auc * 100:.2f} | {hm * 100:.2f} | {selected} |")
    return "\n".join(lines) + "\n"
