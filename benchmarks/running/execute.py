"""Does planned runs under their locks, and says what becomes of each. Nothing here prints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.running.doing import Doing, Outcome, Start, execution_of
from benchmarks.running.plan import PlannedRun
from benchmarks.running.workbench import Workbench
from benchmarks.runs import locks
from benchmarks.runs.records import RunRecord
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.training.execution import Report


def execute(
    planned: PlannedRun,
    workbench: Workbench,
    report: Report | None = None,
    command_line: Sequence[str] = (),
) -> RunRecord:
    """Do one planned run and return its record; a failure or a stop is recorded in its folder and raised again.

    `locks.Held` is raised where another process is at the run. See `Start` for the arguments.
    """
    outcomes: list[Outcome] = []
    start = Start(workbench, report, command_line, settled=lambda _, outcome: outcomes.append(outcome))
    execute_together([planned], start)
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def execute_together(runs: Sequence[PlannedRun], start: Start) -> None:
    """Do planned runs of one training (`joint.together`); what fails one of them leaves the others alone.

    Failures and stops are recorded in the folders; a stop is raised again. Runs that were begun apart, and so stand at
    different places, are done one after the other.
    """
    with ExitStack() as stack:
        todo: list[PlannedRun] = []
        for planned in runs:
            outcome = _claimed(planned, start, stack)
            if outcome is None:
                todo.append(planned)
            else:
                start.settled(planned, outcome)
        for part in _apart(todo, start.workbench):
            Doing(part, start).do()


def _claimed(planned: PlannedRun, start: Start, stack: ExitStack) -> Outcome | None:
    """Take the lock of a run's folder into `stack`, if the run is to be done; else return what there is of it."""
    from benchmarks.running import tracking

    group, folder = start.workbench.group, planned.folder
    try:
        check_given(planned)
    except UserError as error:
        return error
    if planned.action == "nothing":
        if group.leads:
            folder.tidy()
        return folder.read()
    held: locks.LeftOut | None = None
    try:
        if group.leads:
            tracking.check(start.workbench.choices.how.track)
            stack.enter_context(locks.hold(folder.path, start.notify))
    except locks.Held as error:
        held = error
    except UserError as error:
        group.end(error)
        return error
    if held is None and group.leads:
        held = start.refused(planned)
    # Another process may be at it, or have done it since the plan was made: the first process says.
    (state,) = group.agree([(planned.spec.run_id, "held" if held is not None else folder.status)])
    if state == "held":
        return held or locks.Held(folder.path.name, None)
    if state == "done" and planned.status != "done":
        return folder.read()
    # What was not there when it was planned is another process's, which has saved it: this one goes on from there.
    if planned.action == "run" and "empty" not in (planned.status, state) and group.leads:
        folder.clear()
    return None


def _apart(runs: Sequence[PlannedRun], workbench: Workbench) -> list[list[PlannedRun]]:
    """Return the runs in parts that can go on from one saved state each."""
    if len(runs) < 2:
        return [list(runs)] if runs else []
    from benchmarks.training.resuming import SavedRun, apart

    with workbench.group.leader_first():
        saved = [SavedRun(item.spec.run_id, item.folder, execution_of(item, workbench)) for item in runs]
        return [[runs[number] for number in numbers] for numbers in apart(saved)]


def check_given(planned: PlannedRun) -> None:
    """Raise a `UserError` for a run of imported weights that is to be done without them, before anything is removed."""
    if planned.spec.imported is not None and planned.imported is None and planned.action != "nothing":
        raise UserError(
            f"The run {planned.spec.run_id} cannot be done from its specification.",
            f"Its weights were imported from a file with the SHA-256 {planned.spec.imported[:12]}.",
            "Give the command bench.py import with that file.",
        )
