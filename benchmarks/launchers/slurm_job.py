"""What a job of SLURM does on its compute node: one training in a process of its own, saved when the job has to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.launchers import launched
from benchmarks.launchers.job import LOG, forget_failures, reason, start_run
from benchmarks.launchers.slurm_queue import still_runs
from benchmarks.runs.records import RunFolder

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

SAVING = 60.0  # seconds a run has to save itself; submitit asks for the signal 90 seconds before the end
GRACE = 600.0  # seconds that a job which was told to end waits for its end
TICK = 0.2  # seconds between looks at a run's process


class RunJob:
    """What a job does: one training, in a process of its own. submitit writes it down, and again before a new start.

    folder, beside: of the run whose file is started, and of those that share its training.

    The run's process gets every signal of the job itself and stops by itself; this one decides what becomes of the job.
    """

    def __init__(self, folder: str, *beside: str) -> None:
        self.folder, self.beside = folder, beside
        self.pid: int | None = None  # of the run's process

    def __call__(self) -> str:
        """Do the run and return its name; a run that fails fails the job."""
        path = Path(self.folder)
        job = own_number()
        for folder in (path, *map(Path, self.beside)):
            launched.note(folder, "slurm", job)
        forget_failures([path, *map(Path, self.beside)])
        # submitit listens to one signal; clusters send either of these.
        again = next(
            (h for n in ("SIGUSR2", "SIGUSR1") if callable(h := signal.getsignal(getattr(signal, n)))), signal.SIG_IGN
        )
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, again)
        process = start_run(path, "slurm", job, threads())
        self.pid = process.pid
        # No blocking wait: it would hold a lock of the process object while the signal's handler runs.
        while (code := process.poll()) is None:
            time.sleep(TICK)
        if code == 0:
            return path.name
        if code in (128 + signal.SIGTERM, -signal.SIGTERM):
            # Cancelled, or pre-empted with a time of grace: SLURM ends the job, and queues it again where it wants to.
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and still_runs(job):
                time.sleep(1.0)
        elif code > 128 or code in (-signal.SIGUSR1, -signal.SIGUSR2):
            time.sleep(5.0)  # the same signal is on its way to this process, and its handler does not return
        folders = [RunFolder(folder) for folder in (self.folder, *self.beside)]
        failed = next((folder for folder in folders if folder.status == "failed"), folders[0])
        raise RuntimeError(f"{failed.path.name}: {reason(failed, code, path / LOG)}")

    def checkpoint(self) -> DelayedSubmission | None:
        """Return what the next start of the job does: the same, for the run goes on by itself. None: nothing is left.

        submitit calls it in its handler of the signal. The run has got that signal too, and is given the time to save.
        """
        from submitit.helpers import DelayedSubmission

        if self.pid is not None:
            end(self.pid, SAVING)
        found = {RunFolder(folder).status for folder in (self.folder, *self.beside)}
        if found == {"done"}:
            sys.exit(0)
        return None if found <= {"done", "failed"} else DelayedSubmission(RunJob(self.folder, *self.beside))


def end(pid: int, patience: float) -> None:
    """Ask a child process to end and wait for that; kill it when the patience, in seconds, is over."""
    deadline = time.monotonic() + patience
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(TICK)


def threads() -> dict[str, str]:
    """Return the environment variable that keeps a run to the cores its job was given, where nobody else says so."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    return {"OMP_NUM_THREADS": given} if given.isdigit() and "OMP_NUM_THREADS" not in os.environ else {}


def own_number() -> str:
    """Return the number of the job that this process belongs to, as `squeue` shows it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
