"""One training after the other, in this process, on data, weights and features that are loaded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.launchers import launched
from benchmarks.launchers.base import Launcher, Watch, name_of
from benchmarks.running.joint import together
from benchmarks.runs.locks import LeftOut
from benchmarks.runs.records import ERROR
from benchmarks.training import stopping
from errors import UserError, some

if TYPE_CHECKING:
    from benchmarks.running.doing import Outcome
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench


SHOWN = 5  # names in a notice


class Inline(Launcher):
    """Runs of one training are done together; one that fails is recorded and the next one starts."""

    name = "inline"

    def launch(self, planned: Sequence[PlannedRun], workbench: Workbench, watch: Watch) -> int:
        """See `Launcher.launch`."""
        from benchmarks.running.execute import Start, execute_together

        tally = _Tally(watch)
        groups = together(planned)
        for number, runs in enumerate(groups):
            if all(item.action == "nothing" for item in runs):
                for item in runs:
                    item.folder.tidy()
                continue
            name = name_of(runs[0])
            told = Start(
                workbench,
                partial(watch.progress, name),
                self.options.command_line,
                partial(watch.notice, name),
                tally.settled,
                launched.withdrawn,
            )
            tally.start = time.perf_counter()
            begun = False
            try:
                stopping.check()
                begun = True
                execute_together(runs, told)
            except stopping.Stopped as stop:
                watch.stopped(name, stop)
                _tell_not_redone([item for later in groups[number + begun :] for item in later], watch)
                return stop.exit_code
            except KeyboardInterrupt:  # the second Ctrl-C
                watch.stopped(name, None)
                return 130
            if tally.failures and workbench.group.size > 1:
                break  # the processes have parted; the same command does what is left
        return 1 if tally.failures else 3 if tally.held else 0


def _tell_not_redone(left: Sequence[PlannedRun], watch: Watch) -> None:
    """Say which results were to be replaced and are not: the command that goes on leaves them as they are."""
    old = [name_of(item) for item in left if item.action == "run" and item.status == "done"]
    if old:
        watch.notice(
            some(old, SHOWN, "; "),
            "keeps its result of before. To replace it, ask for it alone with --on-existing redo.",
        )


class _Tally:
    """Tells what becomes of runs, and counts. start: of the training that they share, in `perf_counter`'s seconds."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.failures = self.held = 0
        self.start = 0.0

    def settled(self, item: PlannedRun, outcome: Outcome) -> None:
        """Take in what becomes of a run."""
        name = name_of(item)
        if isinstance(outcome, LeftOut):
            self.held += 1
            self.watch.left_out(name, str(outcome))
        elif isinstance(outcome, UserError):
            self.failures += 1
            self.watch.failed(name, str(outcome))
        elif isinstance(outcome, Exception):
            self.failures += 1
            file = item.folder.path / ERROR
            where = f" See {file}." if file.is_file() else ""  # a run may fail before its record begins
            self.watch.failed(name, f"{type(outcome).__name__}: {outcome}.{where}")
        else:
            self.watch.done(name, outcome, time.perf_counter() - self.start)
