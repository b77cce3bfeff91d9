"""Did training go on until it stopped helping? Validation AUC by epoch: curves, late gains, who is unfinished.

A table of test numbers cannot tell a weak method from one that was stopped early. The curves of `epochs.jsonl` can:
where the best epoch is the last, nobody knows what a further one would have brought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.budgets import budget_notes
from benchmarks.report.captions import caption
from benchmarks.report.groups import Row
from benchmarks.report.style import WIDTH, Style, new, words
from benchmarks.report.table_model import GAP, Cell, Column, Table
from benchmarks.runs.records import RunRecord
from benchmarks.significance import mean_over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST_SHARE = 1 / 2
"""A method is unfinished where the last epoch is the best for at least this share of its seeds."""

RISING = 0.005
"""Or where the last third of the epochs gained more than this on the mean, with the whole interval above 0."""


@dataclass(frozen=True, eq=False)
class Curves:
    """The validation AUC of a row's runs after each epoch.

    seeds: of the runs, in order.
    values: float64 [seeds, epochs], fractions.
    seconds: float64 [seeds, epochs], of training up to the end of each epoch, without validation.
    """

    label: str
    seeds: tuple[int, ...]
    values: np.ndarray
    seconds: np.ndarray

    @property
    def epochs(self) -> int:
        """How many there are."""
        return int(self.values.shape[1])

    @property
    def best(self) -> np.ndarray:
        """The best epoch of each seed, from 1, the earliest on ties; int64 [seeds]."""
        return np.argmax(self.values, axis=1) + 1

    @property
    def best_so_far(self) -> np.ndarray:
        """What selection by validation would give if training stopped after each epoch, float64 [seeds, epochs]."""
        return np.maximum.accumulate(self.values, axis=1)

    @property
    def at_last(self) -> int:
        """For how many seeds the last epoch is the best."""
        return int((self.best == self.epochs).sum())

    @property
    def gains(self) -> np.ndarray:
        """By seed, the best of the last third of the epochs less the best before it, float64 [seeds].

        Negative where the last third was in vain. A third of the epochs is rounded down; empty for fewer than three.
        """
        third = self.epochs // 3
        if third == 0:
            return np.zeros(0)
        return self.values[:, -third:].max(axis=1) - self.values[:, :-third].max(axis=1)

    @property
    def is_unfinished(self) -> bool:
        """Whether more epochs might have helped, see `LAST_SHARE` and `RISING`."""
        if self.at_last >= LAST_SHARE * len(self.seeds):
            return True
        return mean_over_seeds(self.gains).low > 0 and float(self.gains.mean()) > RISING


def curves_of(row: Row) -> Curves | None:
    """Return a row's curves; None where nothing was trained here or validation defines no AUC.

    Runs of which an epoch is missing are left out: a record of another release may have kept none.
    """
    found = [(run, [_auc(epoch) for epoch in run.epochs]) for run in row.done if _trained_here(run)]
    kept = [(run, own) for run, own in found if len(own) == run.spec.training.epochs and not np.isnan(own).any()]
    if not kept:
        return None
    kept.sort(key=lambda item: item[0].spec.seed)
    seconds = [np.cumsum([float(epoch.get("train_seconds", np.nan)) for epoch in run.epochs]) for run, _ in kept]
    seeds = tuple(run.spec.seed for run, _ in kept)
    return Curves(row.label, seeds, np.array([own for _, own in kept]), np.array(seconds))


def _trained_here(run: RunRecord) -> bool:
    return run.spec.training.epochs > 0 and run.spec.imported is None and run.spec.external is None


def _auc(epoch: Mapping[str, object]) -> float:
    found = epoch.get("val")
    value = found.get("auc") if isinstance(found, Mapping) else None
    return float(value) if isinstance(value, int | float) else np.nan


COLUMNS = (
    Column("method"),
    Column("seeds"),
    Column("epochs"),
    Column("best epoch, by seed"),
    Column("best val AUC"),
    Column("gain of the last third", signed=True, larger_is_better=None),
    Column("last is best"),
    Column("state"),
)


def convergence_table(rows: Sequence[Row]) -> Table | None:
    """Return who stopped getting better and who did not; None where nothing was trained."""
    found = [(row, curves) for row in rows if (curves := curves_of(row)) is not None]
    if not found:
        return None
    runs = [run for row, _ in found for run in row.done]
    text = (
        f"Validation AUC by epoch, percent. {caption(runs)} Epochs count from 1; the best one is what selection takes, "
        "the earliest on ties. Gain of the last third of the epochs (a third, rounded down): their best less the best "
        "before them, in points, mean over seeds [95 % interval over seeds, Student's t]; negative where they were in "
        "vain. last is best: for how many seeds. unfinished: the last epoch is the best for at least "
        f"{LAST_SHARE:.0%} of the seeds, or the last third gained more than {100 * RISING:g} points with its interval "
        "above 0; such a method might be better with more epochs, and its rank is not known."
    )
    return Table("Convergence", text, COLUMNS, [_line(curves) for _, curves in found], budget_notes(runs))


def _line(curves: Curves) -> list[Cell]:
    best = curves.values.max(axis=1)
    spread = float(best.std(ddof=1)) if len(best) > 1 else None
    gains = curves.gains
    gain = Cell(text=GAP) if len(gains) == 0 else Cell(float(gains.mean()), interval=mean_over_seeds(gains).ends)
    return [
        Cell(text=curves.label),
        Cell(text=str(len(curves.seeds))),
        Cell(text=str(curves.epochs)),
        Cell(text=", ".join(map(str, curves.best))),
        Cell(float(best.mean()), spread),
        gain,
        Cell(text=f"{curves.at_last}/{len(curves.seeds)}"),
        Cell(text="unfinished" if curves.is_unfinished else "finished"),
    ]


def convergence(found: Sequence[Curves], looks: Mapping[str, Style]) -> Figure:
    """Draw the validation AUC after each epoch: mean over seeds, band of one standard deviation, ring at the best mean.

    Below, the same around the best means, so that plateaus can be told from slopes.
    """
    figure, (whole, near) = new(1.9 * WIDTH, nrows=2, sharex=True)
    for curves in found:
        style = looks[curves.label]
        epochs = np.arange(1, curves.epochs + 1)
        mean = curves.values.mean(axis=0) * 100
        spread = curves.values.std(axis=0, ddof=1) * 100 if len(curves.seeds) > 1 else np.zeros(curves.epochs)
        for axes in (whole, near):
            axes.fill_between(epochs, mean - spread, mean + spread, color=style.colour, alpha=0.12, linewidth=0)
            axes.plot(
                epochs, mean, style.marker, color=style.colour, linestyle=style.line, linewidth=1.1, markersize=4,
                markeredgewidth=0, label=words(curves.label),
            )  # fmt: skip
            top = int(mean.argmax())
            axes.plot(epochs[top], mean[top], "o", color=style.colour, markerfacecolor="none", markersize=8)
    ends = np.array([curves.values.mean(axis=0).max() for curves in found]) * 100
    good = ends[ends > 0.8 * ends.max()]
    near.set_ylim(good.min() - 4, ends.max() + 2)
    for axes in (whole, near):
        axes.set_ylabel("validation AUC (%)")
        axes.grid(linewidth=0.3)
        axes.set_axisbelow(True)
    near.set_title("the same, enlarged", loc="left", fontsize="small")
    near.set_xlabel("epoch")
    near.xaxis.get_major_locator().set_params(integer=True)
    whole.legend(fontsize="small", frameon=False, loc="best")
    return figure
