"""What a method costs: numbers trained, time, throughput, memory."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.captions import caption
from benchmarks.report.cells import LABELS, Metric, lines
from benchmarks.report.groups import Reader, Row
from benchmarks.report.table_model import Column, Table
from benchmarks.runs.records import RunRecord
from errors import counted


def _cost(name: str, unit: float = 1.0) -> Reader:
    def read(run: RunRecord) -> float | None:
        value = getattr(run.finished.cost, name)
        return None if value is None else value / unit

    return read


def _plain(name: str, digits: int = 0) -> Column:
    return Column(name, percent=False, digits=digits, larger_is_better=None)


COST: tuple[Metric, ...] = (
    (_plain("parameters"), _cost("trained_parameters")),
    (_plain("train min", 2), _cost("train_seconds", 60)),
    (_plain("train img/s"), _cost("train_images_per_second")),
    (_plain("test img/s"), _cost("test_images_per_second")),
    (_plain("peak MB"), _cost("peak_memory_bytes", 1e6)),
)


def cost_table(rows: Sequence[Row]) -> Table:
    """Return the cost of each row, means over seeds."""
    runs = [run for row in rows for run in row.runs]
    devices = sorted({device(run) for run in runs if run.result is not None})
    several = ["Not all runs were made on one device, so times and memory do not compare."] if len(devices) > 1 else []
    text = (
        f"On {', '.join(devices) or 'no device yet'}; means over seeds. Parameters: numbers trained; training without "
        "validation; test images with their features in memory where a method's may be; peak memory of the "
        "accelerator, or on the CPU of the whole process up to then. "
    )
    heads = [*LABELS, *(column for column, _ in COST)]
    return Table("Cost", text + caption(runs, spread=False), heads, lines(rows, COST), several)


def device(run: RunRecord) -> str:
    """Return what a run was made on: the accelerator's name, or the processor's with the threads used."""
    environment = run.environment
    kind = str(environment.get("device", "?"))
    if gpu := environment.get("gpu"):
        return f"{kind} ({gpu})"
    name = (environment.get("cpu") or {}).get("name")
    threads = environment.get("threads")
    return kind + (f" ({name}, {counted(int(threads), 'thread')})" if name and threads else "")
