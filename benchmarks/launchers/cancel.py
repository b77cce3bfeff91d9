"""Ends runs that were started or handed over: jobs, runs that wait for their turn, and processes of this machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.launchers import launched
from benchmarks.launchers.launched import UNKNOWN, Launch
from benchmarks.runs import locks
from benchmarks.runs.records import RunFolder, find_runs
from datasets.places import plainly_a_path
from datasets.system import is_posix
from errors import UserError, counted, did_you_mean
from registry import LAUNCHERS


@dataclass(frozen=True)
class Cancelled:
    """What was done about a run. done: False where it could not be ended from here."""

    run_id: str
    message: str
    done: bool = True


def cancel(root: Path, names: Sequence[str] = ()) -> list[Cancelled]:
    """End the runs below a results folder that wait or are at work.

    names: run ids, beginnings of them, or folders; none at all is every run. A name that fits none is a `UserError`.
    """
    runs, _ = find_runs(root)
    launches = dict(launched.find(root))
    folders = sorted({*(run.path for run in runs), *launches})
    if names:
        folders = [folder for name in names for folder in _named(name, folders)]
    # What waits comes first: a place that becomes free must not be taken by a run that goes next.
    holders = {folder: locks.is_held(folder) for folder in dict.fromkeys(folders)}
    ends = [_end(folder, holder, launches.get(folder), root) for folder, holder in _queued_first(holders)]
    return [end for end in ends if end is not None]


def _queued_first(holders: dict[Path, locks.Holder | None]) -> list[tuple[Path, locks.Holder | None]]:
    return sorted(holders.items(), key=lambda item: item[1] is not None)


def _end(folder: Path, holder: locks.Holder | None, launch: Launch | None, root: Path) -> Cancelled | None:
    """End one run; None where nobody is at it."""
    if RunFolder(folder).status == "done":  # others of its training, or of its pool, may be at work
        return None
    if launch is not None and launch.state == UNKNOWN:
        return Cancelled(
            folder.name, f"{launch}: its launcher cannot be asked. Cancel it from where it was started.", False
        )
    if launch is not None and launch.state:
        if launch.launcher != "local":
            LAUNCHERS.get(launch.launcher).cancel(root, launch.job)
            launched.mark_cancelled(folder)
            return Cancelled(folder.name, f"{launch} ({launch.state}) is cancelled")
        launched.mark_cancelled(folder)
        holder = locks.is_held(folder)  # its process looks for the mark once it holds the run
        if holder is None:
            return Cancelled(folder.name, f"taken out of the queue of {launch.job}")
    if holder is None:
        return None
    if holder.host != socket.gethostname() or holder.pid == 0:
        return Cancelled(folder.name, f"{holder}: not a process of this machine. End it there.", False)
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:  # it has ended meanwhile
        return None
    except PermissionError:
        return Cancelled(folder.name, f"{holder}: not a process of this user. Its owner can end it.", False)
    what = "is asked to stop; it saves what it has" if is_posix() else "is ended; its last finished epoch is kept"
    return Cancelled(folder.name, f"process {holder.pid} {what}")


def _named(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the folders that a word means: those of a run's id, else that at a path, else those whose ids begin so."""
    ids = [] if plainly_a_path(name) else [folder for folder in folders if folder.name == name]
    wanted = Path(name).expanduser().resolve()
    found = ids or [folder for folder in folders if folder.resolve() == wanted]
    found = found or [folder for folder in folders if folder.name.startswith(name)]
    if not found:
        known = [folder.name for folder in folders]
        raise UserError(
            f"No run is called '{name}'.",
            f"The results folder has {counted(len(known), 'run')}.",
            did_you_mean(name, known) or "See 'python bench.py status'.",
        )
    return found
