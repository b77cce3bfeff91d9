"""Command lines in processes of their own that have torch already: forked from a server that imported it once.

For what needs a process and its signals, but not a fresh Python, whose imports take seconds each time.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks.commands import app
from benchmarks.launchers.job import JOB, LOG
from benchmarks.launchers.telling import VARIABLE

ROOT = Path(__file__).parents[1]
PRELOADED = [
    *("benchmarks.report.page", "benchmarks.running.execute", "benchmarks.running.plan", "benchmarks.training.loop"),
    *("benchmarks.training.distributed", "methods.backbone.loading", "forked", "toy_runs"),
]
"""Modules that the server imports: what runs and reports need, nothing that has computed a gradient yet."""


def start_server() -> str:
    """Return the start method of multiprocessing whose children are forked from a server that has imported all."""
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
        pipe: Connection | None = None,
    ) -> None:
        """log: a file that all it prints is added to. pipe: what it tells its progress through."""
        context = multiprocessing.get_context(start_server())
        self._folder = tempfile.TemporaryDirectory()
        self.words = [str(ROOT / "bench.py"), *map(str, arguments)]
        self._said = [log or Path(self._folder.name) / name for name in ("out", "err")]
        environment = {**os.environ, **(env or {})}
        where = (self.words, environment, str(Path.cwd()), *map(str, self._said), pipe)
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
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it without another word."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it printed to standard output and standard error."""
        self._process.join(timeout)
        assert self.returncode is not None, f"still at work after {timeout} seconds"
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
    """Do what `benchmarks.launchers.job.start_run` does, in a process that has imported all; sessions are left out."""
    said = {"CZSL_LAUNCHER": launcher, "CZSL_JOB": job}
    pipes = [Connection(os.dup(descriptor), readable=False) for descriptor in open_files]
    words = ("run", "--spec", folder / JOB)
    started = Forked(*words, env={**variables, **said}, log=folder / LOG, pipe=pipes[0] if pipes else None)
    for pipe in pipes:
        pipe.close()
    return started


def _command(
    words: list[str], environment: Mapping[str, str], folder: str, out: str, err: str, pipe: Connection | None
) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    if pipe is not None:
        os.environ[VARIABLE] = str(pipe.fileno())
    os.chdir(folder)
    sys.argv = words
    app.main()
