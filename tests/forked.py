"""Command lines in processes of their own that have torch already: forked from a server that imported it once.

For what needs a process and its signals, but not a fresh Python, whose imports take seconds each time. What such a
command line starts itself, the runs of a pool and the processes of `--devices`, comes from the same server.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from benchmarks.commands import app
from benchmarks.launchers.job import JOB, LOG
from benchmarks.launchers.telling import VARIABLE

ROOT = Path(__file__).parents[1]
PRELOADED = [
    *("benchmarks.report.page", "benchmarks.running.execute", "benchmarks.running.plan", "benchmarks.training.loop"),
    *("benchmarks.training.distributed", "benchmarks.launchers.inline", "benchmarks.report.writing", "open_clip"),
    *("methods.backbone.loading", "methods.coop", "methods.csp", "methods.troika", "forked", "toy_runs"),
]
"""Modules that the server imports: what runs and reports need, nothing that has computed a gradient yet."""


def start_server() -> str:
    """Return the start method of multiprocessing whose children are forked from a server that has imported all."""
    if forkserver.get_inherited_fds() is not None:  # this process is such a child; see `_command`
        return "forkserver"
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # The server looks there for what it is to have.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        forkserver.ensure_running()
    return "forkserver"


class Forked:
    """`bench.py` with arguments, as `subprocess.Popen` would start it."""

    def __init__(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        said: Sequence[Path] = (),
        pipe: Connection | None = None,
        own_session: bool = False,
    ) -> None:
        """log: a file that all it prints is added to; said: one for standard output and one for errors.

        pipe: what it tells its progress through. own_session: its group of processes is its own.
        """
        context = multiprocessing.get_context(start_server())
        self._folder = tempfile.TemporaryDirectory()
        self.words = [str(ROOT / "bench.py"), *map(str, arguments)]
        self._said = said or [log or Path(self._folder.name) / name for name in ("out", "err")]
        environment = {**os.environ, **(env or {})}
        where = (self.words, environment, str(Path.cwd()), *map(str, self._said), pipe, own_session)
        self._process = context.Process(target=_command, args=where)
        self._process.start()
        self.pid = self._process.pid
        assert self.pid is not None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it is at work."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that is still there."""
        if self.returncode is None:
            assert self.pid is not None
            with suppress(ProcessLookupError):  # it has ended in this moment
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it without another word."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.words, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it printed to standard output and standard error."""
        self.wait(timeout)
        out, err = (path.read_text() if path.exists() else "" for path in self._said)
        return out, err


def fork_run(
    folder: Path,
    launcher: str,
    job: str,
    variables: Mapping[str, str],
    *,
    own_session: bool = False,
    open_files: Sequence[int] = (),
) -> Forked:
    """Do what `benchmarks.launchers.job.start_run` does, in a process that has imported all."""
    said = {"CZSL_LAUNCHER": launcher, "CZSL_JOB": job}
    pipes = [Connection(os.dup(descriptor), readable=False) for descriptor in open_files]
    words = ("run", "--spec", folder / JOB)
    pipe = pipes[0] if pipes else None
    started = Forked(*words, env={**variables, **said}, log=folder / LOG, pipe=pipe, own_session=own_session)
    for pipe in pipes:
        pipe.close()
    return started


def in_two_processes(target: Callable[..., None], *arguments: object) -> None:
    """Do a function in the two processes of a launcher; AssertionError, with what they printed, if one fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context(start_server())
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        made = [context.Process(target=_one_of_two, args=(target, arguments, rank, port, said)) for rank in range(2)]
        for process in made:
            process.start()
        while any(process.exitcode is None for process in made) and not any(process.exitcode for process in made):
            assert wait([process.sentinel for process in made if process.exitcode is None], 1200), "they wait for ever"
        for process in made:
            process.kill()  # if one fails, the other would wait for it
            process.join()
        assert [process.exitcode for process in made] == [0, 0], said.read_text(encoding="utf-8")[-6000:]


def _one_of_two(target: Callable[..., None], arguments: Sequence[object], rank: int, port: int, said: Path) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in launched.items()} | {"MASTER_ADDR": "localhost"}
    _print_to(str(said), str(said))
    target(*arguments)


def _command(
    words: list[str],
    environment: Mapping[str, str],
    folder: str,
    out: str,
    err: str,
    pipe: Connection | None,
    own_session: bool,
) -> None:
    if own_session:
        os.setsid()
    _print_to(out, err)
    os.environ.clear()
    os.environ.update(environment)
    if pipe is not None:
        os.environ[VARIABLE] = str(pipe.fileno())
    os.chdir(folder)
    _fork_what_is_started(Path(out), Path(err))
    sys.argv = words
    app.main()


def _print_to(out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)


def _fork_what_is_started(out: Path, err: Path) -> None:
    """Let this process, which is forked itself, start runs and the processes of `--devices` from its own server."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

    from benchmarks.launchers import local

    def start_worker(handler: object, arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
        assert tuple(arguments[:2]) == (sys.executable, str(ROOT / "bench.py")), arguments
        return Forked(*arguments[2:], env=environment, said=(out, err), own_session=True)

    # The standard library starts another server for a child of a server, though it knows the address of its own.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    local.start_run = fork_run  # type: ignore[assignment]  # it has what the pool asks of a Popen
    SubprocessHandler._popen = start_worker  # type: ignore[assignment]  # the same
