"""How far a run is, told by its process to the one that started it: lines of JSON through a pipe.

No number depends on them: a full pipe loses lines and holds up nobody. Where the reader is gone, whatever ended it, the
run saves what it has and stops, as it would have been told to.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from benchmarks.launchers.base import Watch
from benchmarks.training import stopping

VARIABLE = "CZSL_PROGRESS"
"""Environment variable with the number of the pipe's end to write to."""
LONGEST = 4000  # bytes of a line; up to PIPE_BUF, at least 4096 on Linux, a write is whole or does not happen
PAUSE = 0.2  # seconds between two lines on the same work


class Teller:
    """The end in a run's process. descriptor: of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.latest = ("", 0.0)
        os.set_blocking(descriptor, False)

    def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
        """See `Watch`; what comes too fast for a reader is left out."""
        time_now = time.monotonic()
        if what == self.latest[0] and done < total and time_now - self.latest[1] < PAUSE:
            return
        self.latest = (what, time_now)
        self._write(["progress", name, what, done, total, note])

    def notice(self, name: str, message: str) -> None:
        """See `Watch`."""
        self._write(["notice", name, message])

    def _write(self, values: Sequence[object]) -> None:
        line = json.dumps(values).encode() + b"\n"
        if len(line) <= LONGEST:
            try:
                os.write(self.descriptor, line)
            except BrokenPipeError:
                stopping.request(signal.SIGTERM)
            except OSError:  # a full pipe among others
                pass


def teller() -> Teller | None:
    """Return the way to tell the process that started this one; None where it does not listen."""
    given = os.environ.pop(VARIABLE, "")  # not for processes that this one starts
    try:
        return Teller(int(given)) if given else None
    except (OSError, ValueError):
        return None


class Listener:
    """The end in the process that starts a run."""

    def __init__(self) -> None:
        self.descriptor, self.theirs = os.pipe()
        os.set_blocking(self.descriptor, False)
        self.rest = b""

    @property
    def variables(self) -> Mapping[str, str]:
        """What the run's environment must hold."""
        return {VARIABLE: str(self.theirs)}

    def started(self) -> None:
        """Close the end that the run's process has by now."""
        os.close(self.theirs)

    def pass_on(self, watch: Watch) -> None:
        """Tell what has come since the last call; of progress only the latest."""
        with suppress(BlockingIOError):
            while part := os.read(self.descriptor, 65536):
                self.rest += part
        *lines, self.rest = self.rest.split(b"\n")
        progress: tuple[str, str, int, int, str] | None = None
        for line in lines:
            kind, *values = json.loads(line)
            if kind == "notice":
                watch.notice(*values)
            else:
                name, what, done, total, note = values
                progress = (str(name), str(what), int(done), int(total), str(note))
        if progress is not None:
            watch.progress(*progress)

    def close(self, watch: Watch) -> None:
        """Tell what is left, when the run's process has ended."""
        self.pass_on(watch)
        os.close(self.descriptor)
