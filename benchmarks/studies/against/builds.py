"""The two builds, and how work is done by either: a child that waits for its turn, or a command of the suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.launchers.local import THREADS
from errors import UserError

ROOT = Path(__file__).parents[3]
CHILD = Path(__file__).with_name("child.py")


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Give the folder of a temporary checkout of another commit; `UserError` for one that is not there."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise UserError(
            f"There is no commit '{revision}' here.", "The other build is made of a commit.", "See git log --oneline."
        )
    with tempfile.TemporaryDirectory() as folder:
        # A clone and not a worktree, so that a study that is killed leaves nothing in the repository.
        place = Path(folder) / "build"
        subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(ROOT), str(place)], check=True)
        subprocess.run(["git", "-C", str(place), "checkout", "-q", "--detach", found.stdout.strip()], check=True)
        yield place


class Waiting:
    """A child process of a build that has prepared its work and does a round when it is told to."""

    def __init__(self, root: Path, job: Mapping[str, object]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps({**job, "root": str(root)})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        self.ready = self._answer()

    def round(self) -> dict[str, float]:
        """Do a round and return what was measured."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.communicate()[1].strip().splitlines() or ["nothing"]
            raise UserError("A measurement ended early.", f"It said: {said[-1]}", "Measure the other targets alone.")
        answer: dict[str, float] = json.loads(line)
        return answer


def alternately(
    work: Sequence[tuple[Path, Mapping[str, object]]], rounds: int, warmup: int
) -> list[list[dict[str, float]]]:
    """Return what each child measured in each round: the first goes first in even rounds, last in odd ones.

    work: of each child, its build and its job.
    """
    children: list[Waiting] = []
    found: list[list[dict[str, float]]] = [[] for _ in work]
    try:
        for root, job in work:
            children.append(Waiting(root, job))
        for number in range(-warmup, rounds):
            order = range(len(work)) if number % 2 == 0 else reversed(range(len(work)))
            for which in order:
                measured = children[which].round()
                if number >= 0:
                    found[which].append(measured)
    finally:
        for child in children:
            child.stop()
    return found


def commands(root: Path, lines: Sequence[Sequence[str]], cores: Sequence[int], home: Path) -> dict[str, float]:
    """Return the seconds that commands of the suite take one after the other, in a home of their own.

    cores: that they may use; empty leaves them all. Each build decides on its threads; numbers of threads in the
    surroundings are not passed on.
    """

    def pin() -> None:
        if cores:
            os.sched_setaffinity(0, cores)

    surroundings = {name: value for name, value in os.environ.items() if name not in THREADS} | {"CZSL_HOME": str(home)}
    able = hasattr(os, "sched_setaffinity")
    start = time.perf_counter()
    for line in lines:
        done = subprocess.run(
            [sys.executable, "bench.py", *line],
            cwd=root,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=pin if able else None,
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UserError(f"'bench.py {' '.join(line)}' failed.", f"It said: {last}", "Run it by hand there.")
    return {"wall": time.perf_counter() - start}
