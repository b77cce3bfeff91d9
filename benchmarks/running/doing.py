"""Does the runs of one training: train once, judge for each, leave each its record, or why it failed or stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.running.plan import PlannedRun
from benchmarks.running.process import deterministic, device_facts, workers
from benchmarks.running.workbench import Workbench
from benchmarks.runs.asked import asked_of
from benchmarks.runs.environment import launcher_facts
from benchmarks.runs.records import RunRecord, capture_environment
from benchmarks.training import stopping
from datasets.feature_cache.folder import silent
from errors import UserError
from registry import METHODS

if TYPE_CHECKING:
    from benchmarks.runs.locks import LeftOut
    from benchmarks.training.execution import Execution, Report
    from benchmarks.training.judging import Judge
    from benchmarks.training.loop import Trainer

Outcome = RunRecord | Exception
"""What becomes of a run: its record, or why there is none; `locks.LeftOut` where it is not this process's to do."""


def unheard(planned: PlannedRun, outcome: Outcome) -> None:
    """Tell nobody."""


def none_refused(planned: PlannedRun) -> LeftOut | None:
    """Refuse nothing."""
    return None


@dataclass(frozen=True)
class Start:
    """What a start of runs has around it.

    report: told how far it is.
    command_line: what a record says that the run was started as.
    notify: told what else a user should know.
    settled: told what becomes of each run, as soon as that is known.
    refused: asked why a run is not to be done after all, once its lock is held.
    """

    workbench: Workbench
    report: Report | None = None
    command_line: Sequence[str] = ()
    notify: Callable[[str], None] = silent
    settled: Callable[[PlannedRun, Outcome], None] = unheard
    refused: Callable[[PlannedRun], LeftOut | None] = none_refused


def execution_of(planned: PlannedRun, workbench: Workbench) -> Execution:
    """Return where and how a run is computed here."""
    from benchmarks.training.execution import Execution

    how, device = workbench.choices.how, workbench.device
    decoding = workers(how.workers, device)
    return Execution(device, planned.spec.precision, workers=decoding, compiled=how.compiled, group=workbench.group)


class Doing:
    """Runs of one training, from their saved state to their records.

    left: the runs that nothing has become of yet.
    begun: those of them whose record has been begun.
    """

    def __init__(self, runs: Sequence[PlannedRun], start: Start) -> None:
        self.runs, self.start, self.group = runs, start, start.workbench.group
        self.left, self.begun = list(runs), set[str]()
        self.trainer: Trainer | None = None
        self.judges: list[tuple[PlannedRun, Judge]] = []

    def do(self) -> None:
        """Do them. `Stopped` is raised again; of everything else `Start.settled` is told."""
        try:
            try:
                self._begin_all()
                if self.trainer is not None:
                    with stopping.deferred():
                        self.trainer.train()
                        self._conclude()
            except Exception as error:
                self._end(error)  # which a signal may stop as well
        except stopping.Stopped as stop:
            with stopping.deferred():  # to save the state may have taken longer than signals are ignored
                self._interrupt(stop)
            raise

    def _begin_all(self) -> None:
        deterministic()
        environment = self._environment()
        for planned in self.runs:
            try:
                self._begin(planned, environment)
            except Exception as error:
                self._set_aside(planned, error)

    def _environment(self) -> dict[str, Any]:
        workbench = self.start.workbench
        how, backbone = workbench.choices.how, self.runs[0].backbone
        environment = {**capture_environment(), **device_facts(workbench.device), **self.group.facts}
        environment |= {"compile": how.compiled, "feature_cache": how.feature_cache, **launcher_facts()}
        if backbone in workbench.backbone_facts:
            environment["backbone"] = workbench.backbone_facts[backbone]
        return environment

    def _begin(self, planned: PlannedRun, environment: dict[str, Any]) -> None:
        """Begin a run's record, and build what judges it; the first one trains."""
        import torch

        from benchmarks.running.tracking import TrackedTrainer
        from benchmarks.runs.checkpoints import write_best
        from benchmarks.training.batches import Surroundings, untold
        from benchmarks.training.judging import Judge
        from benchmarks.training.loop import Trainer
        from datasets.transforms import derived_seed

        spec, start, workbench = planned.spec, self.start, self.start.workbench
        folder = self.group.folder(planned.folder)
        others = [item.spec.run_id for item in self.runs if item is not planned]
        with stopping.deferred():  # of a record that is begun, a stop is recorded
            folder.start(
                spec,
                provenance=planned.provenance,
                command_line=list(start.command_line),
                environment=environment | ({"trained_with": others} if others else {}),
                asked=asked_of(planned, workbench.choices.how.allow_missing, workbench.choices.plugins),
            )
            self.begun.add(spec.run_id)
        stopping.check()
        self.group.barrier()  # until the folder is what this start makes of it
        method_class = METHODS.get(spec.method)
        backbone = workbench.backbone(planned.backbone).to(workbench.device)
        backbone.recompute = workbench.choices.how.recompute
        dataset = workbench.dataset(planned.dataset)
        if spec.open_world is not None:
            table = workbench.feasibility(planned.dataset, planned.feasibility, planned.backbone)
            dataset = replace(dataset, feasibility=table.scores)
        torch.manual_seed(derived_seed("init", spec.seed))
        config = method_class.Config.model_validate(spec.method_config)
        method = method_class(backbone, dataset.vocabulary, config).to(workbench.device)
        if planned.imported is not None:
            method.load_checkpoint(planned.imported.weights)
            if self.group.leads:
                write_best(folder.path, method.checkpoint(), spec.run_id, epoch=-1)
        surroundings = Surroundings(workbench.features, start.report or untold, start.notify)
        parts = (spec, folder, method, dataset, execution_of(planned, workbench), surroundings)
        if self.trainer is None:
            tracked = workbench.choices.how.track is not None and self.group.leads
            self.trainer = (TrackedTrainer if tracked else Trainer)(*parts)
            self.judges.append((planned, self.trainer))
        else:
            judge = Judge(*parts)
            self.trainer.join(judge)
            self.judges.append((planned, judge))

    def _conclude(self) -> None:
        """Evaluate for each run what it selected, and finish its record."""
        for planned, judge in self.judges:
            if judge.failure is not None:
                self._settle(planned, judge.failure)
                continue
            try:
                judge.folder.finish(judge.conclude())
                judge.folder.tidy()
                self.group.barrier()  # until the record is whole
            except Exception as error:
                self._set_aside(planned, error)
            else:
                self._settle(planned, judge.folder.read())

    def _set_aside(self, planned: PlannedRun, error: Exception) -> None:
        """Let a run fail by itself, where the others can go on; else raise the error again."""
        cause = stopping.cause(error)
        if isinstance(cause, stopping.Stopped):
            raise cause
        if len(self.runs) == 1 or self.group.size > 1:
            raise error
        self._fail(planned, error)

    def _fail(self, planned: PlannedRun, error: Exception) -> None:
        if planned.spec.run_id in self.begun and self.group.leads:
            with suppress(UserError):  # the disk that failed the run may not take in why
                planned.folder.fail(error)
        self._settle(planned, error)

    def _settle(self, planned: PlannedRun, outcome: Outcome) -> None:
        self.left.remove(planned)
        self.start.settled(planned, outcome)

    def _end(self, error: Exception) -> None:
        """Let all that are left fail."""
        from datasets.loaders import dead_worker

        error = dead_worker(error) or error
        first = next((item for item in self.left if item.spec.run_id in self.begun), None)
        try:
            self.group.end(error, None if first is None else self.group.folder(first.folder))
        except Exception as told:  # what another process left word of
            error = told
        for planned in list(self.left):
            self._fail(planned, error)

    def _interrupt(self, stop: stopping.Stopped) -> None:
        """Record in the folders what stopped the runs, and where."""
        failures = {planned.spec.run_id: judge.failure for planned, judge in self.judges}
        for planned in list(self.left):
            failure = failures.get(planned.spec.run_id)
            if failure is not None:
                self._settle(planned, failure)
            elif planned.spec.run_id in self.begun:
                with suppress(UserError):
                    where = {} if self.trainer is None else self.trainer.where
                    self.group.folder(planned.folder).interrupt(stop.word, where)
