"""Kills runs with SIGKILL at random moments, resumes them until they are done, and compares with an unbroken run.

    python -m benchmarks.studies.kill_loop --kills 30

Half of the kills come at a random time, as a power cut does. The others come in the middle of a random write, between
the bytes and the rename or just after it, where time alone would hardly ever hit. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.runs import files
from benchmarks.runs.locks import LOCK
from benchmarks.studies.program import program
from datasets.system import is_posix

Report = Callable[[str, int, int, str], None]
Work = Callable[[Path, Report], None]
"""Does a run below a results folder, from wherever it stands, and reports like `training.Trainer`."""

LOADING = "loading libraries, weights and data"


@dataclass
class Outcome:
    """kills: the place of each. runs: how many it took to be killed so often, each ended in the end. writes: of one
    unbroken run. differences: files that are not those of the unbroken run, by run.
    """

    kills: list[str] = field(default_factory=list)
    runs: int = 0
    writes: int = 0
    differences: list[str] = field(default_factory=list)


class Place:
    """Where a process is, in a file that outlives it: the file is only ever overwritten, with a text of one length."""

    LENGTH = 80

    def __init__(self, path: Path) -> None:
        path.write_bytes(b" " * self.LENGTH)
        self.file = path.open("r+b", buffering=0)
        self.text = ""

    def say(self, text: str) -> None:
        """Tell where the process is."""
        self.text = text
        os.pwrite(self.file.fileno(), text.encode()[: self.LENGTH].ljust(self.LENGTH), 0)

    def report(self, what: str, done: int, total: int, note: str) -> None:
        """Tell it from a trainer's report."""
        self.say(f"validating, {what}" if done == total and what.startswith("epoch") else what)


def kill_loop(work: Work, root: Path, kills: int, seed: int, start_method: str = "spawn") -> Outcome:
    """Do `work` unbroken below `root`, then kill it `kills` times and compare each run that ends.

    start_method: of multiprocessing; `spawn` needs a `work` that can be pickled. RuntimeError if a run fails.
    """
    draws = random.Random(seed)
    lives = _Lives(work, root, multiprocessing.get_context(start_method))
    began = time.monotonic()
    lives.live(root / "whole", None, None)
    duration = time.monotonic() - began
    expected = record(root / "whole")
    outcome = Outcome(writes=lives.writes())
    while len(outcome.kills) < kills or (root / f"killed-{outcome.runs}").exists():
        folder = root / f"killed-{outcome.runs}"
        delay = write = None
        if len(outcome.kills) < kills and draws.random() < 0.5:
            delay = draws.uniform(0.0, duration)
        elif len(outcome.kills) < kills:
            write = draws.randint(1, outcome.writes)
        place = lives.live(folder, delay, write)
        if place is not None:
            outcome.kills.append(place)
            folder.mkdir(exist_ok=True)  # killed before it began: it is resumed all the same
            continue
        found = record(folder)
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        outcome.differences += [f"{folder.name}/{name}" for name in wrong]
        outcome.runs += 1
    return outcome


@dataclass
class _Lives:
    """Processes that do the work, one after the other."""

    work: Work
    root: Path
    context: Any

    def live(self, results: Path, delay: float | None, write: int | None) -> str | None:
        """Do the work in a process, killed after `delay` seconds or in its `write`-th write; return where, or None."""
        Place(self.root / "place").say(LOADING)
        process = self.context.Process(target=_life, args=(self.work, results, self.root, write))
        process.start()
        process.join(delay)
        process.kill()  # does nothing to one that has ended, also in this very moment
        process.join()
        if process.exitcode == 0:
            return None
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the run in {results} failed with exit code {process.exitcode}")
        return (self.root / "place").read_text().strip()

    def writes(self) -> int:
        """Return how often the latest process forced something to disk."""
        return int((self.root / "writes").read_text())


def _life(work: Work, results: Path, root: Path, write: int | None) -> None:
    place, sync, aside, append = Place(root / "place"), os.fsync, files.write_aside, files.append_line
    place.say(LOADING)
    count = 0

    def counted(descriptor: Any) -> None:
        nonlocal count
        count += 1
        if count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    def told(function: Callable[..., None], path: Path, content: Any) -> None:
        before = place.text
        place.say(f"writing {path.name}")
        function(path, content)
        place.say(before)

    os.fsync = counted  # type: ignore[assignment]
    files.write_aside, files.append_line = partial(told, aside), partial(told, append)
    work(results, place.report)
    (root / "writes").write_text(str(count))


def record(results: Path) -> Mapping[str, bytes]:
    """Return what must be equal of the runs below a folder, by path: everything but times and how often it began."""
    found = {}
    for path in sorted(results.glob("*/*")):
        name = str(path.relative_to(results))
        if path.name == "result.json":
            content = {key: value for key, value in files.read_json(path).items() if key != "cost"}
            found[name] = json.dumps(content).encode()
        elif path.name == "epochs.jsonl":
            lines = [
                {key: value for key, value in line.items() if "seconds" not in key} for line in files.read_lines(path)
            ]
            found[name] = json.dumps(lines).encode()
        elif path.name == "spec.json":
            found[name] = json.dumps(files.read_json(path)["spec"]).encode()
        elif path.name != LOCK:
            found[name] = path.read_bytes()
    return found


def suite_run(method: str, dataset: str, epochs: int, results: Path, report: Report) -> None:
    """Do the run that `bench.py run --methods ... --dataset ... --epochs ...` does."""
    from benchmarks.running.choices import Choices
    from benchmarks.running.execute import execute
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.suites import expand, load_suite

    requests = expand(load_suite("quick").replace(methods=(method,), datasets=(dataset,)))
    workbench = Workbench(Choices(results=results, epochs=epochs))
    for planned in plan_runs(requests, workbench):
        execute(planned, workbench, report)


@program
def main() -> None:
    """Parse, run the loop and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="csp")
    parser.add_argument("--dataset", default="icon_states")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    if not is_posix():
        parser.exit(2, "Error: Runs are killed by SIGKILL, which Windows does not have.\n")
    work = partial(suite_run, options.method, options.dataset, options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_loop(work, Path(folder), options.kills, options.seed)
    print(
        f"{len(outcome.kills)} kills of {options.method} on {options.dataset} ({options.epochs} epochs, "
        f"{outcome.writes} writes to disk in an unbroken run); {outcome.runs} runs were resumed to their end."
    )
    for place, count in sorted(Counter(outcome.kills).items(), key=lambda item: (-item[1], item[0])):
        print(f"{count:4}  {place}")
    if outcome.differences:
        print("Not equal to the unbroken run:", *outcome.differences, sep="\n  ")
        raise SystemExit(1)
    print("All records are byte-equal to the unbroken run's, but for times and starts.")


if __name__ == "__main__":
    main()
