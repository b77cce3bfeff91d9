"""The figures of docs/results.md, with the intervals of its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import figures, style, uncertainty
from benchmarks.report.convergence import convergence
from benchmarks.report.figures import Change
from benchmarks.report.groups import Row, paired_differences, test_metric
from benchmarks.report.scored_runs import read_scored
from benchmarks.report.table_model import Table
from benchmarks.studies.reference import spending
from benchmarks.studies.reference.material import Results
from benchmarks.studies.reference.spending import Spent

OWN = ("ablations-*.svg", "auc-*.svg", "convergence-*.svg", "seen-unseen-*.svg", "spending-*.svg")


def of_the_page(folder: Path) -> list[Path]:
    """Return the figures in a folder that are the page's, whichever records they were made of."""
    return sorted(path for pattern in OWN for path in folder.glob(pattern))


def draw(
    folder: Path,
    closed: Results,
    open_: Results | None,
    closed_main: Table,
    ablated: Mapping[str, Table],
    spent: Sequence[Spent],
) -> list[Path]:
    """Draw the figures of the page as SVG; intervals are those of its tables. Those of other records are removed."""
    looks = style.styles(closed.group.full)
    plans: dict[str, Callable[[], Any]] = {}
    for name, results in (("closed", closed), ("open", open_)):
        if results is None:
            continue
        plans[f"seen-unseen-{name}"] = partial(_curves, results, looks)
    if spent:
        plans["convergence-closed"] = partial(convergence, [one.curves for one in spent], looks)
        plans["spending-closed"] = partial(spending.figure, spent, spending.untrained(closed.group.full), looks)
    place = [column.name for column in closed_main.columns].index("AUC")
    intervals = {row[0].text: interval for row in closed_main.rows if (interval := row[place].interval) is not None}
    plans["auc-closed"] = lambda: figures.auc_of_runs(closed.group.full, looks, intervals)
    for method, table in ablated.items():
        full = next(row for row in closed.group.full if row.method == method)
        found = changes_of(table, full, closed.group.switches(full))
        plans[f"ablations-{method}"] = partial(figures.ablation_bars, method, found)
    made = [path for name, plan in plans.items() for path in style.save(plan(), folder / name, (".svg",))]
    for path in of_the_page(folder):
        if path not in made:
            path.unlink()
    return made


def _curves(results: Results, looks: dict[str, style.Style]) -> Any:
    runs = [(row.label, [read_scored(run) for run in row.done]) for row in results.group.full]
    return figures.seen_unseen(uncertainty.curve_lines(runs, looks))


def changes_of(table: Table, full: Row, switches: Sequence[Row]) -> list[Change]:
    """Return what a figure of ablations shows, with the intervals of their table."""
    read = test_metric("auc")
    cells = {row[0].text: row[3] for row in table.rows[1:]}
    return [
        Change(name, cells[name].value or 0.0, paired_differences(full, row, read), cells[name].interval)
        for row in switches
        if (name := str(row.ablation)) in cells and cells[name].value is not None
    ]
