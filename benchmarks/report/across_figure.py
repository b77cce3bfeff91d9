"""The figure of methods across backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report.across import Across
from benchmarks.report.figures import auc_values
from benchmarks.report.style import SMALLEST, WIDTH, method_style, new, words
from registry import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def across(found: Across) -> Figure:
    """Draw each method's AUC on each backbone with its interval, joined by a line, at the width of a column."""
    family = found.family
    figure, axes = new(1.15 * WIDTH)
    titles, methods = METHODS.titles(), family.methods
    for place, method in enumerate(methods):
        style = method_style(method)
        shift = 0.3 * ((place + 0.5) / len(methods) - 0.5)  # so that bars stand beside each other
        points = [
            (position + shift, auc_values(row).mean() * 100, found.intervals.get((method, backbone)))
            for position, backbone in enumerate(family.groups)
            if (row := family.row(method, backbone)) is not None
        ]
        for x, _, ends in points:
            if ends is not None:
                axes.plot([x, x], [end * 100 for end in ends], color=style.colour, linewidth=2, alpha=0.45)
        axes.plot(
            [x for x, _, _ in points], [value for _, value, _ in points], style.marker, color=style.colour,
            linestyle=style.line, linewidth=0.9, markersize=5, markeredgewidth=0,
            label=words(titles.get(method, method)),
        )  # fmt: skip
    axes.set_xticks(range(len(family.groups)), [words(backbone, 22) for backbone in family.groups])
    axes.set_xlim(-0.4, len(family.groups) - 0.6)
    axes.set_ylabel("AUC (%)")
    axes.grid(axis="y", linewidth=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=SMALLEST, handlelength=3.4)
    return figure
