"""Methods across backbones: does an order of methods survive another backbone? Ranks and Kendall's W.

Groups that differ in their backbone alone belong together. A method counts on a backbone where it has one full row with
results; ranks and W are of the methods that have results on every backbone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.evidence import TESTED, Question, evidence
from benchmarks.report.figures import auc_values
from benchmarks.report.groups import Group, Row, conditions
from benchmarks.report.scored_runs import scored_runs
from benchmarks.runs.spec import NOT_KNOWN
from errors import UserError
from methods.offers import OFFERS, offers_of
from registry import METHODS

if TYPE_CHECKING:
    from benchmarks.significance import ResampledConcordance

VARYING = ("backbone", "weights")
"""Conditions in which the groups of a family differ."""

FEWEST_METHODS, FEW_BACKBONES = 3, 5
"""With fewer methods ranks say nothing; with fewer backbones W describes these and no others."""


@dataclass(frozen=True)
class Family:
    """Groups that differ in their backbone alone. name: what they have in common; groups: by the backbone's name."""

    name: str
    groups: Mapping[str, Group]

    @property
    def methods(self) -> list[str]:
        """The methods that have a full row with results on some backbone, in order."""
        known = dict.fromkeys(row.method for group in self.groups.values() for row in group.full if row.done)
        return [name for name in METHODS.names() if name in known] + [n for n in known if n not in METHODS.names()]

    def row(self, method: str, backbone: str) -> Row | None:
        """Return a method's row on a backbone; None where there is none with an AUC, or nobody knows which is meant."""
        rows = self._rows(method, backbone)
        return rows[0] if len(rows) == 1 else None

    @property
    def rows(self) -> list[Row]:
        """Every method's row on every backbone, where there is one."""
        found = (self.row(method, backbone) for backbone in self.groups for method in self.methods)
        return [row for row in found if row is not None]

    def _rows(self, method: str, backbone: str) -> list[Row]:
        return [row for row in self.groups[backbone].full if row.method == method and len(auc_values(row))]

    @property
    def everywhere(self) -> list[str]:
        """The methods that have a row on every backbone."""
        return [name for name in self.methods if all(self.row(name, backbone) for backbone in self.groups)]

    def reason(self, method: str, backbone: str) -> str:
        """Say in a sentence why a method has no row on a backbone."""
        title = METHODS.titles().get(method, method)
        if several := len(self._rows(method, backbone)):
            return f"{title} was run on {backbone} with {several} settings, and nobody says which one is meant."
        offers = offers_of(backbone)
        needs = METHODS.get(method).info.needs if method in METHODS.names() else ()
        if offers is not None and (lacking := offers.lacking(needs)):
            said = "; ".join(f"{name} ({OFFERS[name]})" for name in lacking)
            return f"{title} does not run on {backbone}, which does not offer what it needs: {said}."
        return f"{title} has no finished run on {backbone}."


def families(groups: Iterable[Group]) -> list[Family]:
    """Return what was run with several backbones under the same conditions, in the order of the groups."""
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        run = group.runs[0]
        if run.spec.backbone == NOT_KNOWN or not any(len(auc_values(row)) for row in group.full):
            continue
        found.setdefault(tuple(value for name, value in conditions(run).items() if name not in VARYING), []).append(
            group
        )
    made = []
    for own in (own for own in found.values() if len(own) > 1):
        names = [group.runs[0].spec.backbone for group in own]
        labels = [
            f"{name} ({group.runs[0].spec.backbone_digest[:8]})" if names.count(name) > 1 else name
            for name, group in zip(names, own, strict=True)
        ]
        title = own[0].plain_title.replace(f", {names[0]}", "", 1)
        made.append(Family(title, dict(zip(labels, own, strict=True))))
    return made


@dataclass(frozen=True, eq=False)
class Across:
    """What is known of a family.

    intervals: of mean AUC, by method and backbone.
    ranks: of the methods that are `everywhere`, by method and backbone; 1 is best.
    agreement: Kendall's W with its interval; None where `reason` says why there is none.
    reason: in a sentence.
    """

    family: Family
    question: Question
    intervals: Mapping[tuple[str, str], tuple[float, float]]
    ranks: Mapping[tuple[str, str], float]
    agreement: ResampledConcordance | None
    reason: str


def measure(family: Family, question: Question) -> Across:
    """Return intervals, ranks and Kendall's W of a family; what is missing is a reason, not an error."""
    intervals = {}
    for backbone in family.groups:
        rows = [row for method in family.methods if (row := family.row(method, backbone)) is not None]
        known = evidence(rows, None, question, (TESTED,))
        for row in rows:
            if (ends := known.interval(row.label, TESTED)) is not None:
                intervals[row.method, backbone] = ends
    methods = family.everywhere
    if len(methods) < FEWEST_METHODS:
        reason = f"No ranks: {len(methods)} methods have results on all backbones, and ranks need {FEWEST_METHODS}."
        return Across(family, question, intervals, {}, None, reason)
    agreement, reason = _agreement(family, methods, question)
    if agreement is not None:
        ranks = agreement.now.ranks
    else:
        from benchmarks.significance import concordance

        ranks = concordance(values_of(family, methods)).ranks
    places = {
        (method, backbone): float(ranks[judge, place])
        for judge, backbone in enumerate(family.groups)
        for place, method in enumerate(methods)
    }
    return Across(family, question, intervals, places, agreement, reason)


def values_of(family: Family, methods: Sequence[str]) -> np.ndarray:
    """Return the mean AUC over seeds, float64 [backbones, methods], of methods that are everywhere."""
    rows = [[family.row(method, backbone) for method in methods] for backbone in family.groups]
    return np.array([[auc_values(row).mean() for row in own if row is not None] for own in rows])


def _agreement(family: Family, methods: Sequence[str], question: Question) -> tuple[ResampledConcordance | None, str]:
    if question.resamples == 0:
        return None, "No W: no resamples were asked for."
    from benchmarks.significance import resampled_concordance

    try:
        runs = []
        for backbone in family.groups:
            records = {name: row.done for name in methods if (row := family.row(name, backbone)) is not None}
            read = scored_runs(records)
            # Without training one run says all, as in `compare`.
            runs.append([own if own[0].trained else own[:1] for own in read.values()])
        return resampled_concordance(runs, TESTED, resamples=question.resamples, level=question.level), ""
    except UserError as error:
        return None, f"No W: {error}"
