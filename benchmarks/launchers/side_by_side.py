"""Which runs go side by side on a processor: how many at a time, and the longest first.

A run computes with one thread, so that its numbers are the same wherever it runs; cores are used by several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.training.processes import processes
from datasets.system import is_posix, usable_cpus

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

WORK = {
    "clip_zero_shot": 0.0,
    "coop": 1.0,
    "csp": 1.0,
    "dfsp": 8.0,
    "refiner_style": 38.0,
    "vp_cmjl": 38.0,
    "cams": 40.0,
    "caila": 70.0,
    "msci": 75.0,
    "troika": 105.0,
}
"""Time of a training image as measured on icon_states, in units of CSP's; those of VP-CMJL, CAMS and CAILA are by their
FLOPs between others (0.4, 0.5 and 1.3 GFLOPs where Refiner-style has 0.5 and MSCI 1.5). It puts runs in order and does
nothing else: where it is wrong, on other sizes, cores are idle a little longer at the end."""
UNKNOWN = 20.0  # for the method of a plugin

PROCESS = 1_000_000_000
"""Bytes of a process with its libraries and data, beside what `memory_estimate` counts."""
SMALL, ROOM = ("tiny-icons", "tiny-icons-siglip"), 2_000_000_000
"""Backbones whose runs take less than so many bytes each: nothing is estimated where that much is free."""

MEMORY, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def at_once(planned: Sequence[PlannedRun], workbench: Workbench) -> int:
    """Return how many of the runs that are to be done go side by side where the user does not say; 1 is one by one.

    That is as many as there are cores for their threads and memory for the largest of them. With an accelerator, within
    one run of several processes, and on Windows they go one by one.
    """
    todo = [item for item in planned if item.action != "nothing"]
    if workbench.device.type != "cpu" or workbench.choices.elsewhere or processes() > 1 or not is_posix():
        return 1
    from benchmarks.running.joint import together

    trainings = together(todo)
    count = max(1, min(len(trainings), cores() // workbench.choices.threads))
    return fitting(trainings, workbench, count, free_memory())


def longest_first(groups: Sequence[list[PlannedRun]], workbench: Workbench) -> list[list[PlannedRun]]:
    """Return runs, grouped by their training, in the order in which they are begun: no long one is left for the end."""
    return sorted(groups, key=lambda runs: -expected_work(runs[0], workbench))


def expected_work(planned: PlannedRun, workbench: Workbench) -> float:
    """Return about how long a run takes, in the unit of `WORK`, images x time of one."""
    images = len(workbench.dataset(planned.dataset).splits["train"])
    one = WORK.get(planned.spec.method, UNKNOWN)
    return images * planned.spec.training.epochs * one


def fitting(groups: Sequence[Sequence[PlannedRun]], workbench: Workbench, count: int, free: int | None) -> int:
    """Return how many of the trainings, at most `count` and at least 1, memory of `free` bytes suffices for.

    groups: the runs of each training, which needs what the largest of them does: one may be judged in the open world.
    free: None where nobody knows. A run whose need cannot be estimated counts as its process alone.
    """
    if count == 1 or free is None:
        return count
    if free >= count * ROOM and all(item.spec.backbone in SMALL for runs in groups for item in runs):
        return count
    from benchmarks.running.memory_estimate import estimate_run, kind_of

    known: dict[tuple[str, ...], int] = {}  # seeds and switches of a method take the same

    def need(item: PlannedRun) -> int:
        kind = kind_of(item.spec)
        if kind not in known:
            estimate = estimate_run(item, workbench)
            known[kind] = PROCESS + (0 if estimate is None else estimate.total)
        return known[kind]

    needs = sorted((max(map(need, runs)) for runs in groups), reverse=True)  # those that take most may meet
    return max([1, *(number for number in range(2, count + 1) if sum(needs[:number]) <= free)])


def cores() -> int:
    """Return how many cores this process may keep busy: a container's share of time counts, where it has one."""
    count = usable_cpus() or 1
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def free_memory() -> int | None:
    """Return the bytes that may be used now, of the machine or of the container; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    with suppress(OSError, ValueError):
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free
