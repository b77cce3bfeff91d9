"""The tables of AUC and U by the share of pairs that training shows, and what stands with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report.budgets import budget_notes, epochs_text
from benchmarks.report.captions import test_split
from benchmarks.report.machines import mixture_notes
from benchmarks.report.scaling import STATISTICS, Point, Scaled
from benchmarks.report.table_model import GAP, Cell, Column, Table, ranked
from benchmarks.significance import mean_over_seeds

TITLE = "Share of seen pairs"

SAID = {
    "auc": "With fewer seen pairs there are fewer candidates, too; CLIP zero-shot, which learns nothing, shows what "
    "that alone does.",
    "best_unseen": "U is the accuracy on images of unseen pairs when seen ones are forbidden: the same images and "
    "candidates at every share.",
}


def scaling_tables(found: Scaled) -> list[Table]:
    """Return a table for each statistic: methods (rows) by share (columns), and what the largest share adds."""
    return [_table(found, statistic, words.partition(" ")[0]) for statistic, words in STATISTICS.items()]


def _table(found: Scaled, statistic: str, name: str) -> Table:
    family, level = found.family, found.question.level
    shares = list(family.groups)
    lines = found.lines[statistic]
    columns = [Column(f"{share:.2g}") for share in shares]
    by_column = [
        ranked([_cell(points, share) for points in lines.values()], column)
        for share, column in zip(shares, columns, strict=True)
    ]
    gains = [_gain(points, shares, level) for points in lines.values()]
    rows = [
        [Cell(text=label), Cell(text=_seeds(points)), *cells, gain]
        for (label, points), *cells, gain in zip(lines.items(), *by_column, gains, strict=True)
    ]
    runs = [run for group in family.groups.values() for run in group.runs]
    what = "; ".join(part for part in (family.name, epochs_text(runs).removesuffix("; ")) if part)
    text = (
        f"Mean {name} over seeds [{100 * level:g} % interval over seeds and test images, over images alone where there "
        f"is one run] at each share of all pairs that training shows; {what}. "
        f"{test_split(runs)} {SAID[statistic]} gain: of the largest share over the smallest, each seed beside itself "
        f"[Student's {100 * level:g} % interval over seeds]."
    )
    return Table(
        f"{TITLE}: {name}",
        text,
        [Column("method"), Column("seeds"), *columns, Column("gain", signed=True, larger_is_better=None)],
        rows,
        [*budget_notes(runs), *mixture_notes(runs)],
    )


def _cell(points: Sequence[Point], share: float) -> Cell:
    point = next((point for point in points if point.share == share), None)
    if point is None:
        return Cell(text=GAP)
    return Cell(point.value, interval=None if np.isnan(point.low) else (point.low, point.high))


def _gain(points: Sequence[Point], shares: Sequence[float], level: float) -> Cell:
    """Return what the largest of all shares adds to the smallest, over the seeds that have both."""
    by_share = {point.share: point.by_seed for point in points}
    here, there = by_share.get(shares[-1], {}), by_share.get(shares[0], {})
    differences = [here[seed] - there[seed] for seed in sorted(here.keys() & there.keys())]
    if not differences:
        return Cell(text=GAP)
    return Cell(float(np.mean(differences)), interval=mean_over_seeds(differences, level).ends)


def _seeds(points: Sequence[Point]) -> str:
    """Return a method's number of seeds, one for all shares where they agree."""
    counts = [len(point.by_seed) for point in points]
    return str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts))
