"""Figures of words: how often each state or object is right under each method, and which states are confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.evaluation.metrics import primitive_credit
from benchmarks.report.scored_runs import Scored
from benchmarks.report.style import SMALLEST, WIDTH, new, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP = "Blues"  # by lightness alone, so every kind of colour vision and a grey print see the same order
LONGEST = 24  # letters: what leaves room for the cells where words stand at both axes
LARGEST_HEAT_MAP = 60  # words: what fits a page at a readable size
LARGEST_CONFUSION = 24  # states: what fits a column at a readable size


def primitive_accuracy(groups: Sequence[tuple[str, Sequence[Scored]]], kind: str) -> Figure:
    """Draw a heat map, word by method: how often the state (or object) of images with it is right, mean over seeds.

    kind: "state" or "object". At the bias chosen on validation. Of many words the most frequent are shown, in order of
    their mean over methods, the hardest last.
    """
    first = groups[0][1][0]
    truth = first.labels.states if kind == "state" else first.labels.objects
    names = first.states if kind == "state" else first.objects
    counts = np.bincount(truth, minlength=len(names))
    shown = np.array([word for word in np.argsort(-counts, kind="stable")[:LARGEST_HEAT_MAP] if counts[word]])
    table = np.full((len(shown), len(groups)), np.nan)
    for column, (_, runs) in enumerate(groups):
        credits = [primitive_credit(scored.scores, scored.labels, scored.bias) for scored in runs]
        right = np.mean([credit[kind == "object"] for credit in credits], axis=0)
        table[:, column] = [right[truth == word].mean() for word in shown]
    order = np.argsort(-table.mean(axis=1), kind="stable")
    columns = [words(label, LONGEST) for label, _ in groups]
    room = 0.04 * max(0, max(map(len, columns)) - len("CLIP zero-shot"))  # inches, for long names that stand slanted
    figure, axes = new(0.9 + room + 0.13 * len(shown))
    labels = [f"{words(names[word], LONGEST)} ({counts[word]})" for word in shown[order]]
    _matrix(axes, table[order] * 100, labels, columns, numbers=len(groups) <= 9)
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")
    return figure


def shown_words(kind: str, scored: Scored) -> str:
    """Return what a caption says of words that `primitive_accuracy` leaves out, "" if it shows all."""
    truth = scored.labels.states if kind == "state" else scored.labels.objects
    there = len(np.unique(truth))
    return "" if there <= LARGEST_HEAT_MAP else f"; the {LARGEST_HEAT_MAP} most frequent of {there}"


def confusion_counts(runs: Sequence[Scored]) -> np.ndarray:
    """Return how many images of each state (row) are predicted to have each state, seeds together, int64 [A, A].

    At the bias chosen on validation; images without any prediction are left out.
    """
    counts = np.zeros((len(runs[0].states),) * 2, dtype=np.int64)
    for scored in runs:
        truth, predicted = scored.labels.states, scored.predicted_states(scored.bias)
        np.add.at(counts, (truth[predicted >= 0], predicted[predicted >= 0]), 1)
    return counts


def state_confusion(runs: Sequence[Scored]) -> Figure:
    """Draw which state is predicted (column) for images of each state (row), in percent of the row, seeds together.

    Of many states those that are confused most are shown. The scale is that of square roots: errors are what the
    figure is about, and most are a few percent.
    """
    from matplotlib.colors import PowerNorm

    counts = confusion_counts(runs)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:LARGEST_CONFUSION])
    shown = shown[counts.sum(axis=1)[shown] > 0]
    share = counts[np.ix_(shown, shown)] / counts.sum(axis=1)[shown, None] * 100
    figure, axes = new(WIDTH + 0.1)
    names = [words(runs[0].states[index], LONGEST) for index in shown]
    image = axes.pcolormesh(share, cmap=MAP, norm=PowerNorm(0.5, 0, 100), edgecolor="0.85", linewidth=0.3)
    axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.tick_params(length=0, labelsize=SMALLEST, pad=2)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.9, aspect=30, pad=0.02, ticks=[0, 1, 5, 20, 50, 100])
    bar.set_label("percent of the row", fontsize=SMALLEST)
    bar.outline.set_visible(False)
    return figure


def states_left_out(runs: Sequence[Scored]) -> str:
    """Return what a caption says of states that `state_confusion` leaves out, "" if it shows all."""
    there = int((confusion_counts(runs).sum(axis=1) > 0).sum())
    return "" if there <= LARGEST_CONFUSION else f"; of {there} states the {LARGEST_CONFUSION} confused most"


def _matrix(
    axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, numbers: bool = True
) -> None:
    import seaborn

    seaborn.heatmap(
        values, ax=axes, vmin=0, vmax=100, cmap=MAP, cbar=not numbers, linewidths=0.3, linecolor="0.85",
        xticklabels=False, yticklabels=False,
    )  # fmt: skip
    # Not by seaborn, which draws the figure to see whether labels overlap, before they are turned and have their fonts.
    axes.set_xticks(np.arange(len(columns)) + 0.5, list(columns))
    axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
    if numbers:
        colours = axes.collections[0].to_rgba(values)[..., :3]
        for (row, column), value in np.ndenumerate(values):
            axes.text(
                column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center_baseline", fontsize=SMALLEST,
                color=_readable_on(colours[row, column]),
            )  # fmt: skip
    axes.tick_params(length=0, labelsize=SMALLEST, pad=2)


def _readable_on(rgb: np.ndarray) -> str:
    """Black or white, whichever has the larger contrast to a colour (relative luminance of WCAG 2)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"
