"""Processes of this machine, one training each: one per GPU, or one per share of the cores.

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
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.launchers import launched
from benchmarks.launchers.base import PLACE, Launcher, Watch, name_of
from benchmarks.launchers.job import LOG, do_with_first, job_of, reason, start_run, write_jobs
from benchmarks.running.joint import together
from benchmarks.runs import locks
from benchmarks.runs.environment import usable_cpus
from benchmarks.training import stopping
from errors import counted

if TYPE_CHECKING:
    import torch

    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CORES_PER_RUN = 4
"""Cores of a share where nobody says how many runs go at a time."""
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
            places = self._places(len(waiting), workbench)
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
        places = self._places(len(together(runs)), workbench)
        lines = [" ".join(f"{name}={value}" for name, value in place.items()) for place in places]
        return [f"Processes of this machine: {counted(len(runs), 'run')}, {len(places)} at a time, with", *lines]

    def _places(self, runs: int, workbench: Workbench) -> list[dict[str, str]]:
        return shares(runs, self.options.jobs, gpus(workbench.device), usable_cpus() or 1)

    @classmethod
    def alive(cls, root: Path, jobs: Collection[str]) -> Mapping[str, str]:
        """Return the pools that are still there. A pool's run that has no process yet is queued."""
        return {job: "queued" for job in jobs if locks.is_held(root / PLACE / job) is not None}


class _Pool:
    """Keeps every place busy until no run waits. places: the environment variables of each place."""

    def __init__(self, places: Sequence[Mapping[str, str]], own: str, watch: Watch) -> None:
        self.places, self.own, self.watch = list(places), own, watch
        self.running: dict[int, tuple[Sequence[PlannedRun], subprocess.Popen[bytes], float]] = {}
        self.failures = self.held = 0

    def run(self, groups: Sequence[Sequence[PlannedRun]]) -> int:
        """Do the runs, those of one training in one process; return the exit code of `Launcher.launch`."""
        waiting, total, asked = list(groups), sum(map(len, groups)), False
        try:
            while waiting or self.running:
                if stopping.requested() is not None and not asked:
                    asked, waiting = True, []
                    self._signal(signal.SIGTERM)
                for place in set(range(len(self.places))) - set(self.running):
                    if waiting:
                        self._start(place, waiting.pop(0))
                self._collect()
                at_work = sum(len(runs) for runs, *_ in self.running.values())
                done = total - sum(map(len, waiting)) - at_work
                self.watch.progress("local", "runs", done, total, f"{at_work} at work")
                time.sleep(TICK)
        except KeyboardInterrupt:  # the second Ctrl-C
            for _, process, _ in self.running.values():
                process.kill()
            self.watch.stopped("local", None)
            return 130
        except BaseException:
            self._signal(signal.SIGTERM)
            raise
        if asked:
            number = stopping.requested()
            assert number is not None  # it is what asked
            stop = stopping.Stopped(number)
            self.watch.stopped("local", stop)
            return stop.exit_code
        return 1 if self.failures else 3 if self.held else 0

    def _start(self, place: int, runs: Sequence[PlannedRun]) -> None:
        wanted = []
        for item in runs:
            launch = launched.read(item.folder.path)
            if launch is None or launch.cancelled or launch.job != self.own:
                self.watch.left_out(name_of(item), f"The run {item.spec.run_id} was cancelled.")
            else:
                wanted.append(item)
        if not wanted:
            return
        do_with_first([item.folder.path for item in wanted])
        # A session of its own: a terminal's Ctrl-C comes to the pool alone, which passes it on.
        process = start_run(wanted[0].folder.path, "local", self.own, self.places[place], own_session=True)
        self.running[place] = (wanted, process, time.perf_counter())

    def _collect(self) -> None:
        for place, (runs, process, start) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[place]
            for item in runs:
                self._tell(
                    item, code, time.perf_counter() - start, reason(item.folder, code, runs[0].folder.path / LOG)
                )

    def _tell(self, item: PlannedRun, code: int, seconds: float, why: str) -> None:
        """Say what became of a run of a process that ended with this code."""
        name = name_of(item)
        if item.folder.status == "done":
            self.watch.done(name, item.folder.read(), seconds)
        elif code == 3:
            self.held += 1
            self.watch.left_out(name, why)
        elif code > 128 or code == -signal.SIGTERM:
            self.watch.left_out(name, f"The run {item.spec.run_id} was stopped; the same command goes on with it.")
        else:
            self.failures += 1
            self.watch.failed(name, why)

    def _signal(self, number: int) -> None:
        for _, process, _ in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)


def gpus(device: torch.device) -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; none off cuda."""
    if device.type != "cuda" or device.index is not None:
        return []
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    return names or [str(number) for number in range(torch.cuda.device_count())]


def shares(runs: int, jobs: int | None, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Return the environment variables of each run that goes at a time.

    runs: how many there are to do.
    jobs: how many of them at a time; None is one per GPU, or one per `CORES_PER_RUN` cores.

    Runs take GPUs in turn. Threads are the cores divided among the runs, and no more than the user allowed.

    >>> [place["CUDA_VISIBLE_DEVICES"] for place in shares(5, 3, ["4", "7"], 8)]
    ['4', '7', '4']
    >>> shares(5, 3, [], 8)[0]["OMP_NUM_THREADS"]
    '2'
    """
    count = max(1, min(runs, jobs or len(gpus) or cores // CORES_PER_RUN))
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
