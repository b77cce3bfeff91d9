"""One process at a time in a run folder: a lock of the operating system, which ends with its process however that ends.

    .lock            what is locked; it stays there, empty
    .holder.json     who holds it, for people: host, pid, since

The lock decides, the file beside it only tells. Two processes that were told to do the same runs share them that way.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import BaseFileLock, Timeout

from benchmarks.runs import files
from benchmarks.runs.environment import now
from datasets.files import acquire
from datasets.system import is_posix
from errors import UserError

LOCK, HOLDER = ".lock", ".holder.json"
PATIENCE = 1.0  # seconds; `is_held` has the lock for a moment, which must not look like a run
REMAINS = 15.0  # seconds; decoding processes of a killed run inherit its lock and notice its end within some five


@dataclass(frozen=True)
class Holder:
    """Who is at a run. since: UTC, ISO 8601."""

    host: str
    pid: int
    since: str

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone; of another machine nothing is known."""
        if self.host != socket.gethostname() or not is_posix():  # on Windows signal 0 is Ctrl-C and not a question
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class LeftOut(UserError):
    """A run is not done by this process, which is no failure of it."""


class Held(LeftOut):
    """Another process is doing the run. holder: None where that process has not said yet who it is."""

    def __init__(self, run: str, holder: Holder | None) -> None:
        self.holder = holder
        super().__init__(
            f"The run {run} is being done already.",
            f"By {'another process' if holder is None else holder}.",
            "Wait for it, or end that process first.",
        )


@contextmanager
def hold(folder: Path, notify: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Hold a run folder; it is made if need be. `Held` if another process does, a `UserError` if it cannot be written.

    notify: told where the file system knows no locks; the run is then done without one.
    """
    with files.writing(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder)
    if lock is None:
        notify(f"The file system of {folder.parent} knows no locks: do not start the same run twice at a time.")
    try:
        files.write_json(folder / HOLDER, asdict(Holder(socket.gethostname(), os.getpid(), now())))
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        if lock is not None:
            lock.release()


def is_held(folder: Path) -> Holder | None:
    """Return who is at a run folder, or None. Nothing is written. A holder that has not said who it is has pid 0."""
    holder = read_holder(folder)
    if (folder / LOCK).is_file():
        try:
            # Another look has the lock for a moment; a run says soon who it is.
            lock = acquire(folder / LOCK, PATIENCE if holder is None or holder.is_dead else 0)
        except Timeout:
            return read_holder(folder) or holder or Holder("an unknown host", 0, "an unknown time")
        except OSError:
            lock = None  # not ours to write
        if lock is not None:
            lock.release()
            return None
    return None if holder is None or holder.is_dead else holder


def read_holder(folder: Path) -> Holder | None:
    """Return what the folder says of its holder, who may be gone; None where it says nothing readable."""
    try:
        return Holder(**files.read_json(folder / HOLDER))
    except (UserError, TypeError):
        return None


def _acquire(folder: Path) -> BaseFileLock | None:
    """Return the lock of a run folder once it is held, or None where the file system has none."""
    try:
        return acquire(folder / LOCK, PATIENCE)
    except Timeout:
        holder = read_holder(folder)
        if holder is None or not holder.is_dead:
            raise Held(folder.name, holder) from None
    try:
        return acquire(folder / LOCK, REMAINS)
    except Timeout:
        raise Held(folder.name, None) from None
