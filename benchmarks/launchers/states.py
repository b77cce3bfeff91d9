"""What became of runs: planned, queued, running, done, failed, interrupted or dead, by their folders and launchers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from benchmarks.launchers.job import JOB, LOG, read_job
from benchmarks.launchers.launched import UNKNOWN, Launch, find
from benchmarks.running.plan import PlannedRun
from benchmarks.runs.locks import is_held
from benchmarks.runs.records import EPOCHS, ERROR, RunFolder, find_runs
from benchmarks.runs.spec import RunSpec
from errors import UserError

State = Literal["planned", "queued", "running", "done", "failed", "interrupted", "dead", "unreadable"]


@dataclass(frozen=True)
class RunState:
    """A run and how far it is.

    epochs: (finished, all).
    changed: when its folder was last written to; None for a run that is only planned, or whose folder is gone.
    note: who is at it, why it failed, or what can be done.
    """

    run_id: str
    state: State
    epochs: tuple[int, int]
    changed: datetime | None
    note: str = ""


def state_of(spec: RunSpec, path: Path, launch: Launch | None = None) -> RunState:
    """Return the state of a run from its folder, which need not exist, and from the launch of it."""
    folder = RunFolder(path)
    total = spec.training.epochs
    status = folder.status
    waits = launch is not None and launch.waits
    if status == "empty" and not waits and is_held(path) is None:
        return RunState(spec.run_id, "planned", (0, total), None, _over(path, launch))
    try:
        finished = len(folder.epochs()) if (path / EPOCHS).is_file() else 0
    except UserError as error:
        return RunState(spec.run_id, "unreadable", (0, total), _changed(path), str(error))
    if status == "done":
        return RunState(spec.run_id, "done", (finished, total), _changed(path))
    holder = is_held(path)
    if holder is not None:
        by = f"by {holder}" if launch is None or not launch.state else f"{launch}, by {holder}"
        return RunState(spec.run_id, "running", (finished, total), _changed(path), by)
    if (status := folder.status) == "done":  # meanwhile
        return RunState(spec.run_id, "done", (len(folder.epochs()), total), _changed(path))
    if launch is not None and waits:
        state: State = "running" if launch.state == "RUNNING" else "queued"  # a process that has not got to the run yet
        return RunState(spec.run_id, state, (finished, total), _changed(path), f"{launch}, {launch.state}")
    if status == "failed":
        try:
            failure = folder.read().error or {}
        except UserError as error:
            return RunState(spec.run_id, "unreadable", (finished, total), _changed(path), str(error))
        note = f"{failure.get('message', '')} See {path / ERROR}."
        return RunState(spec.run_id, "failed", (finished, total), _changed(path), note.strip())
    if status == "interrupted":
        note = _unknown(launch) or "run again to go on"
        return RunState(spec.run_id, "interrupted", (finished, total), _changed(path), note)
    note = _unknown(launch) or "nobody is at it; run again to go on"
    return RunState(spec.run_id, "dead", (finished, total), _changed(path), note)


def _over(path: Path, launch: Launch | None) -> str:
    """Return what there is to say of a run that nobody began."""
    if launch is None or launch.waits:
        return ""
    if launch.cancelled:
        return f"{launch} was cancelled before it began"
    return _unknown(launch) or f"{launch} is over and did not begin it; see {path / LOG}"


def _unknown(launch: Launch | None) -> str:
    """Return a word on a launch that cannot be asked about; "" for others."""
    return f"{launch} cannot be asked about from here" if launch is not None and launch.state == UNKNOWN else ""


def _changed(path: Path) -> datetime | None:
    """Return when a folder was last written to; None where it is gone.

    A run at work renames the files that it has written aside, so one that was listed need not be there any more.
    """
    times = []
    with suppress(OSError):
        times.append(path.stat().st_mtime)
        for file in path.iterdir():
            with suppress(FileNotFoundError):
                times.append(file.stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC) if times else None


def states(results: Path, planned: Iterable[PlannedRun] | None = None) -> list[RunState]:
    """Return the states of planned runs, or of every record and of what was handed over below a folder.

    Unreadable records are among them.
    """
    launches = dict(find(results))
    if planned is not None:
        return [state_of(item.spec, item.folder.path, launches.get(item.folder.path)) for item in planned]
    runs, problems = find_runs(results)
    found = [state_of(run.spec, run.path, launches.pop(run.path, None)) for run in runs]
    for path, launch in launches.items():
        if RunFolder(path).status == "empty":
            with suppress(UserError):  # a job that cannot be read says so itself, when it is done
                found.append(state_of(read_job(path / JOB)[0].spec, path, launch))
    return found + [
        RunState(problem.path.name, "unreadable", (0, 0), None, f"{problem.path}: {problem.message}")
        for problem in problems
    ]
