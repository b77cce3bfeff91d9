"""Prints what becomes of runs, beside a progress bar for each run that is at work."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from benchmarks.commands.console import err
from benchmarks.evaluation.empty_groups import shown
from benchmarks.launchers.base import Watch
from benchmarks.launchers.telling import teller
from benchmarks.training import stopping

if TYPE_CHECKING:
    from benchmarks.runs.records import RunRecord


def progress_bars(console: Console) -> Progress:
    """Return bars for a console; nothing is shown where it is no terminal.

    Where a line is too short for all, its bar gives way before its words do.
    """
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(max_width=40, ratio=1)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
        expand=True,
    )


class Printer(Watch):
    """Prints what becomes of runs beside a bar for each that is at work, and tells the process that started this one.

    visible: whether there is anything to do.
    """

    def __init__(self, bars: Progress, visible: bool) -> None:
        self.bars, self.teller = bars, teller()
        self.of_run: dict[str, TaskID] = {}
        self.first: TaskID | None = bars.add_task("", total=None, note="", visible=visible)  # until there is another
        self.jobs = 0

    def progress(self, name: str, what: str, done: int, total: int, note: str) -> None:
        """See `Watch`; so below."""
        if self.first is not None:
            self.bars.remove_task(self.first)
            self.first = None
        if name not in self.of_run:
            self.of_run[name] = self.bars.add_task(name, total=total, note=note)
        self.bars.update(self.of_run[name], description=f"{name}: {what}", completed=done, total=total, note=note)
        if self.teller is not None:
            self.teller.progress(name, what, done, total, note)

    def _ended(self, name: str) -> None:
        if name in self.of_run:
            self.bars.remove_task(self.of_run.pop(name))

    def notice(self, name: str, message: str) -> None:
        if self.teller is not None:
            self.teller.notice(name, message)
        self.bars.console.print(f"{name}: {message}", style="yellow", soft_wrap=True)

    def submitted(self, name: str, job: str) -> None:
        self.jobs += 1
        self.bars.console.print(f"{name}: {job}", soft_wrap=True)

    def done(self, name: str, record: RunRecord, seconds: float) -> None:
        self._ended(name)
        test = record.finished.metrics.test
        numbers = f"AUC {shown(test.auc)}, HM {shown(test.best_hm)}"
        why = f" (test: {test.undefined.get('auc', '')})" if math.isnan(test.auc) else ""
        self.bars.console.print(f"{name}: {numbers}{why}, {seconds:.0f} s", soft_wrap=True)

    def failed(self, name: str, message: str) -> None:
        self._ended(name)
        err.print(Text.assemble((f"{name} failed.", "red"), f" {message}"), soft_wrap=True)

    def left_out(self, name: str, message: str) -> None:
        self._ended(name)
        err.print(Text.assemble((f"{name} is left out.", "yellow"), f" {message}"), soft_wrap=True)

    def stopped(self, name: str, stop: stopping.Stopped | None) -> None:
        if stop is None:
            err.print(f"Stopped at once in {name}. The same command goes on from what was saved last.")
            return
        err.print(f"Stopped by {stop.word} in {name}{stop.where}. Nothing is lost; go on with:", soft_wrap=True)
        err.print(stopping.resume_command(sys.argv), soft_wrap=True)
