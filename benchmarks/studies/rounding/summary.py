"""What the repeats say: how far the results of one seed lie apart, and whether the choice of the epoch is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report.table_model import GAP, Cell, Column, Table
from benchmarks.runs.records import RunRecord, find_runs
from benchmarks.significance import pooled_variance
from benchmarks.studies.rounding.variants import VARIANTS
from errors import UserError
from registry import METHODS

STATISTICS = ("auc", "best_hm")


@dataclass(frozen=True, eq=False)
class Spread:
    """How far the repeats of a method lie apart. Fractions; deviations are pooled inside seeds.

    repeats: how many there are of each seed; an instruction set that changes nothing is none.
    deviations: of the test statistics, by name.
    least, most: of the test AUC.
    curve: deviations of the validation AUC after each epoch, where nothing is selected.
    epochs: the selected epochs, from 1.
    """

    method: str
    repeats: Mapping[int, int]
    deviations: Mapping[str, float]
    least: float
    most: float
    curve: tuple[float, ...]
    epochs: tuple[int, ...]


def read(results: Path) -> dict[str, dict[int, dict[str, RunRecord]]]:
    """Return the finished runs of the variants' folders by method, seed and variant."""
    found: dict[str, dict[int, dict[str, RunRecord]]] = {}
    for variant in VARIANTS:
        if (results / variant).is_dir():
            for run in find_runs(results / variant)[0]:
                if run.result is None:
                    continue
                own = found.setdefault(run.spec.method, {}).setdefault(run.spec.seed, {})
                if variant in own:
                    raise UserError(
                        f"'{results / variant}' has two runs of {run.spec.method} with seed {run.spec.seed}.",
                        "They differ in their settings, so they are no repeats of each other.",
                        "Give each setting a folder of its own.",
                    )
                own[variant] = run
    if not found:
        raise UserError(
            f"There is nothing to summarise in '{results}'.",
            "It holds no finished runs of a variant.",
            "Run 'python -m benchmarks.studies.rounding run' first.",
        )
    return found


def distinct(runs: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Return the runs of a seed without those that were made as the plain one was: every epoch is equal to its.

    A run of which a number was moved counts in any case: that nothing came of it is a result.
    """
    plain = runs.get("plain")
    if plain is None:
        return list(runs.values())
    return [run for name, run in runs.items() if VARIANTS[name].moved or run is plain or _curve(run) != _curve(plain)]


def _curve(run: RunRecord) -> list[object]:
    return [(epoch.get("losses"), epoch.get("val")) for epoch in run.epochs]


def spread(method: str, seeds: Mapping[int, Mapping[str, RunRecord]]) -> Spread | None:
    """Return how far a method's repeats lie apart; None where no seed has two."""
    kept = {seed: own for seed, runs in seeds.items() if len(own := distinct(runs)) > 1}
    if not kept:
        return None

    def pooled(read_one: Mapping[int, Sequence[float]]) -> float:
        return float(np.sqrt(pooled_variance(read_one) or 0.0))

    tests = {
        name: {seed: [getattr(run.finished.metrics.test, name) for run in own] for seed, own in kept.items()}
        for name in STATISTICS
    }
    curves = {seed: [[epoch["val"]["auc"] for epoch in run.epochs] for run in own] for seed, own in kept.items()}
    length = min(len(curve) for own in curves.values() for curve in own)
    every = [value for values in tests["auc"].values() for value in values]
    epochs = [run.finished.selection.epoch for own in kept.values() for run in own]
    return Spread(
        method,
        {seed: len(own) for seed, own in kept.items()},
        {name: pooled(values) for name, values in tests.items()},
        min(every),
        max(every),
        tuple(pooled({seed: [curve[at] for curve in own] for seed, own in curves.items()}) for at in range(length)),
        tuple(epoch + 1 for epoch in epochs if epoch is not None),
    )


def spreads(results: Path) -> list[Spread]:
    """Return the spread of every method below a folder that has repeats, in the order of the registry."""
    found = read(results)
    order = [name for name in METHODS.names() if name in found]
    return [one for name in order if (one := spread(name, found[name])) is not None]


def table(found: Sequence[Spread]) -> Table:
    """Return the spreads as a table."""
    titles = METHODS.titles()
    columns = [
        Column("method"),
        Column("runs"),
        Column("AUC ±", digits=2, larger_is_better=None),
        Column("least", digits=2, larger_is_better=None),
        Column("most", digits=2, larger_is_better=None),
        Column("HM ±", digits=2, larger_is_better=None),
        Column("last epoch ±", digits=2, larger_is_better=None),
        Column("epochs selected"),
    ]
    lines = [
        [
            Cell(text=titles[one.method]),
            Cell(text=str(sum(one.repeats.values()))),
            Cell(one.deviations["auc"]),
            Cell(one.least),
            Cell(one.most),
            Cell(one.deviations["best_hm"]),
            Cell(one.curve[-1] if one.curve else None),
            Cell(text=", ".join(map(str, one.epochs)) or GAP),
        ]
        for one in found
    ]
    text = (
        "The same seeds trained again with nothing changed but rounding: threads, instruction sets, one unit in the "
        "last place of an initial number. Percent; ±: standard deviation of a run inside a seed, pooled. AUC, HM: of "
        "test, at the epoch that validation selected; last epoch: of the validation AUC after the last one, where "
        "nothing is selected. Where the first is much larger than the last, selection among near-equal epochs makes it."
    )
    return Table("What rounding is worth", text, columns, lines)


def by_epoch(found: Sequence[Spread]) -> Table:
    """Return how far the repeats lie apart after each epoch: whether training or the choice of the epoch parts them."""
    titles = METHODS.titles()
    length = max((len(one.curve) for one in found), default=0)
    columns = [Column("method"), *(Column(str(at + 1), digits=2, larger_is_better=None) for at in range(length))]
    lines = [
        [Cell(text=titles[one.method]), *map(Cell, one.curve), *[Cell()] * (length - len(one.curve))] for one in found
    ]
    text = "Standard deviation of the validation AUC after each epoch, in points, of a run inside a seed, pooled."
    return Table("Rounding by epoch", text, columns, lines)


def content(found: Sequence[Spread]) -> dict[str, dict[str, float | int]]:
    """Return what the documents and intervals take: deviations by method, with the number of runs behind them."""
    return {one.method: {**one.deviations, "runs": sum(one.repeats.values())} for one in found}
