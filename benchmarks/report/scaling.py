"""AUC and U against the share of pairs that training shows, for a data set that was run with several shares.

The groups of such runs have data sets called NAME@seen=SHARE (`datasets.seen_share`), and NAME itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.evidence import Question, evidence
from benchmarks.report.groups import Group, Row, conditions
from benchmarks.report.style import SMALLEST, WIDTH, new, styles
from datasets.seen_mark import base_of
from datasets.seen_share import share_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATISTICS = {"auc": "AUC (%)", "best_unseen": "U (%)"}
"""What is drawn, with the words of its axis."""

VARYING = ("data set", "data", "feasibility table")
"""Conditions in which the groups of a family differ."""


@dataclass(frozen=True)
class Point:
    """A method at one share: each seed's value and both ends of the mean's interval, fractions; NaN without one."""

    share: float
    by_seed: Mapping[int, float]
    low: float
    high: float

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(list(self.by_seed.values())))


@dataclass(frozen=True)
class Family:
    """Groups that differ in the share of seen pairs alone.

    name: the data set without a share, and the conditions.
    groups: by share, rising.
    """

    name: str
    groups: Mapping[float, Group]


def families(groups: Iterable[Group]) -> list[Family]:
    """Return the data sets that were run with several shares of seen pairs, each with its groups."""
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        run = group.runs[0]
        same = tuple(value for name, value in conditions(run).items() if name not in VARYING)
        found.setdefault((base_of(run.spec.dataset), *same), []).append(group)
    made = []
    for own in found.values():
        shares = _by_share(own)
        if len(shares) > 1:
            title = own[0].plain_title
            made.append(Family(base_of(title.partition(",")[0]) + "," + title.partition(",")[2], shares))
    return made


def _by_share(groups: Sequence[Group]) -> dict[float, Group]:
    """Return groups by share; that of the data set itself follows from the numbers of training pairs."""
    shares: dict[float, Group] = {}
    trained: dict[float, int] = {}
    whole = None
    for group in groups:
        share, train = share_of(group.runs[0].spec.dataset), _training_pairs(group)
        if share is not None:
            shares[share] = group
            trained |= {} if train is None else {share: train}
        elif train is not None:
            whole = group, train
    if whole is not None and (pairs := occurring_pairs(trained)) is not None:
        shares[whole[1] / pairs] = whole[0]
    return dict(sorted(shares.items()))


def occurring_pairs(trained: Mapping[float, int]) -> int | None:
    """Return how many pairs occur in a data set of whose pairs these shares are these numbers; None for no shares.

    >>> occurring_pairs({0.3: 5, 0.45: 7, 0.6: 10})
    16
    """
    if not trained:
        return None
    largest = max(trained)
    around = range(int((trained[largest] - 1) / largest), int((trained[largest] + 1) / largest) + 2)
    fitting = [pairs for pairs in around if all(round(s * pairs) == count for s, count in trained.items())]
    return fitting[len(fitting) // 2] if fitting else None


def _training_pairs(group: Group) -> int | None:
    counts = (run.result.counts.train_candidates for run in group.runs if run.result is not None)
    return next((count for count in counts if count), None)


@dataclass(frozen=True, eq=False)
class Scaled:
    """What is known of a family.

    lines: by statistic and a row's label, a point for each share where the row has results, rising.
    """

    family: Family
    question: Question
    lines: Mapping[str, Mapping[str, list[Point]]]


def measure(family: Family, question: Question) -> Scaled:
    """Return the points of every full row of a family, with intervals where the records allow them."""
    lines: dict[str, dict[str, list[Point]]] = {statistic: {} for statistic in STATISTICS}
    for share, group in family.groups.items():
        rows = [row for row in group.full if row.done]
        known = evidence(rows, None, question, tuple(STATISTICS))
        for statistic in STATISTICS:
            for row in rows:
                if own := _by_seed(row, statistic):
                    low, high = known.interval(row.label, statistic) or (np.nan, np.nan)
                    lines[statistic].setdefault(row.label, []).append(Point(share, own, low, high))
    return Scaled(family, question, lines)


def _by_seed(row: Row, statistic: str) -> dict[int, float]:
    values = {run.spec.seed: run.finished.metrics.test.get(statistic) for run in row.done}
    return {seed: value for seed, value in values.items() if value is not None and not np.isnan(value)}


def caption(family: Family) -> str:
    """Say what the figure shows."""
    shares = ", ".join(f"{share:.2g}" for share in family.groups)
    return (
        f"{family.name}: AUC and U, the accuracy on unseen pairs when seen ones are forbidden, against the share of "
        f"all pairs that training shows ({shares}). A smaller share is contained in a larger one. The unseen pairs of "
        "test and their images are the same throughout, so U compares; for the AUC there are fewer candidates where "
        "fewer pairs are seen, and the line of a method without training shows what that alone does. Means over seeds; "
        "band: 95 % interval over seeds and test images, over images alone where there is one run."
    )


def scaling(found: Scaled) -> Figure:
    """Draw a line for each method with its band, AUC above and U below."""
    family = found.family
    figure, axes = new(1.6 * WIDTH, nrows=2, sharex=True)
    rows = [row for group in family.groups.values() for row in group.full]
    looks = styles([next(row for row in rows if row.label == label) for label in dict.fromkeys(r.label for r in rows)])
    for panel, (statistic, words) in zip(axes, STATISTICS.items(), strict=True):
        for label, points in found.lines[statistic].items():
            style = looks[label]
            shares = [point.share for point in points]
            low, high, value = (
                np.array([getattr(point, name) for point in points]) * 100 for name in ("low", "high", "value")
            )
            panel.fill_between(shares, low, high, color=style.colour, alpha=0.12, linewidth=0)
            panel.plot(
                shares, value, style.marker, color=style.colour, linestyle=style.line, linewidth=1.1, markersize=4,
                markeredgewidth=0, label=label,
            )  # fmt: skip
        panel.set_ylabel(words)
        panel.grid(linewidth=0.3)
        panel.set_axisbelow(True)
    axes[-1].set_xlabel("share of pairs that are seen")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=SMALLEST,
        handlelength=3.4,
    )  # fmt: skip
    return figure
