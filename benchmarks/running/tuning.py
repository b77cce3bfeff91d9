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
from contextlib import suppress
from dataclasses import dataclass, replace

from benchmarks.running.choices import Choices
from benchmarks.running.execute import execute
from benchmarks.running.plan import PlannedRun, plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.locks import Held
from benchmarks.runs.numbers import Metrics
from benchmarks.runs.records import RunRecord
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from datasets.base import World
from datasets.streams import stream
from errors import UserError, counted, did_you_mean, some
from registry import METHODS

Point = tuple[str, ...]
"""Settings of the tuned method, "key=value", without its name."""


@dataclass(frozen=True)
class Search:
    """What is tuned.

    grid: texts "key=a,b,c" or "method.key=a,b,c".
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
        every = points(self.grid, self.method)
        if self.budget is None or self.budget >= len(every):
            return every
        names = [f"{key}={values}" for key, values in axes(self.grid, self.method).items()]
        draw = stream("tuning", self.method, self.dataset, *names)
        return [every[place] for place in sorted(draw.permutation(len(every))[: self.budget].tolist())]


@dataclass(frozen=True)
class PlannedTrial:
    """A point with its runs, one for each seed. error: why its training failed before and would again, else ""."""

    point: Point
    runs: Sequence[PlannedRun]
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """A point with its finished runs, one for each seed. error: why there is a run less, "" where there is none."""

    point: Point
    records: Sequence[RunRecord]
    error: str = ""

    @property
    def auc(self) -> float:
        """The mean validation AUC, -infinity of a failed point; a `UserError` where validation defines none."""
        return -math.inf if self.error else mean_auc(self.records)


def axes(grid: Sequence[str], method: str) -> dict[str, str]:
    """Return the text of the values of each setting of a method in "key=a,b,c" texts, by the setting's bare name.

    >>> axes(["csp.lr = 1,2", "layers=[0, 1]"], "csp")
    {'lr': '1,2', 'layers': '[0, 1]'}
    """
    found: dict[str, str] = {}
    for text in grid:
        name, equals, values = text.partition("=")
        owner, dot, key = (part.strip() for part in name.rpartition("."))
        if not equals or not key or not _values(values):
            raise UserError(
                f"The option '--grid {text}' is not understood.",
                "It needs a setting and its values.",
                "Write --grid lr=1e-3,3e-3 dropout=0,0.3.",
            )
        if dot and owner != method:
            raise UserError(
                f"The setting '{owner}.{key}' in the grid is none of {method}.",
                f"Only {method} is tuned.",
                did_you_mean(owner, [method]) or f"Write --grid {key}=..., or tune the other method.",
            )
        if key in found:
            raise UserError(f"The setting '{key}' is twice in the grid.", "It has values already.", "Name it once.")
        found[key] = values.strip()
    return found


def points(grid: Sequence[str], method: str) -> list[Point]:
    """Return every combination of "key=a,b,c" texts as tuples of "key=value"; lists in brackets are one value.

    >>> points(["csp.lr=1,2", "layers=[0, 1]"], "csp")
    [('lr=1', 'layers=[0, 1]'), ('lr=2', 'layers=[0, 1]')]
    """
    settings = axes(grid, method).items()
    return list(itertools.product(*([f"{key}={value}" for value in _values(values)] for key, values in settings)))


VALUE = r"(?:\[[^\[\]]*\]|[^,\[\]])+"
"""A value of a setting: text without commas, but for those of a list in brackets."""


def _values(text: str) -> list[str]:
    """Return the different values of a text "a,b,c", none where one is blank or a bracket has no other end."""
    if not re.fullmatch(f"{VALUE}(?:,{VALUE})*", text):
        return []
    found = [value.strip() for value in re.findall(VALUE, text)]
    return list(dict.fromkeys(found)) if all(found) else []


def plan_search(search: Search, workbench: Workbench) -> list[PlannedTrial]:
    """Return the trials of a search with what is to be done; all settings are checked, and nothing runs.

    Points whose loss diverged in an earlier start are not to be trained again, which a note of the workbench says.
    """
    check_settings(search, workbench.choices)
    planned = [_planned(search, point, workbench) for point in search.points]
    _refuse_twins(planned)
    if failed := [run.spec.run_id for trial in planned for run in trial.runs if trial.error and _divergence(run)]:
        workbench.notes.append(
            f"Not trained again, because the loss diverged before: {some(failed)}. Remove a folder to try it again."
        )
    return planned


def run_search(
    planned: Sequence[PlannedTrial],
    workbench: Workbench,
    command_line: Sequence[str] = (),
    report: Callable[[int, int, Trial], None] = lambda number, count, trial: None,
) -> list[Trial]:
    """Do every run that is not there yet and return the trials, the best mean validation AUC first, failed ones last.

    A run that fails ends its own point alone. report: told (number of the point, how many there are, trial).
    """
    trials = []
    for number, one in enumerate(planned, start=1):
        trial = _tried(one, workbench, command_line)
        report(number, len(planned), trial)
        trials.append(trial)
    return sorted(trials, key=lambda trial: -trial.auc)


def require_success(trials: Sequence[Trial]) -> None:
    """Raise a `UserError` where every point failed."""
    if all(trial.error for trial in trials):
        raise UserError(
            f"No point of the grid could be trained, of {counted(len(trials), 'point')}.",
            "The table says why of each.",
            "Choose other values, such as smaller learning rates where the loss diverged.",
        )


def check_settings(search: Search, choices: Choices) -> None:
    """Refuse settings that cannot be tuned, as a `UserError`: given for all points, or of a training there is not."""
    options = {"--epochs": choices.epochs, "--views": choices.views}
    given = {option.removeprefix("--"): option for option, value in options.items() if value is not None}
    given |= {text.partition("=")[0].rpartition(".")[2].strip(): "--set" for text in choices.overrides}
    trains = METHODS.get(search.method).info.trains
    for key in axes(search.grid, search.method):
        if key in given:
            raise UserError(
                f"The setting '{key}' cannot be tuned.",
                f"The option {given[key]} gives it to all points.",
                "Leave one of the two out.",
            )
        if key in TrainingConfig.model_fields and not trains:
            raise UserError(
                f"The setting '{key}' of {search.method} cannot be tuned.",
                "The method is not trained, so every value gives the same scores.",
                "Tune a method that is trained, see 'python bench.py list methods'.",
            )


def _refuse_twins(planned: Sequence[PlannedTrial]) -> None:
    """Refuse points that are the same runs, as a `UserError`: values written in two ways, or that change nothing."""
    first: dict[tuple[str, ...], Point] = {}
    for trial in planned:
        other = first.setdefault(tuple(run.spec.run_id for run in trial.runs), trial.point)
        if other != trial.point:
            raise UserError(
                f"The points '{' '.join(other)}' and '{' '.join(trial.point)}' of the grid are the same runs.",
                "Every method is to be tried at as many points as the others.",
                "Give different values.",
            )


def _planned(search: Search, point: Point, workbench: Workbench) -> PlannedTrial:
    own = (f"{search.method}.{setting}" for setting in point)
    bench = replace(workbench, choices=replace(workbench.choices, overrides=(*workbench.choices.overrides, *own)))
    requests = [
        RunRequest(search.method, search.dataset, search.backbone, search.world, "clean", seed, short=search.short)
        for seed in search.seeds
    ]
    runs = plan_runs(requests, bench)
    return PlannedTrial(point, runs, next(filter(None, map(_divergence, runs)), ""))


def _divergence(run: PlannedRun) -> str:
    """Return how the loss diverged when the run was last started, "" where it did not: it would do so again."""
    from benchmarks.training.steps import Diverged

    with suppress(UserError):  # a record that cannot be read is told when the run is done
        error = run.folder.read().error if run.status == "failed" else None
        if error is not None and error.get("type") == Diverged.__name__:
            return str(error["message"])
    return ""


def _tried(planned: PlannedTrial, workbench: Workbench, command_line: Sequence[str]) -> Trial:
    """Do the runs of a point up to the first that fails."""
    records: list[RunRecord] = []
    if planned.error:
        return Trial(planned.point, records, planned.error)
    for run in planned.runs:
        try:
            records.append(execute(run, workbench, command_line=command_line))
        except Held:
            raise
        except Exception as error:
            if workbench.group.size > 1:
                raise  # the processes have parted; the same command goes on
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            return Trial(planned.point, records, " ".join(said.split()))
    return Trial(planned.point, records)


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
    """Return a search as Markdown, in the order of the trials, and why points failed."""
    seeds = search.seeds
    every = len(points(search.grid, search.method))
    drawn = f", drawn from {every} of the grid" if every > len(trials) else ""
    lines = [
        f"# Tuning of {search.method} on {search.dataset}",
        "",
        f"{counted(len(trials), 'point')}{drawn} x {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}; the mean validation AUC decides (percent). Epochs: the mean of the "
        "selected ones, counted from 1.",
        "",
        "| settings | val AUC | val HM | epoch |",
        "| --- | ---: | ---: | ---: |",
        *map(_log_line, trials),
    ]
    if failed := [trial for trial in trials if trial.error]:
        lines += ["", "Failed:", "", *(f"- {' '.join(trial.point)}: {trial.error}" for trial in failed)]
    return "\n".join(lines) + "\n"


def _log_line(trial: Trial) -> str:
    if trial.error:
        return f"| {' '.join(trial.point)} | failed | – | – |"
    hm = statistics.fmean(_validation(record).best_hm for record in trial.records)
    epochs = [epoch for record in trial.records if (epoch := record.finished.selection.epoch) is not None]
    selected = f"{statistics.fmean(epochs) + 1:.1f}" if len(epochs) == len(trial.records) else "–"
    return f"| {' '.join(trial.point)} | {trial.auc * 100:.2f} | {hm * 100:.2f} | {selected} |"
