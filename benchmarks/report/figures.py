"""Figures of a group of comparable runs, as matplotlib figures at the width of a column; `style.py` says how they look.

Functions from what was measured to a figure: nothing is read, written or resampled here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmarks.report import fonts
from benchmarks.report.bands import Band
from benchmarks.report.groups import Row
from benchmarks.report.style import SMALLEST, WIDTH, Style, method_style, new, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bounds = tuple[float, float]
"""Both ends of an interval, fractions."""

MARKER = 5  # points
NEAR = 0.75  # of the best AUC: what the enlarged part of the curves shows


@dataclass(frozen=True, eq=False)
class CurveLine:
    """A method's curve: its band, and its operating points (unseen, seen), means over seeds; fractions.

    best: of the largest harmonic mean. chosen: at the bias that validation chose, None where it chose none.
    """

    label: str
    style: Style
    band: Band
    best: tuple[float, float]
    chosen: tuple[float, float] | None
    auc: float


def seen_unseen(lines: Sequence[CurveLine]) -> Figure:
    """Draw the curves with their bands and operating points: whole above, around the operating points below.

    Filled marker: the best harmonic mean. Hollow: the bias chosen on validation. The lower part shows the methods whose
    AUC is at least `NEAR` of the best one's.
    """
    figure, (whole, near) = new(1.8 * WIDTH, nrows=2)
    good = [line for line in lines if line.auc >= NEAR * max(other.auc for other in lines)]
    for axes, drawn in ((whole, lines), (near, good)):
        for line in drawn:
            _curve(axes, line)
        axes.set_ylabel("accuracy on seen pairs (%)")
    near.set_xlabel("accuracy on unseen pairs (%)")
    whole.set(xlim=(0, None), ylim=(0, None))
    _legend(whole, lines)
    _enlarge(near, good)
    return figure


def _curve(axes: Axes, line: CurveLine) -> None:
    style, shown = line.style, line.band.high > 0
    unseen, seen, low, high = (
        values[shown] * 100 for values in (line.band.unseen, line.band.seen, line.band.low, line.band.high)
    )
    ends = [_sparse(unseen, low), _sparse(unseen, high)[::-1]]
    axes.fill(*np.concatenate(ends).T, color=style.colour, alpha=0.12, linewidth=0)
    for edge in (low, high):
        axes.plot(unseen, edge, color=style.colour, linewidth=0.4, alpha=0.6)
    axes.plot(unseen, seen, color=style.colour, linestyle=style.line, linewidth=1.1)
    for point, face in ((line.best, style.colour), (line.chosen, "white")):
        if point is not None:
            axes.plot(
                point[0] * 100, point[1] * 100, style.marker, color=style.colour, markerfacecolor=face,
                markersize=MARKER, markeredgewidth=0.8, zorder=3,
            )  # fmt: skip


def _sparse(unseen: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Return the points [P, 2] of an edge that its line needs; matplotlib leaves out others of lines, not of areas.

    unseen, edge: percent [G]; what is drawn lies within 0.02 of the line through them.
    """
    from matplotlib.path import Path

    points = np.column_stack([unseen, edge])
    if not len(points):
        return points
    line = Path(points)
    line.simplify_threshold = 0.02
    kept = line.cleaned(simplify=True)
    return np.asarray(kept.vertices)[np.asarray(kept.codes) != Path.STOP]


def _legend(axes: Axes, lines: Sequence[CurveLine]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=line.style.colour, linestyle=line.style.line, linewidth=1.1, marker=line.style.marker,
            markersize=MARKER,
        )
        for line in lines
    ]  # fmt: skip
    labels = [words(line.label) for line in lines]
    for face, label in (("0.4", "best HM"), ("white", "bias of validation")):
        handles.append(Line2D([], [], color="0.4", marker="o", linestyle="", markerfacecolor=face, markersize=4))
        labels.append(label)
    # Written into the legend afterwards: it would leave out one that begins with "_".
    legend = axes.legend(
        handles, ["-"] * len(labels), loc="lower left", frameon=False, handlelength=3.4, labelspacing=0.25
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def _enlarge(axes: Axes, lines: Sequence[CurveLine]) -> None:
    """Set the limits to where the lines have their operating points and the ends of their bands."""
    points = np.array([point for line in lines for point in (line.best, line.chosen) if point is not None]) * 100
    top = max(line.band.high.max() for line in lines) * 100
    # Where no seen image is right under any bias there is a point, and no curve.
    right = max(*points[:, 0], *(end * 100 for line in lines for end in line.band.unseen[line.band.high > 0]))
    axes.set_xlim(max(0.0, points[:, 0].min() - 8), right + 0.5)
    axes.set_ylim(max(0.0, points[:, 1].min() - 12), top + 0.5)
    axes.set_title("the same, enlarged", loc="left", fontsize=SMALLEST)


def auc_of_runs(rows: Sequence[Row], looks: Mapping[str, Style], intervals: Mapping[str, Bounds]) -> Figure:
    """Draw each row's mean AUC with its interval (by label, where there is one), and a small tick for each seed."""
    figure, axes = new(0.55 + 0.22 * len(rows))
    for place, row in enumerate(rows):
        values = auc_values(row)
        style = looks[row.label]
        if row.label in intervals:
            low, high = intervals[row.label]
            axes.plot(
                [low * 100, high * 100],
                [place, place],
                color=style.colour,
                linewidth=2.5,
                alpha=0.45,
                solid_capstyle="butt",
            )
        if len(values) > 1:
            axes.plot(values * 100, [place + 0.27] * len(values), "|", color="0.35", markersize=4, markeredgewidth=0.8)
        axes.plot(values.mean() * 100, place, style.marker, color=style.colour, markersize=6, markeredgewidth=0)
    axes.set_yticks(range(len(rows)), [words(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUC (%)")
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    return figure


def auc_values(row: Row) -> np.ndarray:
    """Return the test AUC of each finished run of a row that has one, float64 [seeds]."""
    found = np.array([run.finished.metrics.test.auc for run in row.done], dtype=np.float64)
    return found[~np.isnan(found)]


@dataclass(frozen=True)
class Change:
    """What a switch changes in the AUC: the mean paired difference to the full model, each seed's, and its interval."""

    name: str
    value: float
    per_seed: Sequence[float]
    interval: Bounds | None


def ablation_bars(method: str, changes: Sequence[Change]) -> Figure:
    """Draw the change of the AUC, in points, that each switch makes, with intervals and a tick for each seed."""
    figure, axes = new(0.6 + 0.2 * len(changes))
    ordered = sorted(changes, key=lambda change: change.value)
    for place, change in enumerate(ordered):
        axes.barh(place, change.value * 100, color=method_style(method).colour, height=0.6, alpha=0.55)
        if len(change.per_seed) > 1:
            axes.plot(np.multiply(change.per_seed, 100), [place + 0.22] * len(change.per_seed), "k|", markersize=4)
        if change.interval is not None:
            low, high = (end * 100 for end in change.interval)
            axes.plot([low, high], [place, place], color="black", linewidth=0.9)
            axes.plot([low, high], [place, place], "k|", markersize=5, markeredgewidth=0.9)
    axes.set_yticks(range(len(ordered)), [words(change.name) for change in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("change of AUC (points)")
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    return figure


def timed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose training time is known: of weights that were trained elsewhere nobody knows it."""
    return [row for row in rows if not any(math.isnan(run.finished.cost.train_seconds) for run in row.done)]


def cost(rows: Sequence[Row], looks: Mapping[str, Style], intervals: Mapping[str, Bounds]) -> Figure:
    """Draw mean AUC with its interval against mean training time; a point grows with the numbers that are trained."""
    figure, axes = new(0.9 * WIDTH)
    places = []
    for row in rows:
        costs = [run.finished.cost for run in row.done]
        seconds = float(np.mean([cost.train_seconds for cost in costs]))
        auc = float(auc_values(row).mean()) * 100
        trained = costs[0].trained_parameters
        style = looks[row.label]
        if row.label in intervals:
            low, high = intervals[row.label]
            axes.plot([seconds, seconds], [low * 100, high * 100], color=style.colour, linewidth=0.9)
        size = 18 + 12 * max(0.0, math.log10((trained or 0) + 1) - 2)
        axes.scatter(seconds, auc, s=size, color=style.colour, marker=style.marker, zorder=2, linewidth=0)
        places.append((seconds, auc))
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:,.0f}")  # powers of ten would need mathematics
    longest = max(seconds for seconds, _ in places)
    axes.set_xlim(-0.4, max(10.0, longest * 6))
    axes.margins(y=0.12)
    axes.set(xlabel="training time (s)", ylabel="AUC (%)")
    axes.grid(linewidth=0.3)
    axes.set_axisbelow(True)
    _label(figure, axes, places, [words(row.label) for row in rows])
    return figure


def _label(figure: Figure, axes: Axes, places: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text beside each point, at the first of some distances at which it hides no other text and no point."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what fits now must stay where it is
    dots = axes.transData.transform(places)
    scale = figure.dpi / 72
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    taken: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for (x, y), place, text in zip(dots, places, texts, strict=True):
        drawn = axes.annotate(text, place, (0, 0), textcoords="offset points", va="center", fontsize=SMALLEST)
        fonts.supply([drawn])
        size = drawn.get_window_extent()
        side: Literal["left", "right"] = "left"
        for shift in (0, 8, -8, 16, -16, 24, -24, 32, -32):
            for side in sides:
                left = x + 6 * scale if side == "left" else x - 6 * scale - size.width
                middle = y + shift * scale
                box = (left, middle - size.height / 2, left + size.width, middle + size.height / 2)
                inside = axes.bbox.x0 <= box[0] and box[2] <= axes.bbox.x1
                if inside and not any(_meet(box, other) for other in taken):
                    break
            else:
                continue
            break
        else:
            side, shift, box = "left", 0, (x, y, x, y)
        drawn.set_horizontalalignment(side)
        drawn.set_position((6 if side == "left" else -6, shift))
        taken.append(box)


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
