"""Intervals that figures draw, from the per-image records of runs; what has no record has no interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report.bands import Band, curve_band
from benchmarks.report.figures import Bounds, Change, CurveLine
from benchmarks.report.groups import Row
from benchmarks.report.scored_runs import Scored, scored_runs
from benchmarks.report.style import Style
from benchmarks.runs.records import RunRecord
from benchmarks.significance import RESAMPLES, Estimate, ScoredRun, check_same_images, compare
from errors import UserError

STEPS = 201  # accuracies on unseen images at which a curve is drawn, half a point apart


def curve_lines(groups: Sequence[tuple[str, Sequence[Scored]]], looks: dict[str, Style]) -> list[CurveLine]:
    """Return each labelled row's mean curve over seeds with its band over test images and operating points."""
    return [_curve_line(label, runs, looks[label]) for label, runs in groups]


def _curve_line(label: str, runs: Sequence[Scored], style: Style) -> CurveLine:
    band: Band = curve_band([run.scores for run in runs], np.linspace(0, 1, STEPS))
    best = np.mean([(run.curve.best_hm.unseen, run.curve.best_hm.seen) for run in runs], axis=0)
    chosen = np.mean([_at_bias(run) for run in runs], axis=0)
    point = None if np.isnan(chosen).any() else (float(chosen[0]), float(chosen[1]))
    return CurveLine(
        label, style, band, (float(best[0]), float(best[1])), point, float(np.mean([run.curve.auc for run in runs]))
    )


def _at_bias(run: Scored) -> tuple[float, float]:
    """Accuracy on unseen and on seen images at the bias chosen on validation; NaN where none was."""
    if np.isnan(run.bias):
        return np.nan, np.nan
    from benchmarks.evaluation.metrics import accuracies_at_bias

    found = accuracies_at_bias(run.scores, run.labels, run.bias)
    return found.unseen_pair, found.seen_pair


def auc_intervals(rows: Sequence[Row]) -> tuple[dict[str, Bounds], list[str]]:
    """Return the 95 % interval of each row's mean AUC by label, and the labels whose interval leaves seeds out.

    Over seeds and test images, over test images alone for rows with one run, see `significance.compare`.
    """
    runs: dict[str, list[ScoredRun]] = {}
    for row in rows:
        own = [run for run in _runs(row) if run.scores.is_seen.any() and not run.scores.is_seen.all()]
        if own and _on_images_of(own, runs):
            runs[row.label] = own
    if not runs:
        return {}, []
    found: dict[str, Bounds] = {}
    alone = []
    for label, method in compare(runs, None, ("auc",)).methods.items():
        sources = method.statistics["auc"].sources
        bounds = _bounds(sources.get("seeds and images") or sources["images"])
        if bounds is not None:
            found[label] = bounds
            alone += [label] if "seeds and images" not in sources else []
    return found, alone


def changes(full: Row, switches: Sequence[Row]) -> list[Change]:
    """Return what each switch changes in the AUC on the seeds that it shares with the full model.

    The interval is that of the paired difference, over seeds and test images (over images alone for a single seed).
    """
    reference = {run.spec.seed: auc for run in full.done if (auc := _auc(run)) is not None}
    found = []
    for row in switches:
        shared = {
            run.spec.seed: auc - reference[run.spec.seed]
            for run in row.done
            if run.spec.seed in reference and (auc := _auc(run)) is not None
        }
        if shared:
            per_seed = list(shared.values())
            interval = _difference(full, row, set(shared))
            found.append(Change(str(row.ablation), float(np.mean(per_seed)), per_seed, interval))
    return found


def _difference(full: Row, row: Row, seeds: set[int]) -> Bounds | None:
    kept = [
        Row(label, [run for run in one.done if run.spec.seed in seeds])
        for label, one in (("full", full), ("switch", row))
    ]
    runs = {one.label: _runs(one) for one in kept}
    if not all(runs.values()) or not _on_images_of(runs["switch"], {"full": runs["full"]}):
        return None
    difference = compare(runs, "full", ("auc",)).methods["switch"].statistics["auc"].difference
    return None if difference is None else _ends(difference.interval.low, difference.interval.high)


def described() -> str:
    """Return what a caption says of the intervals of the AUC."""
    return f"95 % interval over seeds and test images (hierarchical bootstrap, {RESAMPLES:,} resamples)"


def _auc(run: RunRecord) -> float | None:
    """The test AUC; None where test has no seen or no unseen images."""
    return run.finished.metrics.test.get("auc")


def _runs(row: Row) -> list[ScoredRun]:
    """A row's per-image records, [] where one cannot be used: `draw` has named it already."""
    try:
        return scored_runs({row.label: row.done})[row.label]
    except UserError:
        return []


def _on_images_of(runs: Sequence[ScoredRun], others: dict[str, list[ScoredRun]]) -> bool:
    first = [(label, own[0]) for label, own in others.items()][:1]
    try:
        check_same_images([*first, ("", runs[0])])
    except UserError:
        return False
    return True


def _bounds(estimate: Estimate) -> Bounds | None:
    # The same choice as in tables: BCa where there is one.
    found = estimate.bca or estimate.percentile
    return _ends(found.low, found.high)


def _ends(low: float, high: float) -> Bounds | None:
    return None if np.isnan([low, high]).any() else (low, high)
