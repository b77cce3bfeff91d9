"""AUC and U against the share of pairs that training shows, for a data set that was run with several shares.

The groups of such runs have data sets called NAME@seen=SHARE (`datasets.seen_share`), and NAME itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.groups import Group, Row, conditions
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.style import WIDTH, new, styles
from benchmarks.significance import compare
from datasets.seen_share import base_of, share_of
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATISTICS = {"auc": "AUC (%)", "best_unseen": "U (%)"}
"""What is drawn, with the words of its axis."""

VARYING = ("data set", "data", "feasibility table")
"""Conditions in which the groups of a family differ."""


@dataclass(frozen=True)
class Point:
    """A method at one share: mean over seeds and both ends of its 95 % interval, fractions; NaN without an interval."""

    share: float
    value: float
    low: float
    high: float


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


def lines(family: Family, statistic: str) -> dict[str, list[Point]]:
    """Return each row's points by its label, those of full models with a result."""
    found: dict[str, list[Point]] = {}
    for share, group in family.groups.items():
        for row in group.full:
            point = _point(share, row, statistic)
            if point is not None:
                found.setdefault(row.label, []).append(point)
    return found


def _point(share: float, row: Row, statistic: str) -> Point | None:
    values = [run.finished.metrics.test.get(statistic) for run in row.done]
    known = [value for value in values if value is not None and not np.isnan(value)]
    if not known:
        return None
    low = high = np.nan
    try:
        runs = scored_runs({row.label: row.done})
        sources = compare(runs, None, (statistic,)).methods[row.label].statistics[statistic].sources
    except UserError:
        pass  # a record without its per-image scores is named where the group's own figures are
    else:
        estimate = sources.get("seeds and images") or sources["images"]
        interval = estimate.bca or estimate.percentile
        low, high = interval.low, interval.high
    return Point(share, float(np.mean(known)), low, high)


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


def scaling(family: Family) -> Figure:
    """Draw a line for each method with its band, AUC above and U below."""
    figure, axes = new(1.5 * WIDTH, nrows=2, sharex=True)
    rows = [row for group in family.groups.values() for row in group.full]
    looks = styles([next(row for row in rows if row.label == label) for label in dict.fromkeys(r.label for r in rows)])
    for panel, (statistic, words) in zip(axes, STATISTICS.items(), strict=True):
        for label, points in lines(family, statistic).items():
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
    axes[0].legend(fontsize="small", frameon=False, loc="best")
    return figure
