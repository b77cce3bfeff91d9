"""Which runs were handed to a launcher, under which job, and whether that job is alive: from a note in each folder.

`launch.json` says who was given the run; the launcher is asked whether that still holds. What became of the run itself
is in its record, whatever a scheduler remembers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from benchmarks.launchers.base import PLACE, Watch, name_of
from benchmarks.runs import files, locks
from benchmarks.runs.environment import now
from datasets.files import acquire
from errors import UserError
from registry import LAUNCHERS

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun

NOTE = "launch.json"
UNKNOWN = "unknown"
PATIENCE = 60.0  # seconds that two commands wait for each other while they hand out runs


@dataclass(frozen=True)
class Launch:
    """A run that was handed over.

    time: UTC, ISO 8601.
    cancelled: by `cancel`, and not launched again since.
    state: "" where the job is over, `UNKNOWN` where its launcher cannot be asked, else the launcher's word: "queued",
      "PENDING", "RUNNING".
    """

    launcher: str
    job: str
    time: str
    cancelled: bool = False
    state: str = ""

    @property
    def waits(self) -> bool:
        """Whether its job is known to be there and still wanted."""
        return self.state not in ("", UNKNOWN) and not self.cancelled

    def __str__(self) -> str:
        return f"{self.launcher} job {self.job.removeprefix(f'{self.launcher}-')}"


def note(folder: Path, launcher: str, job: str) -> None:
    """Note in a run's folder that it was handed over."""
    _write(folder, Launch(launcher, job, now()))


def find(root: Path, only: Sequence[Path] | None = None) -> list[tuple[Path, Launch]]:
    """Return run folders that were handed over, with their launches; each launcher is asked once.

    only: these folders alone.
    """
    noted = {path: launch for path in (_folders(root) if only is None else only) if (launch := read(path)) is not None}
    states: dict[tuple[str, str], str] = {}
    for name in {launch.launcher for launch in noted.values()}:
        jobs = {launch.job for launch in noted.values() if launch.launcher == name}
        try:
            found = LAUNCHERS.get(name).alive(root, jobs)
        except UserError:
            found = dict.fromkeys(jobs, UNKNOWN)
        states |= {(name, job): state for job, state in found.items()}
    return [
        (path, Launch(**asdict(launch) | {"state": states.get((launch.launcher, launch.job), "")}))
        for path, launch in sorted(noted.items())
    ]


def read(folder: Path) -> Launch | None:
    """Return what a run's folder says of its launch, without asking anybody; None where it says nothing readable."""
    try:
        content: dict[str, Any] = files.read_json(folder / NOTE)
        return Launch(**content)
    except (UserError, TypeError):
        return None


def mark_cancelled(folder: Path) -> None:
    """Note that a run is not wanted any more."""
    launch = read(folder)
    if launch is not None:
        _write(folder, Launch(**asdict(launch) | {"cancelled": True}))


def withdrawn(planned: PlannedRun) -> locks.LeftOut | None:
    """Return why a run that this process was started for is not wanted any more, None where it is.

    To be asked with the run's lock held: `cancel` leaves its mark and then looks for a holder.
    """
    launch = read(planned.folder.path)
    if launch is None or not launch.cancelled or launch.job != os.environ.get("CZSL_JOB"):
        return None
    name = planned.spec.run_id
    return locks.LeftOut(
        f"The run {name} was cancelled.", "Its process had not got to it.", "The same command does it."
    )


@contextmanager
def handing_out(root: Path) -> Iterator[None]:
    """Within, no other command hands out runs of these results, where the file system knows locks."""
    with files.writing(root / PLACE):
        (root / PLACE).mkdir(parents=True, exist_ok=True)
    try:
        lock = acquire(root / PLACE / "lock", PATIENCE)
    except Timeout:
        raise UserError(
            f"The runs of {root} cannot be handed out.", "Another command is at it.", "Try again in a minute."
        ) from None
    except OSError:
        lock = None  # each run's own lock still keeps two processes out of one folder
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                lock.release()


def free(planned: Sequence[PlannedRun], root: Path, watch: Watch) -> tuple[list[PlannedRun], int]:
    """Return (runs to hand out, how many are left out because somebody is at them already).

    Finished runs are tidied. A run that is to be redone is cleared here and not by its process: that may be started
    several times, and must keep what it had saved.
    """
    for item in planned:
        if item.action == "nothing":
            item.folder.tidy()
    todo = _claims(planned, root)
    claimed: list[PlannedRun] = []
    for item, claim in todo:
        if claim:
            watch.left_out(name_of(item), f"The run {item.spec.run_id} {claim}.")
            continue
        if item.action == "run" and "empty" not in (item.status, item.folder.status):
            with locks.hold(item.folder.path):
                item.folder.clear()
        claimed.append(item)
    return claimed, len(todo) - len(claimed)


def unclaimed(planned: Sequence[PlannedRun], root: Path) -> list[PlannedRun]:
    """Return the runs that are to be done and that nobody is at; nothing is touched."""
    return [item for item, claim in _claims(planned, root) if not claim]


def _claims(planned: Sequence[PlannedRun], root: Path) -> list[tuple[PlannedRun, str]]:
    """Return the runs that are to be done, each with who is at it, "" for nobody."""
    todo = [item for item in planned if item.action != "nothing"]
    launches = dict(find(root, [item.folder.path for item in todo]))
    claims: list[tuple[PlannedRun, str]] = []
    for item in todo:
        launch, holder, claim = launches.get(item.folder.path), locks.is_held(item.folder.path), ""
        if holder is not None:
            claim = f"is being done already, by {holder}"
        elif launch is not None and launch.state and not launch.cancelled:
            word = "cannot be asked about" if launch.state == UNKNOWN else f"is {launch.state}"
            claim = f"was handed over: {launch} {word}"
        claims.append((item, claim))
    return claims


def _write(folder: Path, launch: Launch) -> None:
    content = asdict(launch)
    del content["state"]  # what is asked for is not kept
    files.write_json(folder / NOTE, content)


def _folders(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below.sort()
        with suppress(ValueError):
            below.remove(PLACE)
        if NOTE in names:
            below.clear()
            yield Path(folder)
