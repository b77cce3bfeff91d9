"""What became of runs: planned, running, done, failed, interrupted or dead; read from their folders alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from benchmarks.locks import is_held
from benchmarks.records import EPOCHS, ERROR, RunFolder, find_runs
from benchmarks.run import PlannedRun
from benchmarks.spec import RunSpec
from errors import UserError

State = Literal["planned", "running", "done", "failed", "interrupted", "dead", "unreadable"]


@dataclass(frozen=True)
class RunState:
    """A run and how far it is.

    epochs: (finished, all). changed: when its folder was last written to, None for one that is only planned. note: who
    is at it, why it failed, or what can be done.
    """

    run_id: str
    state: State
    epochs: tuple[int, int]
    changed: datetime | None
    note: str = ""


def state_of(spec: RunSpec, path: Path) -> RunState:
    """Return the state of a run from its folder, which need not exist."""
    folder = RunFolder(path)
    total = spec.training.epochs
    status = folder.status
    if status == "empty":
        return RunState(spec.run_id, "planned", (0, total), None)
    try:
        finished = len(folder.epochs()) if (path / EPOCHS).is_file() else 0
    except UserError as error:
        return RunState(spec.run_id, "unreadable", (0, total), _changed(path), str(error))
    if status == "done":
        return RunState(spec.run_id, "done", (finished, total), _changed(path))
    holder = is_held(path)
    if holder is not None:
        return RunState(spec.run_id, "running", (finished, total), _changed(path), f"by {holder}")
    if status == "failed":
        failure = folder.read().error or {}
        note = f"{failure.get('message', '')} See {path / ERROR}."
        return RunState(spec.run_id, "failed", (finished, total), _changed(path), note.strip())
    if status == "interrupted":
        return RunState(spec.run_id, "interrupted", (finished, total), _changed(path), "run again to go on")
    return RunState(spec.run_id, "dead", (finished, total), _changed(path), "nobody is at it; run again to go on")


def _changed(path: Path) -> datetime:
    newest = max((file.stat().st_mtime for file in path.iterdir()), default=path.stat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


def states(results: Path, planned: Iterable[PlannedRun] | None = None) -> list[RunState]:
    """Return the states of planned runs, or of every record below a folder; unreadable records are among them."""
    if planned is not None:
        return [state_of(item.spec, item.folder.path) for item in planned]
    runs, problems = find_runs(results)
    found = [state_of(run.spec, run.path) for run in runs]
    return found + [
        RunState(problem.path.name, "unreadable", (0, 0), None, f"{problem.path}: {problem.message}")
        for problem in problems
    ]
