"""Processes of this machine, one training each: one per GPU, or one per core; the longest begin.

Each process is `python bench.py run --spec FILE` and prints into its run's log. A run that fails stops none of the
others. A stop (Ctrl-C, SIGTERM) is passed on, and every run saves what it has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.launchers import launched
from benchmarks.launchers.base import PLACE, Launcher, Watch, name_of
from benchmarks.launchers.job import LOG, do_with_first, forget_failures, job_of, reason, start_run, write_jobs
from benchmarks.launchers.side_by_side import at_once, cores, longest_first
from benchmarks.launchers.telling import Listener
from benchmarks.running.joint import together
from benchmarks.runs import locks
from benchmarks.training import stopping
from datasets.system import is_posix
from errors import counted

if TYPE_CHECKING:
    import torch

    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TICK = 0.1  # seconds between looks at the processes


class Local(Launcher):
    """A pool of processes; it ends when the last of them does."""

    name = "local"

    def launch(self, planned: Sequence[PlannedRun], workbench: Workbench, watch: Watch) -> int:
        """See `Launcher.launch`."""
        root = workbench.choices.results
        own = f"local-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        with locks.hold(root / PLACE / own, lambda message: watch.notice("local", message)):
            with launched.handing_out(root):
                free, held = launched.free(planned, root, watch)
                waiting = together(free)
                about = (workbench.choices, self.options.plugins, self.options.command_line)
                for runs in waiting:
                    write_jobs(runs, lambda item: job_of(item, *about))
                    for item in runs:
                        launched.note(item.folder.path, self.name, own)
            places = self._places(free, workbench)
            waiting = longest_first(waiting, workbench)
            with stopping.deferred():
                code = _Pool(places, own, watch).run(waiting)
        for name in (locks.LOCK, locks.HOLDER):
            (root / PLACE / own / name).unlink(missing_ok=True)
        with suppress(OSError):
            (root / PLACE / own).rmdir()
        return code or (3 if held else 0)

    def preview(self, planned: Sequence[PlannedRun], workbench: Workbench) -> list[str]:
        """See `Launcher.preview`."""
        runs = launched.unclaimed(planned, workbench.choices.results)
        if not runs:
            return []
        places = self._places(runs, workbench)
        lines = [" ".join(f"{name}={value}" for name, value in place.items()) for place in places]
        start = f"Processes of this machine: {counted(len(runs), 'run')}, {len(places)} at a time, with"
        return [start, *dict.fromkeys(lines)]

    def _places(self, runs: Sequence[PlannedRun], workbench: Workbench) -> list[dict[str, str]]:
        trainings = len(together(runs))
        if workbench.device.type == "cpu":
            jobs = self.options.jobs or at_once(runs, workbench)
            return [{name: str(workbench.choices.threads) for name in THREADS}] * max(1, min(trainings, jobs))
        return shares(trainings, self.options.jobs, gpus(workbench.device), cores())

    @classmethod
    def alive(cls, root: Path, jobs: Collection[str]) -> Mapping[str, str]:
        """Return the pools that are still there. A pool's run that has no process yet is queued."""
        return {job: "queued" for job in jobs if locks.is_held(root / PLACE / job) is not None}


@dataclass(frozen=True)
class _AtWork:
    """Runs of one training in a process.

    listener: None where processes cannot share a pipe.
    start: of `time.perf_counter`.
    """

    runs: Sequence[PlannedRun]
    process: subprocess.Popen[bytes]
    listener: Listener | None
    start: float


class _Pool:
    """Keeps every place busy until no run waits.

    places: the environment variables of each place.
    settled: runs of which nothing more will be done; those that a stop of the pool comes to, or
      keeps from beginning, are not.
    """

    def __init__(self, places: Sequence[Mapping[str, str]], own: str, watch: Watch) -> None:
        self.places, self.own, self.watch = list(places), own, watch
        self.running: dict[int, _AtWork] = {}
        self.failures = self.held = self.stopped = self.settled = 0

    def run(self, groups: Sequence[Sequence[PlannedRun]]) -> int:
        """Do the runs, those of one training in one process; return the exit code of `Launcher.launch`."""
        waiting, total, asked = list(groups), sum(map(len, groups)), False
        try:
            while waiting or self.running:
                if stopping.requested() is not None and not asked:
                    asked, waiting = True, []
                    self.stopped = self._at_work()
                    self._signal(signal.SIGTERM)
                for place in set(range(len(self.places))) - set(self.running):
                    if waiting:
                        self._start(place, waiting.pop(0))
                self._collect()
                self.watch.progress("all runs", "done", self.settled, total, f"{self._at_work()} at work")
                time.sleep(TICK)
        except KeyboardInterrupt:  # the second Ctrl-C
            for one in self.running.values():
                one.process.kill()
            self.watch.stopped(self._stopped(total), None)
            return 130
        except BaseException:
            self._signal(signal.SIGTERM)
            raise
        if asked:
            number = stopping.requested()
            assert number is not None  # it is what asked
            stop = stopping.answer(number)
            self.watch.stopped(self._stopped(total), stop)
            return stop.exit_code
        return 1 if self.failures else 3 if self.held else 0

    def _at_work(self) -> int:
        return sum(len(one.runs) for one in self.running.values())

    def _start(self, place: int, runs: Sequence[PlannedRun]) -> None:
        wanted = []
        for item in runs:
            launch = launched.read(item.folder.path)
            if launch is None or launch.cancelled or launch.job != self.own:
                self.settled += 1
                self.watch.left_out(name_of(item), f"The run {item.spec.run_id} was cancelled.")
            else:
                wanted.append(item)
        if not wanted:
            return
        folders = [item.folder.path for item in wanted]
        do_with_first(folders)
        forget_failures(folders)
        listener = Listener() if is_posix() else None
        variables = {**self.places[place], **(listener.variables if listener else {})}
        files = [listener.theirs] if listener else []
        # A session of its own: a terminal's Ctrl-C comes to the pool alone, which passes it on.
        process = start_run(folders[0], "local", self.own, variables, own_session=True, open_files=files)
        if listener:
            listener.started()
        self.running[place] = _AtWork(wanted, process, listener, time.perf_counter())
        self.watch.progress(name_of(wanted[0]), "starting", 0, 1, "")

    def _collect(self) -> None:
        for place, one in list(self.running.items()):
            code = one.process.poll()
            if code is None:
                if one.listener:
                    one.listener.pass_on(self.watch)
                continue
            del self.running[place]
            if one.listener:
                one.listener.close(self.watch)
            for item in one.runs:
                self._tell(item, code, time.perf_counter() - one.start, one.runs[0].folder.path / LOG)

    def _tell(self, item: PlannedRun, code: int, seconds: float, log: Path) -> None:
        """Say what became of a run of a process that ended with this code and printed into this log."""
        name = name_of(item)
        done = item.folder.status == "done"
        if not done and (code > 128 or code == -signal.SIGTERM):
            self.settled += stopping.requested() is None  # by `cancel` alone: the pool goes on without it
            self.watch.left_out(name, f"The run {item.spec.run_id} was stopped; the same command goes on with it.")
            return
        self.settled += 1
        if done:
            self.watch.done(name, item.folder.read(), seconds)
        elif code == 3:
            self.held += 1
            self.watch.left_out(name, reason(item.folder, code, log))
        else:
            self.failures += 1
            self.watch.failed(name, reason(item.folder, code, log))

    def _signal(self, number: int) -> None:
        for one in self.running.values():
            with suppress(ProcessLookupError):
                one.process.send_signal(number)

    def _stopped(self, total: int) -> str:
        """Return which runs a stop came to."""
        return f"{self.stopped} of {counted(total, 'run')}"


def gpus(device: torch.device) -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; none off cuda."""
    if device.type != "cuda" or device.index is not None:
        return []
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return names or [str(number) for number in range(torch.cuda.device_count())]


def shares(runs: int, jobs: int | None, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Return the environment variables of each run that goes at a time on an accelerator.

    runs: how many there are to do.
    jobs: how many of them at a time; None is one per GPU.

    Runs take GPUs in turn. Threads are the cores divided among the runs, and no more than the user allowed.

    >>> [place["CUDA_VISIBLE_DEVICES"] for place in shares(5, 3, ["4", "7"], 8)]
    ['4', '7', '4']
    >>> shares(5, 3, ["4", "7"], 8)[0]["OMP_NUM_THREADS"]
    '2'
    """
    count = max(1, min(runs, jobs or len(gpus)))
    places = []
    for number in range(count):
        place = {}
        for name in THREADS:
            given = os.environ.get(name, "")
            place[name] = str(max(1, min(cores // count, int(given) if given.isdigit() else cores)))
        if gpus:
            place["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        places.append(place)
    return places
