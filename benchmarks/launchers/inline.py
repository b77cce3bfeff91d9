"""One run after the other, in this process, on data, weights and features that are loaded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.launchers.base import Launcher, Watch, name_of
from benchmarks.runs.locks import Held
from benchmarks.runs.records import ERROR
from benchmarks.training import stopping
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench


class Inline(Launcher):
    """A run that fails is recorded and the next one starts."""

    name = "inline"

    def launch(self, planned: Sequence[PlannedRun], workbench: Workbench, watch: Watch) -> int:
        """See `Launcher.launch`."""
        from benchmarks.running.execute import execute

        failures = held = 0
        for item in planned:
            if item.action == "nothing":
                item.folder.tidy()
                continue
            name = name_of(item)
            start = time.perf_counter()
            try:
                stopping.check()
                record = execute(
                    item,
                    workbench,
                    partial(watch.progress, name),
                    self.options.command_line,
                    partial(watch.notice, name),
                )
            except stopping.Stopped as stop:
                watch.stopped(name, stop)
                return stop.exit_code
            except KeyboardInterrupt:  # the second Ctrl-C
                watch.stopped(name, None)
                return 130
            except Held as error:
                held += 1
                watch.left_out(name, str(error))
            except UserError as error:
                failures += 1
                watch.failed(name, str(error))
            except Exception as error:
                failures += 1
                file = item.folder.path / ERROR
                where = f" See {file}." if file.is_file() else ""  # a run may fail before its record begins
                watch.failed(name, f"{type(error).__name__}: {error}.{where}")
            else:
                watch.done(name, record, time.perf_counter() - start)
            if failures and workbench.group.size > 1:
                break  # the processes have parted; the same command does what is left
        return 1 if failures else 3 if held else 0
