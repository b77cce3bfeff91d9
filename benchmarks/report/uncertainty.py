"""Intervals that figures draw, from the per-image records of runs; what has no record has no interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.evaluation.metrics import accuracies_at_bias
from benchmarks.report.bands import curve_band
from benchmarks.report.evidence import TESTED, Question, bounds, evidence
from benchmarks.report.figures import Bounds, Change, CurveLine
from benchmarks.report.groups import Row, paired_differences, test_metric
from benchmarks.report.scored_runs import Scored
from benchmarks.report.style import Style

STEPS = 201  # accuracies on unseen images at which a curve is drawn, half a point apart


def curve_lines(groups: Sequence[tuple[str, Sequence[Scored]]], looks: dict[str, Style]) -> list[CurveLine]:
    """Return each labelled row's mean curve over seeds with its band over test images and operating points."""
    return [_curve_line(label, runs, looks[label]) for label, runs in groups]


def _curve_line(label: str, runs: Sequence[Scored], style: Style) -> CurveLine:
    band = curve_band([run.scores for run in runs], np.linspace(0, 1, STEPS))
    best = np.mean([(run.curve.best_hm.unseen, run.curve.best_hm.seen) for run in runs], axis=0)
    at_bias = [accuracies_at_bias(run.scores, run.labels, run.bias) for run in runs]  # NaN where none was chosen
    chosen = np.mean([(found.unseen_pair, found.seen_pair) for found in at_bias], axis=0)
    point = None if np.isnan(chosen).any() else (float(chosen[0]), float(chosen[1]))
    return CurveLine(
        label, style, band, (float(best[0]), float(best[1])), point, float(np.mean([run.curve.auc for run in runs]))
    )


def auc_intervals(rows: Sequence[Row]) -> tuple[dict[str, Bounds], list[str]]:
    """Return the 95 % interval of each row's mean AUC by label, and the labels whose interval leaves seeds out.

    Over seeds and test images, over test images alone for rows with one run, see `significance.compare`.
    """
    found = evidence(rows, None, Question(), (TESTED,))
    known = {row.label: ends for row in rows if (ends := found.interval(row.label, TESTED)) is not None}
    return known, [label for label in found.over_images_alone if label in known]


def changes(full: Row, switches: Sequence[Row]) -> list[Change]:
    """Return what each switch changes in the AUC on the seeds that it shares with the full model.

    The interval is that of the paired difference, over seeds and test images (over images alone for a single seed).
    """
    found = []
    for row in switches:
        if per_seed := paired_differences(full, row, test_metric(TESTED)):
            shared = set(full.seeds) & set(row.seeds)
            base = full.of_seeds(shared)
            difference = evidence([base, row.of_seeds(shared)], base, Question(), (TESTED,)).difference(row.label)
            interval = None if difference is None else bounds(difference.sources[difference.decided_by])
            found.append(Change(str(row.ablation), float(np.mean(per_seed)), per_seed, interval))
    return found


def described() -> str:
    """Return what a caption says of the intervals of the AUC."""
    return f"95 % interval over seeds and test images (hierarchical bootstrap, {Question.resamples:,} resamples)"
