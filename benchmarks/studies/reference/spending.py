"""AUC against what training costs: after each epoch the best validation AUC so far, against seconds and against FLOPs.

Equal epochs are not equal time. So each method is a curve and not a point: it says what one would have had by stopping
anywhere, and who leads at the budget that a reader has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.report.cells import mean_of
from benchmarks.report.convergence import Curves, curves_of
from benchmarks.report.groups import Row
from benchmarks.report.style import WIDTH, Style, new, words
from benchmarks.report.table_model import Cell, Column, Table, ranked
from benchmarks.runs import files
from benchmarks.runs.records import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.cost.record import Flops

COUNTED = "flops.json"
"""Beside the archives: FLOPs of an epoch by method, so that pages do not depend on the release of torch that counts."""

Cost = Literal["seconds", "flops"]
WORDS: Mapping[Cost, str] = {"seconds": "training time (s)", "flops": "training FLOPs"}


@dataclass(frozen=True, eq=False)
class Spent:
    """A method's curves and what an epoch took.

    curves: validation AUC by seed and epoch.
    seconds: float64 [epochs], of training up to the end of each epoch, the median over seeds.
    flops: float64 [epochs], likewise, counted and not measured.
    """

    curves: Curves
    seconds: np.ndarray
    flops: np.ndarray

    def along(self, cost: Cost) -> np.ndarray:
        """Return what was spent after each epoch, float64 [epochs]."""
        return self.seconds if cost == "seconds" else self.flops

    def within(self, cost: Cost, budget: float) -> list[float]:
        """Return the best validation AUC that each seed had reached within a budget; none before the first epoch."""
        # What is equal but for rounding is within it: a budget is as a rule what some method spent.
        done = int((self.along(cost) <= budget * (1 + 1e-9)).sum())
        return [] if done == 0 else self.curves.best_so_far[:, done - 1].tolist()


def epoch_flops(method: str, *, features_kept: bool) -> float:
    """Count the FLOPs of an epoch of a method's training on icon_states with the embedded CLIP.

    features_kept: the image tower of a method that leaves it frozen is computed once and not in every step.
    """
    from benchmarks.cost.counting import count
    from benchmarks.cost.labels import label_space
    from benchmarks.cost.record import Settings

    labels = label_space("icon_states")
    row = count(method, Settings(methods=(method,), backbone="tiny-icons", labels="icon_states", batch=0), labels)
    assert row.flops is not None
    return _of_epoch(row.flops, row.batch, labels.train_images, features_kept)


def _of_epoch(flops: Flops, batch: int, images: int, features_kept: bool) -> float:
    step = flops.train_step - (flops.train_parts.get("vision", 0) if features_kept else 0)
    return step / batch * images


def counted(folder: Path, rows: Sequence[Row]) -> dict[str, float]:
    """Return the FLOPs of an epoch by method, as kept beside the archives; what is missing is counted and kept."""
    path = folder / COUNTED
    known: dict[str, float] = files.read_json(path) if path.is_file() else {}
    lacking = {row.method: row.done[0] for row in rows if row.done and row.trains and row.method not in known}
    if lacking:
        known |= {method: epoch_flops(method, features_kept=_kept(run)) for method, run in lacking.items()}
        files.write_json(path, dict(sorted(known.items())))
    return known


def _kept(run: RunRecord) -> bool:
    return "train" in (run.finished.cost.feature_cache or ())


def spent_of(rows: Sequence[Row], flops: Mapping[str, float]) -> list[Spent]:
    """Return what the rows spent, of those that were trained and whose epochs are known."""
    found = []
    for row in rows:
        curves = curves_of(row)
        if curves is not None and row.method in flops:
            epochs = np.arange(1, curves.epochs + 1)
            found.append(Spent(curves, np.median(curves.seconds, axis=0), epochs * flops[row.method]))
    return found


def untrained(rows: Sequence[Row]) -> dict[str, float]:
    """Return the validation AUC of rows that train nothing, by label: it costs nothing."""
    found = {}
    for row in rows:
        val = row.done[0].finished.metrics.val if row.done and not row.trains else None
        if val is not None:
            found[row.label] = float(val.auc)
    return found


def budgets(found: Sequence[Spent], cost: Cost) -> list[float]:
    """Return three budgets: what the whole training of the cheapest method takes, of the dearest, and between them."""
    whole = sorted(float(one.along(cost)[-1]) for one in found)
    return [whole[0], float(np.sqrt(whole[0] * whole[-1])), whole[-1]]


def spending_table(found: Sequence[Spent], conditions: str) -> Table:
    """Return the best validation AUC that each method reached at equal time and at equal FLOPs."""
    columns = [Column("method"), Column("s / epoch", percent=False), Column("GFLOP / epoch", percent=False, digits=0)]
    lines = [
        [Cell(text=one.curves.label), Cell(float(one.seconds[-1]) / one.curves.epochs), Cell(float(one.flops[0]) / 1e9)]
        for one in found
    ]
    costs: tuple[Cost, ...] = ("seconds", "flops")
    for cost in costs:
        for budget in budgets(found, cost):
            column = Column(_budget(cost, budget))
            columns.append(column)
            cells = ranked([mean_of(one.within(cost, budget)) for one in found], column)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
    text = (
        "Best validation AUC reached within a budget of training, percent, mean ± standard deviation over seeds; the "
        "test AUC is known for the selected epoch alone. Budgets: what the whole training of the cheapest method took, "
        "of the dearest, and their geometric mean. A method that is done earlier keeps what it has; – has not finished "
        f"an epoch by then. {conditions}"
    )
    return Table("At equal time and at equal FLOPs", text, columns, lines)


def _budget(cost: Cost, budget: float) -> str:
    return f"{budget:,.0f} s" if cost == "seconds" else f"{budget / 1e12:.3g} TFLOP"


def figure(found: Sequence[Spent], zero: Mapping[str, float], looks: Mapping[str, Style]) -> Figure:
    """Draw the best validation AUC so far against training time (above) and FLOPs (below), mean and spread over seeds.

    zero: AUC of methods that train nothing, as level lines.
    """
    made, axes = new(2.25 * WIDTH, nrows=2)
    costs: tuple[Cost, ...] = ("seconds", "flops")
    for panel, cost in zip(axes, costs, strict=True):
        for one in found:
            style, along = looks[one.curves.label], one.along(cost)
            reached = one.curves.best_so_far * 100
            mean = reached.mean(axis=0)
            spread = reached.std(axis=0, ddof=1) if len(reached) > 1 else np.zeros(len(mean))
            panel.fill_between(along, mean - spread, mean + spread, color=style.colour, alpha=0.12, linewidth=0)
            panel.plot(
                along, mean, style.marker, color=style.colour, linestyle=style.line, linewidth=1.1, markersize=4,
                markeredgewidth=0, label=words(one.curves.label),
            )  # fmt: skip
        for label, value in zero.items():
            style = looks[label]
            panel.axhline(value * 100, color=style.colour, linestyle=style.line, linewidth=0.9, label=words(label))
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda value, _, cost=cost: _tick(cost, value))
        panel.xaxis.set_minor_formatter(lambda value, _: "")
        panel.set(xlabel=WORDS[cost] + (" (TFLOP)" if cost == "flops" else ""), ylabel="best val AUC so far (%)")
        panel.grid(linewidth=0.3)
        panel.set_axisbelow(True)
    made.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    return made


def _tick(cost: Cost, value: float) -> str:
    return f"{value:,.0f}" if cost == "seconds" else f"{value / 1e12:g}"


def conditions(runs: Sequence[RunRecord]) -> str:
    """Say what the times and the FLOPs of some runs are worth."""
    environments: list[Mapping[str, Any]] = [start["environment"] for run in runs for start in run.starts]
    # An accelerator's times do not depend on the threads of its host.
    devices = sorted({str(gpu) for one in environments if (gpu := one.get("gpu"))})
    plain = [one for one in environments if not one.get("gpu")]
    if plain:
        threads = sorted({str(one.get("threads", "?")) for one in plain})
        processors = sorted({str(one.get("cpu", {}).get("name", "?")) for one in plain})
        devices.append(f"{' or '.join(processors)} with {' or '.join(threads)} thread{'s' * (threads != ['1'])}")
    return (
        f"Time: of training without validation, on {' or '.join(devices)}, "
        "other work beside it unless the records' page says otherwise, the median "
        "over seeds; FLOPs: counted (docs/profile.md), which no machine changes. Both without validation, and without "
        "making frozen image features once for the methods that keep them."
    )
