"""The contract of a launcher, and what it tells while it works."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from errors import UserError

if TYPE_CHECKING:
    from benchmarks.running.choices import Choices
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.records import RunRecord
    from benchmarks.training.stopping import Stopped

PLACE = ".launch"
"""Folder below the results for what launchers need of their own; no record lies there."""


@dataclass(frozen=True)
class LaunchOptions:
    """What the command line says about launching.

    jobs: processes at a time (local).
    parallel: jobs at a time (slurm).
    settings: `--slurm key=value` texts.
    plugins: files to load in every process.
    command_line: what a record says that the run was started as.
    """

    jobs: int | None = None
    parallel: int | None = None
    settings: Sequence[str] = ()
    plugins: Sequence[Path] = ()
    command_line: Sequence[str] = ()


class Watch:
    """What a launcher tells; by default nobody listens. `name` is the run's for people, see `name_of`."""

    def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
        """Say how far a run is: what it does, steps done and in all, a word on how it goes."""

    def notice(self, name: str, message: str) -> None:
        """Say what a user should know."""

    def submitted(self, name: str, job: str) -> None:
        """Say that a run waits for its turn elsewhere."""

    def done(self, name: str, record: RunRecord, seconds: float) -> None:
        """Say that a run is done."""

    def failed(self, name: str, message: str) -> None:
        """Say that a run failed, and why."""

    def left_out(self, name: str, message: str) -> None:
        """Say that a run is left to somebody who is at it already."""

    def stopped(self, name: str, stop: Stopped | None) -> None:
        """Say that everything stops; stop is None where nothing could be saved any more."""


class Launcher:
    """Does planned runs. A subclass is made once per command and refuses options that are not for it."""

    name: ClassVar[str]
    waits: ClassVar[bool] = True
    """Whether `launch` returns when the runs are done, or when they are handed over."""

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        for option, given, owner in (
            ("--jobs", options.jobs is not None, "local"),
            ("--parallel", options.parallel is not None, "slurm"),
            ("--slurm", bool(options.settings), "slurm"),
        ):
            if given and self.name in ("inline", "local", "slurm") and self.name != owner:
                raise UserError(
                    f"The option {option} is not for the launcher {self.name}.",
                    f"It belongs to the launcher {owner}.",
                    f"Add --launcher {owner}, or leave it out.",
                )

    def choices(self, choices: Choices) -> Choices:
        """Return the choices that runs are planned with: the device may be that of another machine."""
        return choices

    def launch(self, planned: Sequence[PlannedRun], workbench: Workbench, watch: Watch) -> int:
        """Do the runs, or hand them over; return the exit code.

        0: all is well. 1: some failed. 3: none failed, but others are at some, or some were cancelled as they came up.
        128 and more: a signal.
        """
        raise NotImplementedError

    def preview(self, planned: Sequence[PlannedRun], workbench: Workbench) -> list[str]:
        """Return lines on how `launch` would do these runs, for `--dry-run`; nothing is started or written."""
        return []

    @classmethod
    def alive(cls, root: Path, jobs: Collection[str]) -> Mapping[str, str]:
        """Return which jobs are waiting or at work, with a word on each; a `UserError` where nobody can tell."""
        raise NotImplementedError

    @classmethod
    def cancel(cls, root: Path, job: str) -> None:
        """End a job that is alive, or take it out of the queue."""


def name_of(planned: PlannedRun) -> str:
    """Return a run's name for people."""
    spec = planned.spec
    return ", ".join(filter(None, (spec.method, spec.ablation, spec.dataset, f"seed {spec.seed}")))
