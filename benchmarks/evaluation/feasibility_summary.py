"""What feasibility scores say about the unseen pairs of a data set: their spread, and what thresholds would keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.evaluation.thresholds import feasibility_grid, feasibility_of, kept
from datasets.base import CompositionDataset

EXAMPLES = 4  # pairs named at each end


@dataclass(frozen=True)
class Kept:
    """What a threshold leaves. place: its index in the grid, None beside it. unseen: of all unseen pairs; val, test: of
    the unseen pairs of the phase's list."""

    place: int | None
    threshold: float
    unseen: int
    val: int
    test: int


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores of the unseen pairs at a glance.

    quantiles: smallest, quartiles, largest. not_positive: grid thresholds of 0 or less. auroc: of a phase's own unseen
    pairs ("val", "test") against the pairs of no list, NaN if there are none of either; 1/2 is chance. highest, lowest:
    (state, object, score) of the first and last few pairs. kept: a row per threshold asked for.
    """

    quantiles: tuple[float, ...]
    not_positive: int
    auroc: dict[str, float]
    highest: Sequence[tuple[str, str, float]]
    lowest: Sequence[tuple[str, str, float]]
    kept: Sequence[Kept]


def summarise(dataset: CompositionDataset, table: np.ndarray, places: Sequence[int], *thresholds: float) -> Summary:
    """Return what scores say: at some places of the threshold grid, and at thresholds beside it.

    A data set without unseen pairs raises ValueError.
    """
    candidates = replace(dataset, feasibility=table).candidates("val", "open")
    grid = feasibility_grid(candidates)
    unseen = ~candidates.seen
    own = {phase: _listed(dataset, phase) & ~dataset.seen for phase in ("val", "test")}
    own = {phase: pairs[candidates.states, candidates.objects] for phase, pairs in own.items()}
    rest = unseen & ~own["val"] & ~own["test"]
    scores = feasibility_of(candidates)

    def row(place: int | None, threshold: float) -> Kept:
        keep = kept(candidates, threshold) & unseen
        return Kept(place, float(threshold), *(int((keep & group).sum()) for group in (unseen, *own.values())))

    order = np.flatnonzero(unseen)[np.argsort(scores[unseen], kind="stable")]

    def named(columns: np.ndarray) -> list[tuple[str, str, float]]:
        pairs = candidates.subset(columns).names()
        return [(*pair, float(score)) for pair, score in zip(pairs, scores[columns], strict=True)]

    return Summary(
        quantiles=tuple(float(value) for value in np.quantile(scores[unseen], [0, 0.25, 0.5, 0.75, 1])),
        not_positive=int((grid <= 0).sum()),
        auroc={phase: _auroc(scores[pairs], scores[rest]) for phase, pairs in own.items()},
        highest=named(order[: -1 - EXAMPLES : -1]),
        lowest=named(order[:EXAMPLES]),
        kept=[row(place, grid[place]) for place in places] + [row(None, threshold) for threshold in thresholds],
    )


def _listed(dataset: CompositionDataset, phase: str) -> np.ndarray:
    table = np.zeros_like(dataset.seen)
    pairs = dataset.vocabulary.indices(dataset.val_pairs if phase == "val" else dataset.test_pairs)
    table[pairs[:, 0], pairs[:, 1]] = True
    return table


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    return float(mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative)))
