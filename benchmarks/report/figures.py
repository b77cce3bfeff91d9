"""Figures from run records, drawn with matplotlib and seaborn: vector (PDF, SVG) and PNG, at the width of a column.

Colours are seaborn's colour-blind palette, a colour per method whatever the figure, and methods also differ by marker.
Nothing depends on the time or the machine, so the same records give the same files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation import primitive_credit
from benchmarks.report.scored import Scored
from benchmarks.report.tables import Row, paired_differences, test_metric
from registry import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.4  # inches: a column of a two-column paper
MARKERS = "osD^vPX*<>h8p"
LARGEST_MATRIX = 30  # rows and columns of a confusion matrix or heat map that can still be read


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
            "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "czsl",
            "pdf.fonttype": 42, "savefig.bbox": "tight", "figure.dpi": 100, "svg.fonttype": "none",
        }
    )  # fmt: skip
    return pyplot


def colour(method: str) -> tuple[float, float, float]:
    """Return a method's colour: by its place among the registered methods, others after them by name."""
    import seaborn

    palette = seaborn.color_palette("colorblind", 10)
    return palette[_place(method) % len(palette)]


def _place(method: str) -> int:
    names = METHODS.names()
    return names.index(method) if method in names else len(names) + sum(map(ord, method))


def marker(method: str) -> str:
    """Return a method's marker."""
    return MARKERS[_place(method) % len(MARKERS)]


def seen_unseen(groups: Sequence[tuple[str, Sequence[Scored]]]) -> Figure:
    """Draw the exact curve of each labelled group of runs, a thin line for each seed, with its operating points.

    Circle: the best harmonic mean (bias chosen on the test labels). Cross: the bias chosen on validation.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, WIDTH))
    for label, runs in groups:
        method = runs[0].run.spec.method
        for number, scored in enumerate(runs):
            curve, best = scored.curve, scored.curve.best_hm
            # From the axis to the first point, and down from the last: the whole area is the AUC.
            axes.plot(
                *np.array([[0, *curve.unseen, curve.unseen[-1]], [curve.seen[0], *curve.seen, 0]]) * 100,
                color=colour(method),
                linewidth=1.0 if len(runs) == 1 else 0.6,
                label=label if number == 0 else None,
            )
            point = scored.run.result["metrics"]["test"]["at_bias"]  # type: ignore[index]
            axes.plot(best.unseen * 100, best.seen * 100, "o", color=colour(method), markersize=4)
            axes.plot(point["unseen_pair"] * 100, point["seen_pair"] * 100, "x", color=colour(method), markersize=5)
    axes.set(xlabel="accuracy on unseen pairs (%)", ylabel="accuracy on seen pairs (%)", xlim=(0, None), ylim=(0, None))
    axes.legend(loc="lower left", frameon=False)
    return figure


def auc_of_runs(rows: Sequence[Row]) -> Figure:
    """Draw the AUC of every run, a point for each seed, with mean and standard deviation where there are several."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.5 + 0.28 * len(rows)))
    for place, row in enumerate(rows):
        values = [run.result["metrics"]["test"]["auc"] * 100 for run in row.done]  # type: ignore[index]
        method = row.method
        axes.plot(values, [place] * len(values), marker(method), color=colour(method), markersize=4, alpha=0.7)
        if len(values) > 1:
            spread = float(np.std(values, ddof=1))
            axes.errorbar(np.mean(values), place, xerr=spread, fmt="|", color="black", capsize=2, markersize=8, lw=0.8)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("AUC (%)")
    axes.grid(axis="x", linewidth=0.3)
    return figure


def ablation_bars(full: Row, switches: Sequence[Row]) -> Figure:
    """Draw the change of mean AUC, in points, that each switch makes to the full model, on the seeds they share."""
    pyplot = _pyplot()
    names, changes = [], []
    for row in switches:
        if differences := paired_differences(full, row, test_metric("auc")):
            names.append(str(row.ablation))
            changes.append(np.multiply(differences, 100))
    order = np.argsort([np.mean(values) for values in changes])
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.5 + 0.2 * len(names)))
    for place, index in enumerate(order):
        values = changes[index]
        axes.barh(place, np.mean(values), color=colour(full.method), height=0.7)
        axes.plot(values, [place] * len(values), "k|", markersize=5)
    axes.set_yticks(range(len(names)), [names[index] for index in order])
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("change of AUC (points)")
    return figure


def cost(rows: Sequence[Row]) -> Figure:
    """Draw mean AUC against mean training seconds; the area of a point grows with the numbers trained."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.75 * WIDTH))
    for row in rows:
        results = [run.result for run in row.done]
        seconds = np.mean([result["cost"]["train_seconds"] for result in results])  # type: ignore[index]
        auc = np.mean([result["metrics"]["test"]["auc"] for result in results]) * 100  # type: ignore[index]
        trained = results[0]["cost"]["trained_parameters"]  # type: ignore[index]
        method = row.method
        size = 20 + 15 * max(0.0, math.log10(trained + 1) - 2)
        axes.scatter(max(seconds, 1.0), auc, s=size, color=colour(method), marker=marker(method), zorder=2)
        axes.annotate(row.label, (max(seconds, 1.0), auc), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.12)
    axes.set(xlabel="training time (s, at least 1)", ylabel="AUC (%)")
    axes.grid(linewidth=0.3, which="both")
    return figure


def primitive_accuracy(groups: Sequence[tuple[str, Sequence[Scored]]], kind: str) -> Figure:
    """Draw a heat map, word by method: how often the state (or object) of images with it is right, seeds pooled.

    kind: "state" or "object". At the bias chosen on validation. Of many words the most frequent are shown.
    """
    pyplot = _pyplot()
    first = groups[0][1][0]
    truth = first.labels.states if kind == "state" else first.labels.objects
    names = first.states if kind == "state" else first.objects
    counts = np.bincount(truth, minlength=len(names))
    words = [word for word in np.argsort(-counts, kind="stable")[:LARGEST_MATRIX] if counts[word]]
    words.sort(key=lambda word: names[word])
    table = np.full((len(words), len(groups)), np.nan)
    for column, (_, runs) in enumerate(groups):
        credits = [primitive_credit(scored.scores, scored.labels, scored.bias) for scored in runs]
        right = np.mean([credit[kind == "object"] for credit in credits], axis=0)
        table[:, column] = [right[truth == word].mean() for word in words]
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.9 + 0.16 * len(words)))
    _matrix(axes, table * 100, [f"{names[word]} ({counts[word]})" for word in words], [label for label, _ in groups])
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


def state_confusion(scored: Scored) -> Figure:
    """Draw which state is predicted (column) for images of each state (row), in percent of the row.

    At the bias chosen on validation. Of many states those that are confused most are shown.
    """
    pyplot = _pyplot()
    truth, predicted = scored.labels.states, scored.predicted_states(scored.bias)
    size = len(scored.states)
    counts = np.zeros((size, size))
    np.add.at(counts, (truth[predicted >= 0], predicted[predicted >= 0]), 1)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:LARGEST_MATRIX])
    shown = shown[counts.sum(axis=1)[shown] > 0]
    share = counts[np.ix_(shown, shown)] / counts.sum(axis=1)[shown, None]
    side = 1.0 + 0.17 * len(shown)
    figure, axes = pyplot.subplots(figsize=(side, side))
    names = [scored.states[index] for index in shown]
    _matrix(axes, share * 100, names, names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(axis="x", rotation=90)
    return figure


def _matrix(axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    import seaborn

    shown = np.where(np.nan_to_num(values) < 0.5, "", np.char.mod("%.0f", values))
    seaborn.heatmap(
        values,
        ax=axes,
        vmin=0,
        vmax=100,
        cmap="cividis",
        annot=shown,
        fmt="",
        annot_kws={"size": 5},
        cbar=False,
        xticklabels=list(columns),
        yticklabels=list(rows),
        linewidths=0.3,
    )
    axes.tick_params(length=0, labelsize=6)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as `path` with .pdf, .svg and .png, close it, and return the files."""
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, extra in ((".pdf", {"CreationDate": None}), (".svg", {"Date": None}), (".png", {"Software": None})):
        target = path.with_name(path.name + suffix)
        figure.savefig(target, dpi=200, metadata=extra)
        written.append(target)
    pyplot.close(figure)
    return written
