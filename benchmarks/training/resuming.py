"""What a training keeps in the folders of its runs to go on from, and going on from it.

Usually a training is of one run. Runs that differ in how they are judged alone share one; then each folder has all that
is needed to go on, with the others or by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.runs.checkpoints import (
    BEST,
    RUNS,
    Damaged,
    Progress,
    forget_state,
    progress_of,
    read_best,
    read_state,
    remove,
    states_of,
    write_best,
    write_state,
)
from benchmarks.runs.records import RunFolder
from benchmarks.training.execution import Execution
from benchmarks.training.steps import Notify
from errors import UserError
from methods.base import Method


@dataclass(frozen=True)
class SavedRun:
    """The best weights of one run. Only the first process of several writes them."""

    run_id: str
    folder: RunFolder
    execution: Execution

    def write_best(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        """Write the weights of the epoch that is the best so far."""
        if self.execution.group.leads:
            write_best(self.folder.path, weights, self.run_id, epoch)

    def best(self, best_epoch: int) -> dict[str, Tensor]:
        """Return the weights of the best epoch.

        Where they are damaged the state is removed too, so that another start trains anew, and a `UserError` says so.
        """
        try:
            weights, epoch = read_best(self.folder.path, self.execution.device)
            if epoch != best_epoch:
                raise Damaged(f"{BEST} is of epoch {epoch + 1}, not of epoch {best_epoch + 1}")
        except Damaged as damage:
            if self.execution.group.leads:
                forget_state(self.folder.path)
            raise UserError(
                f"The best weights of {self.run_id} were lost while it trained.",
                f"{damage}.",
                "Start the run again: it trains from the beginning. If this happens again, check the disk.",
            ) from damage
        return weights

    def progress(self, state: Mapping[str, Any], place: Path) -> Progress | None:
        """Return how far the run is in a state from the file `place`; None where it cannot go on from that.

        Its folder must have the epochs up to there, and its best weights must be whole, or those of the state.
        """
        progress = progress_of(state, self.run_id, own=place.parent == self.folder.path)
        if progress is None:
            return None
        if place.parent != self.folder.path and len(self.folder.epochs()) < progress.next_epoch:
            return None  # what another folder says of a run that was begun anew since
        if progress.best_epoch >= 0 and not progress.holds_best:
            read_best(self.folder.path, torch.device("cpu"))  # `Damaged`
        return progress


@dataclass(frozen=True)
class Point:
    """Where runs go on from.

    progress: of each of them
    state: what was saved there; None at the beginning
    """

    progress: Sequence[Progress]
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SavedTraining:
    """The state of a training. runs: those that it is for. Only the first process of several writes."""

    runs: Sequence[SavedRun]
    method: Method
    execution: Execution

    def checkpoint(
        self, parts: Mapping[str, Any], progress: Sequence[Progress], generators: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the state to go on from.

        parts: optimizer, scheduler and scaler by name
        progress: of each run
        generators: their states within an epoch, None after one
        """
        if not self.execution.group.leads:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"method": self.method.checkpoint(), "progress": asdict(progress[0]), "generators": generators}
        if len(self.runs) > 1:
            own = zip(self.runs, progress, strict=True)
            state[RUNS] = {run.run_id: {"best_epoch": one.best_epoch, "best_value": one.best_value} for run, one in own}
        write_state([run.folder.path for run in self.runs], state)

    def resume(
        self, parts: Mapping[str, Any], notify: Notify
    ) -> tuple[Sequence[Progress], Mapping[str, Tensor] | None]:
        """Go on from the latest state that is whole and that every run can go on from, or begin.

        Return the progress of each run, and the states of the generators where an epoch was stopped, else None.
        """
        damages: list[str] = []
        point = _latest(self.runs, self.runs, self.execution.device, damages)
        leads = self.execution.group.leads
        if damages:
            epochs = point.progress[0].next_epoch
            place = f"goes on after epoch {epochs}" if point.state is not None else "begins anew"
            notify(f"{'; '.join(dict.fromkeys(damages))}. Training {place}; the numbers will be the same.")
        for run, progress in zip(self.runs, point.progress, strict=True):
            if point.state is not None and progress.holds_best:
                run.write_best(point.state["method"], progress.best_epoch)
            run.folder.resume_at(progress.next_epoch)
            if point.state is None and leads:
                forget_state(run.folder.path)
        if point.state is None:
            return point.progress, None
        self.method.load_checkpoint(point.state["method"])
        for name, part in parts.items():
            part.load_state_dict(point.state[name])
        return point.progress, point.state["generators"]


def apart(runs: Sequence[SavedRun]) -> list[list[int]]:
    """Return which runs, by their places in the list, can go on together: those that go on from the same state.

    Runs with nothing to go on from begin together. Nothing is changed on the disk.
    """
    if len(runs) == 1:
        return [[0]]
    groups: dict[object, list[int]] = {}
    for number, run in enumerate(runs):
        point = _latest([run], runs, torch.device("cpu"))
        key = None
        if point.state is not None:
            known = frozenset(point.state.get(RUNS, {run.run_id: None}))
            key = (known, point.progress[0].place)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _latest(
    runs: Sequence[SavedRun], places: Sequence[SavedRun], device: torch.device, damages: list[str] | None = None
) -> Point:
    """Return the furthest point that all of `runs` can go on from, among the states in the folders of `places`.

    damages: takes in what is damaged, and damaged states are removed; None leaves everything as it is.
    """
    best, furthest = Point([Progress() for _ in runs]), (-1, -1)
    for place in places:
        for path in states_of(place.folder.path):
            point = _point(runs, path, device, damages)
            if point is None:
                continue
            if point.progress[0].place > furthest:
                best, furthest = point, point.progress[0].place
            break  # the one before it is less far
    return best


def _point(runs: Sequence[SavedRun], path: Path, device: torch.device, damages: list[str] | None) -> Point | None:
    """Return the point of a state file, None where it is damaged or not every run can go on from it."""
    told = [] if damages is None else damages
    try:
        state = read_state(path, device)
    except Damaged as damage:
        told.append(str(damage))
        if damages is not None:
            remove(path)
        return None
    found = []
    for run in runs:
        try:
            progress = run.progress(state, path)
        except Damaged as damage:
            told.append(str(damage))
            return None
        if progress is None:
            return None
        found.append(progress)
    return Point(found, state)
