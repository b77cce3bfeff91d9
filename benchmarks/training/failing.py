"""How a run of several processes ends when one of them fails: one record of it, one message, one exit code."""

from __future__ import annotations

import json
import time
import traceback
from contextlib import suppress
from typing import Any

from benchmarks.runs.records import RunFolder
from benchmarks.training.collectives import Processes, ProcessLost
from errors import UserError

GRACE = 20.0  # seconds that the others give the first process to record why the run ended
FAILURE, SETTLED = "failure", "settled"


class ReadOnlyFolder(RunFolder):
    """A run folder for the processes that write nothing: they read what the first one wrote."""

    def start(self, *_: Any, **__: Any) -> None:
        """Write nothing."""

    note = append_epoch = resume_at = write_arrays = finish = interrupt = fail = tidy = clear = start


def end(processes: Processes, error: Exception, folder: RunFolder | None = None) -> None:
    """Record in `folder` why the run ends, once, and tell the other processes; the caller raises the error again.

    The first process records its own error, or what another left word of before it ended: then that is raised. The
    others wait until that is done and exit in silence. If the first does not answer, because it is lost itself or
    waits where nothing can wake it, a process that failed records its own error.
    """
    store = processes.store
    if processes.size == 1 or store is None:
        return _fail(folder, error)
    own = not isinstance(error, ProcessLost)
    if processes.leads:
        told = json.loads(store.get(FAILURE)) if not own and store.check([FAILURE]) else None
        cause = error
        if told is not None:
            cause = UserError(*told["sentences"])
            cause.add_note(told["traceback"])  # for the record; it is not part of the message
        _fail(folder, cause)
        store.set(SETTLED, "yes")
        processes.close()
        if cause is not error:
            raise cause from None
        return
    if own:
        told = {"sentences": _sentences(error, processes.rank)}
        told["traceback"] = "".join(traceback.format_exception(error))
        store.compare_set(FAILURE, "", json.dumps(told))
    processes.close()  # over gloo the others notice at once
    deadline = time.monotonic() + GRACE
    while not store.check([SETTLED]):
        if time.monotonic() > deadline:
            return _fail(folder if folder is None else RunFolder(folder.path), error) if own else None
        time.sleep(0.05)
    raise SystemExit(0)  # the first process ends with the code


def _fail(folder: RunFolder | None, error: Exception) -> None:
    if folder is not None:
        with suppress(UserError):  # the disk that failed the run may not take in why
            folder.fail(error)


def _sentences(error: Exception, rank: int) -> list[str]:
    """Return what a process says of its failure in the three sentences of a `UserError`."""
    if isinstance(error, UserError):
        return [error.asked, error.there, error.next_step]
    reason = " ".join(str(error).split()).rstrip(".")
    return [
        f"Process {rank} of this run failed.",
        f"{type(error).__name__}: {reason}.",
        "The same command goes on from the last finished epoch.",
    ]
