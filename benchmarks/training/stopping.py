"""Clean stops: a signal asks, the run answers at its next step, saves what it has and says how to go on.

Ctrl-C, SIGTERM and what schedulers send before they take a machine away (SIGUSR1, SIGUSR2) mean the same. Work that can
save itself runs inside `deferred` and calls `check` where it may stop; anywhere else a signal stops at once, which
loses nothing either, because files are whole or not there. A stop is answered once: whoever asks again, as a scheduler
and the job around a run both do, does not disturb what is being saved. Only the main thread of a process can listen.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGBREAK") if hasattr(signal, name)
)
"""The signals that are listened to; Windows has only some of them."""

IMPATIENCE = 1.0  # seconds; a terminal, a wrapper and a scheduler may each pass the same signal on

QUIET = 10.0
"""Seconds after an answer in which signals change nothing; what is recorded then takes less.

After them a signal stops at once again: Python swallows what is raised in a `__del__` or in a weak reference's callback
(each import has some), and the answer then has reached nobody.
"""

Item = TypeVar("Item")


class Stopped(BaseException):
    """The run was asked to stop. Not an `Exception`, so that nothing takes it for a failure.

    signal: what asked. where: how far the run was, to follow its name in a sentence; "" where nobody says.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal = signal.Signals(signal_number)
        self.where = ""
        super().__init__(self.word)

    @property
    def word(self) -> str:
        """What asked, for people: "Ctrl-C" or the signal's name."""
        return "Ctrl-C" if self.signal is signal.SIGINT else self.signal.name

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


class _Requests:
    """What was asked for, when, whether it is answered later, and when it was."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.time = 0.0
        self.deferred = 0
        self.answered: float | None = None


_requests = _Requests()


def request(signal_number: int) -> None:
    """Ask for a stop as the signal would; for launchers that receive signals themselves."""
    if _requests.signal is None:
        _requests.signal, _requests.time = signal_number, time.monotonic()


def requested() -> int | None:
    """Return the signal that asks for a stop, or None."""
    return _requests.signal


def answer(signal_number: int) -> Stopped:
    """Return what a signal is answered with. For `QUIET` seconds others change nothing."""
    _requests.answered = time.monotonic()
    return Stopped(signal_number)


def check() -> None:
    """Raise `Stopped` if that was asked for."""
    if _requests.signal is not None:
        raise answer(_requests.signal)


def watched(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; raise `Stopped` before the next one if that was asked for."""
    for item in items:
        check()
        yield item


def cause(error: BaseException) -> BaseException:
    """Return the `Stopped` that an error comes from, or the error itself.

    A scheduler signals every process of a job, and decoding processes die of it: the loader then fails, possibly
    before this process has seen its own signal.
    """
    told = error.__cause__ or error  # the loader puts torch's own words into a sentence
    if isinstance(told, RuntimeError) and "DataLoader worker" in str(told):
        time.sleep(0.0 if _requests.signal is not None else 0.5)
        if _requests.signal is not None:
            return answer(_requests.signal)
    return error


@contextmanager
def deferred() -> Iterator[None]:
    """Within, a signal is answered by `check` alone."""
    _requests.deferred += 1
    try:
        yield
    finally:
        _requests.deferred -= 1


@contextmanager
def listening() -> Iterator[None]:
    """Within, signals ask for a stop; the handlers of before are put back after.

    A second Ctrl-C, later than what a terminal and a wrapper make of one, is a KeyboardInterrupt: no more is saved.
    """
    before = {number: signal.signal(number, _asked) for number in SIGNALS}
    _requests.signal, _requests.answered = None, None
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:
            for number, handler in before.items():
                signal.signal(number, handler)
        _requests.signal, _requests.answered = None, None


def _asked(number: int, frame: FrameType | None) -> None:
    again = _requests.signal is not None and time.monotonic() - _requests.time > IMPATIENCE
    request(number)
    if again and number == signal.SIGINT:
        raise KeyboardInterrupt
    quiet = _requests.answered is not None and time.monotonic() - _requests.answered < QUIET
    if _requests.deferred == 0 and not quiet:
        raise answer(number)


def resume_command(command_line: Sequence[str]) -> str:
    """Return the command that goes on with what `command_line` began, for a shell.

    What it said about runs that are there is left out: redo would throw away what was just saved, skip would leave it.

    >>> resume_command(["bench.py", "run", "--methods", "csp", "--on-existing", "redo", "--set", "csp.lr=1e-3"])
    'python bench.py run --methods csp --set csp.lr=1e-3'
    """
    program, *arguments = command_line
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--on-existing":
            skip = True
        elif not argument.startswith("--on-existing="):
            kept.append(argument)
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    return shlex.join([*start, *kept])
