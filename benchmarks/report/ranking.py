"""Methods over several data sets: which groups of runs may be ranked together, and the critical-difference diagram.

A data set counts once (docs/statistics.md, "Data sets"): its open world, another backbone or more seeds are not further
data sets, so groups are ranked together only where they differ in the data set alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.figures import auc_values
from benchmarks.report.groups import Group, conditions
from benchmarks.report.style import SMALLEST, WIDTH, method_style, new, words
from benchmarks.runs.spec import NOT_KNOWN
from registry import DATASETS, METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.significance import Friedman, Nemenyi

FEWEST_DATASETS, FEWEST_METHODS = 2, 3

COMMON = ("world", "backbone", "weights", "profile", "precision", "threads", "protocol version", "masking")
"""The conditions (`groups.conditions`) that groups ranked together have in common: all that are not of the data."""


@dataclass(frozen=True, eq=False)
class Field:
    """Methods with results on the same data sets: values float64 [data sets, methods], mean AUC over seeds.

    conditions: what the groups have in common, in words.
    left_out: methods that lack a data set.
    passed_over: titles of groups that are not counted, because another group stands for their data set; they differ
      from it in feasibility or in the data's release.
    """

    conditions: str
    datasets: Sequence[str]
    methods: Sequence[str]
    values: np.ndarray
    left_out: Sequence[str]
    passed_over: Sequence[str] = ()

    @property
    def problem(self) -> str:
        """Why the methods cannot be ranked, in a sentence; "" if they can."""
        if len(self.datasets) < FEWEST_DATASETS:
            return (
                f"No ranking over data sets ({self.conditions}): there are results on {len(self.datasets)} data set "
                f"({', '.join(self.datasets)}), and ranks need at least {FEWEST_DATASETS}."
            )
        if len(self.methods) < FEWEST_METHODS:
            return (
                f"No ranking over data sets ({self.conditions}): {len(self.methods)} methods have results on all of "
                f"{', '.join(self.datasets)}, and ranks need at least {FEWEST_METHODS}."
            )
        return ""


def fields(groups: Sequence[Group]) -> list[Field]:
    """Return what may be ranked together, by conditions, in the order of the groups.

    A method counts where it has one full row with results; with several settings nobody knows which one is meant.
    """
    families: dict[tuple[str, ...], dict[tuple[str, ...], list[Group]]] = {}
    released = set(DATASETS.names())
    for group in groups:
        spec, own = group.runs[0].spec, conditions(group.runs[0])
        if any(len(auc_values(row)) for row in group.full):
            # Of two releases of one data set the first stands; they are not two data sets. What users call their own
            # folders says nothing: two of one name are two data sets if their content differs.
            dataset = (spec.dataset,) if spec.dataset in released else (spec.dataset, spec.dataset_digest)
            families.setdefault(tuple(own[name] for name in COMMON), {}).setdefault(dataset, []).append(group)
    return [_field(key, by_dataset) for key, by_dataset in families.items()]


def _field(key: tuple[str, ...], by_dataset: Mapping[tuple[str, ...], Sequence[Group]]) -> Field:
    own = dict(zip(COMMON, key, strict=True))
    means: dict[str, dict[tuple[str, ...], float]] = {}
    for dataset, (group, *_) in by_dataset.items():
        for method in dict.fromkeys(row.method for row in group.full):
            rows = [row for row in group.full if row.method == method]
            if len(rows) == 1 and len(auc_values(rows[0])):
                means.setdefault(method, {})[dataset] = float(auc_values(rows[0]).mean())
    whole = [method for method, values in means.items() if len(values) == len(by_dataset)]
    values = np.array([[means[method][dataset] for method in whole] for dataset in by_dataset])
    return Field(
        _in_words(own),
        _shown(list(by_dataset)),
        whole,
        values.reshape(len(by_dataset), len(whole)),
        [method for method in means if method not in whole],
        [group.title for _, *others in by_dataset.values() for group in others],
    )


def _in_words(own: Mapping[str, str]) -> str:
    """Return what groups have in common, by name, in words; threads and masking where they are not the usual ones."""
    precision = "precision not known" if own["precision"] == NOT_KNOWN else own["precision"]
    text = f"{own['world']} world, {own['backbone']}, profile {own['profile']}, {precision}"
    if own["threads"] not in ("1", NOT_KNOWN):
        text += f", {own['threads']} threads"
    return text if own["masking"] in ("none", own["profile"]) else f"{text}, {own['masking']} masking"


def _shown(datasets: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the names of data sets; those that share one have the start of their digest in brackets."""
    names = [name for name, *_ in datasets]
    return [
        f"{name} (data {digest[0][:8]})" if digest and names.count(name) > 1 else name for name, *digest in datasets
    ]


def _names(methods: Sequence[str]) -> list[str]:
    """Return a title of its own for each method."""
    titles = METHODS.titles()
    shown = [words(titles.get(method, method)) for method in methods]
    return [
        f"{name} ({words(method)})" if shown.count(name) > 1 else name
        for name, method in zip(shown, methods, strict=True)
    ]


def critical_difference(field: Field, test: Nemenyi) -> Figure:
    """Draw average ranks (1 is best) on a line, bars over methods that do not differ, and the critical difference."""
    import pandas
    import scikit_posthocs

    names = _names(field.methods)
    figure, axes = new(0.75 + 0.13 * len(names), WIDTH)
    scikit_posthocs.critical_difference_diagram(
        pandas.Series(test.average_ranks, index=names),
        pandas.DataFrame(test.p_values, index=names, columns=names),
        ax=axes,
        label_fmt_left="{label} {rank:.1f} ",
        label_fmt_right=" {rank:.1f} {label}",
        label_props={"size": SMALLEST},
        color_palette={name: method_style(method).colour for name, method in zip(names, field.methods, strict=True)},
        crossbar_props={"color": "0.25", "linewidth": 2.5, "marker": ""},
        marker_props={"zorder": 3, "s": 16},
        elbow_props={"linewidth": 1},
    )
    for label in axes.texts:
        label.set_color("black")  # coloured letters of this size would be hard to read
    axes.spines["top"].set_visible(True)
    axes.set_xticks(range(1, len(names) + 1))
    axes.tick_params(labelsize=SMALLEST)
    length = min(test.critical_difference, len(names) - 1)
    height = 1.0 + 0.55 / figure.get_figheight()
    trans = axes.get_xaxis_transform()
    axes.plot([1, 1 + length], [height, height], "k|-", transform=trans, clip_on=False, linewidth=0.9, markersize=6)
    beyond = "" if length == test.critical_difference else ", longer than the line"
    axes.text(
        1, height + 0.1 / figure.get_figheight(), f"critical difference {test.critical_difference:.2f}{beyond}",
        transform=trans, fontsize=SMALLEST, va="bottom",
    )  # fmt: skip
    return figure


def caption(field: Field, friedman: Friedman, test: Nemenyi) -> str:
    """Return what the diagram shows and how far it can be trusted."""
    titles = METHODS.titles()
    left_out = f" Without {', '.join(titles.get(m, m) for m in field.left_out)}: no results on every data set."
    passed_over = f" Not counted, for a data set counts once: {'; '.join(field.passed_over)}."
    return (
        f"Average ranks by mean AUC on {', '.join(field.datasets)} ({field.conditions}); 1 is best. Bars join methods "
        f"that do not differ by Nemenyi's test at 5 % (critical difference {test.critical_difference:.2f}); Friedman's "
        f"test (Iman-Davenport): p = {friedman.p_value:.2g}. {test.note}{left_out if field.left_out else ''}"
        f"{passed_over if field.passed_over else ''}".strip()
    )
