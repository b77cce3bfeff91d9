"""Is a method better than another on one kind of images, and more so than on the other kind? AUC inside slices.

A method may be better on all images and no better where it claims to be. So there are two questions: the difference
inside a slice, and the difference of two such differences. Both come from the same resamples of the whole test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.report.captions import caption
from benchmarks.report.cells import number
from benchmarks.report.evidence import TESTED, Question
from benchmarks.report.groups import Row
from benchmarks.report.scored_runs import scored_run
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs.records import RunFolder
from benchmarks.significance import (
    Estimate,
    Resampled,
    Reweighting,
    ScoredRun,
    Units,
    difference,
    draws,
    holm,
    over_seeds,
)
from errors import counted

SEED = 0
"""Of the resamples, as in `significance.compare`."""


@dataclass(frozen=True, eq=False)
class SliceTest:
    """A method against the baseline: inside each of two slices, and the first difference less the second.

    adjusted: p-values after Holm over all methods and all three.
    """

    label: str
    parts: tuple[Estimate, Estimate, Estimate]
    adjusted: tuple[float, ...] = ()


def slice_tests(
    rows: Sequence[Row], baseline: Row, tag: str, values: tuple[str, str], question: Question
) -> list[SliceTest]:
    """Compare each row's AUC with the baseline's on the images tagged `values`, on the seeds that both have.

    A row that shares fewer than two seeds with the baseline is left out: its difference would be one over images alone.
    """
    runs = {row.label: {run.spec.seed: run for run in row.done} for row in (baseline, *rows)}
    tags = RunFolder(baseline.done[0].path).read_arrays()[f"test.tag.{tag}"]
    masks = [tags == value for value in values]
    resampled = {
        label: {seed: _resampled(scored_run(run), masks, question.resamples) for seed, run in own.items()}
        for label, own in runs.items()
    }
    found = []
    for row in rows:
        shared = sorted(resampled[row.label].keys() & resampled[baseline.label].keys())
        if row is baseline or len(shared) < 2:
            continue
        pairs = [(resampled[row.label][seed], resampled[baseline.label][seed]) for seed in shared]
        first, second = ([ours[side] - theirs[side] for ours, theirs in pairs] for side in (0, 1))
        third = [one - other for one, other in zip(first, second, strict=True)]
        parts = [
            difference(over_seeds(own, shared, seed=SEED), question.level)[TESTED] for own in (first, second, third)
        ]
        found.append(SliceTest(row.label, (parts[0], parts[1], parts[2])))
    p_values = np.array([part.p_value for test in found for part in test.parts], dtype=np.float64)
    adjusted = holm(p_values).reshape(-1, 3).tolist() if found else []
    return [replace(test, adjusted=tuple(own)) for test, own in zip(found, adjusted, strict=True)]


def _resampled(run: ScoredRun, masks: Sequence[np.ndarray], resamples: int) -> tuple[Resampled, ...]:
    """Return a run's AUC in each slice under resamples of the whole test set, the same for every run of it."""
    parts = [ScoredRun(run.scores.subset(mask), run.labels.subset(mask), run.bias, run.seed) for mask in masks]
    weighted = [Reweighting(part, (TESTED,), Units.images(part.scores)) for part in parts]
    blocks: list[list[np.ndarray]] = [[] for _ in masks]
    for weights in draws(run.scores.is_seen, resamples, SEED, "images"):
        for block, one, mask in zip(blocks, weighted, masks, strict=True):
            block.append(one.weighted(weights[mask]))
    return tuple(
        Resampled((TESTED,), one.estimate(), np.concatenate(block, axis=1), np.zeros((1, 0)), one.units)
        for one, block in zip(weighted, blocks, strict=True)
    )


def comparisons(tests: Sequence[SliceTest]) -> int:
    """Return how many differences have a p-value, which is the family of Holm's adjustment."""
    return sum(not np.isnan(adjusted) for test in tests for adjusted in test.adjusted)


def slice_table(
    tests: Sequence[SliceTest], baseline: Row, tag: str, values: tuple[str, str], question: Question
) -> Table:
    """Return the differences as a table, with a p-value behind each."""
    heads = (*values, f"{values[0]} less {values[1]}")
    columns = [Column("method")]
    for head in heads:
        columns += [Column(head, signed=True), Column("p Holm", percent=False, p_value=True, exact=False)]
    lines = []
    for test in tests:
        line = [Cell(text=test.label)]
        for part, adjusted in zip(test.parts, test.adjusted, strict=True):
            change = replace(number(part.value), interval=part.percentile.ends, mark=question.mark(adjusted))
            line += [change, number(adjusted)]
        lines.append(line)
    text = (
        f"AUC on the test images of each slice, of each method less that of {baseline.label}, in points; last: the "
        f"first difference less the second. {caption(baseline.done, spread=False)} Intervals: {100 * question.level:g} "
        f"%, bootstrap of {question.resamples:,} resamples over seeds and test images; p Holm: two-sided, adjusted for "
        f"the {counted(comparisons(tests), 'comparison')} of this table; *: p Holm at most {1 - question.level:.2g}."
    )
    return Table(f"Differences by {tag}", text, columns, lines)
