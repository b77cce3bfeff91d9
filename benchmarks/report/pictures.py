"""Which figures a group of comparable runs gets, with their captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.records import Problem
from benchmarks.report.page import Picture
from benchmarks.report.scored import Scored, read_scored
from benchmarks.report.tables import Group, Row
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(group: Group, folder: Path) -> tuple[list[Picture], list[Path], list[Problem]]:
    """Draw every figure of a group into `folder`; return pictures for the page, the files, and runs left out."""
    from benchmarks.report import figures

    scored, problems = _scored(group.full)
    with_results = [row for row in group.full if row.done]
    wanted: list[tuple[str, str, Callable[[], Figure]]] = []
    if scored:
        seeds = "a line for each seed; " if any(len(runs) > 1 for _, runs in scored) else ""
        wanted.append(
            (
                "seen-unseen",
                f"Seen-unseen curves: accuracy on seen pairs against accuracy on unseen pairs under every bias; {seeds}"
                "circle: best harmonic mean; cross: the bias chosen on validation.",
                lambda: figures.seen_unseen(scored),
            )
        )
        for kind in ("state", "object"):
            wanted.append(
                (
                    f"{kind}s",
                    f"How often the {kind} is right, in percent of the test images that have it (their number in "
                    "brackets), at the bias chosen on validation, seeds pooled.",
                    lambda kind=kind: figures.primitive_accuracy(scored, kind),
                )
            )
        best = max(scored, key=lambda item: max(run.curve.auc for run in item[1]))
        wanted.append(
            (
                "confusion",
                f"Which state {best[0]} (seed {best[1][0].run.spec.seed}) predicts for images of each state, percent "
                "of the row, at the bias chosen on validation; an empty cell is below a half.",
                lambda: figures.state_confusion(best[1][0]),
            )
        )
    if with_results:
        several = (
            "; bar: mean and standard deviation over seeds" if any(len(row.done) > 1 for row in group.full) else ""
        )
        wanted.append(
            ("auc", f"AUC on test, a point for each seed{several}.", lambda: figures.auc_of_runs(with_results))
        )
        wanted.append(
            (
                "cost",
                "AUC against training time; the larger a point, the more numbers are trained.",
                lambda: figures.cost(with_results),
            )
        )
    for row in with_results:
        if switches := [switch for switch in group.switches(row) if switch.done]:
            wanted.append(
                (
                    f"ablations-{row.method}",
                    f"What each switch changes in the AUC of {row.label}, in points; ticks: single seeds.",
                    lambda row=row, switches=switches: figures.ablation_bars(row, switches),
                )
            )
    pictures, written = [], []
    for name, caption, make in wanted:
        paths = figures.save(make(), folder / name)
        written += paths
        pictures.append(Picture(caption, next(path for path in paths if path.suffix == ".svg")))
    return pictures, written, problems


def _scored(rows: list[Row]) -> tuple[list[tuple[str, list[Scored]]], list[Problem]]:
    """Read the per-image records of the rows' finished runs; rows without any are left out."""
    found, problems = [], []
    for row in rows:
        runs = []
        for run in row.done:
            try:
                runs.append(read_scored(run))
            except (UserError, KeyError) as error:
                problems.append(Problem(run.path, f"Its figures are left out: {error}"))
        if runs:
            found.append((row.label, runs))
    return found, problems
