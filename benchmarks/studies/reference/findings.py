"""Sentences about the committed results. Every number and every "above" or "below" in them comes from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from benchmarks.report.evidence import TESTED, Question
from benchmarks.report.figures import auc_values
from benchmarks.report.groups import Group, Row
from benchmarks.report.render import SMALLEST_P
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs.records import RunRecord
from benchmarks.significance import Difference, Estimate, Resampling, compare, holm
from benchmarks.significance.equality import settled
from benchmarks.studies.reference.material import QUESTION, Material, Results
from benchmarks.studies.reference.slice_tests import SliceTest
from errors import counted

Key = TypeVar("Key")

STAGES = ("no_local_stage", "no_global_stage", "no_interaction")
"""MSCI's own contributions, each taken away."""


def percent(value: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * value:.1f}"


def points(value: float, interval: tuple[float, float] | None = None) -> str:
    """Return a difference in points with its interval: "+2.6 [+1.3, +4.0]"."""
    ends = "" if interval is None else f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
    return f"{100 * value:+.1f}{ends}"


def p_value(value: float) -> str:
    """Return "p < 0.001" or "p = 0.031"; "not tested" for NaN, which is no test."""
    if np.isnan(value):
        return "not tested"
    return f"p < {SMALLEST_P:g}" if value < SMALLEST_P else f"p = {value:.3f}"


def names(words: Sequence[str], nothing: str = "none") -> str:
    """Return words as a sentence lists them.

    >>> names(["CSP", "DFSP", "Troika"])
    'CSP, DFSP and Troika'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0] if words else nothing


def ranking(group: Group) -> list[Row]:
    """Return the full models, the one with the largest mean AUC first."""
    return sorted((row for row in group.full if row.done), key=lambda row: -float(auc_values(row).mean()))


def difference_text(found: Difference) -> str:
    """Return a difference in points with its interval and its adjusted p-value."""
    return f"{points(found.value, found.interval.ends)}, {p_value(found.adjusted_p)}"


def mean_auc(row: Row) -> str:
    """Return the mean AUC over seeds, in percent."""
    return percent(float(auc_values(row).mean()))


def placed(group: Group) -> list[tuple[int, Row]]:
    """Return the full models in the order of `ranking`, each with its place from 1.

    Those whose mean AUC is equal but for rounding share a place.
    """
    order = ranking(group)
    means = settled(np.array([auc_values(row).mean() for row in order]))
    return [(1 + int((means > mean).sum()), row) for row, mean in zip(order, means, strict=True)]


def leaders(group: Group) -> list[str]:
    """Return the labels of the methods in the first place."""
    return [row.label for place, row in placed(group) if place == 1]


def standing(results: Results) -> str:
    """Say who leads in a world, where the baseline stands, and which methods are above and below it."""
    order, own = ranking(results.group), results.baseline
    if len(order) == 1:
        return f"{own.label} ({mean_auc(own)}) is the only method with results."
    place = next(place for place, row in placed(results.group) if row is own)
    best = leaders(results.group)
    if len(best) > 1:
        leads = f"{names(best)} have the largest AUC ({mean_auc(order[0])}), all the same"
    else:
        lead = results.found.difference(best[0])
        gap = "" if lead is None else f", {difference_text(lead)} against {own.label}"
        leads = f"{best[0]} has the largest AUC ({mean_auc(order[0])}{gap})"
    return (
        f"{leads}. {own.label} is number {place} of {len(order)} ({mean_auc(own)}): "
        f"{_sides_text(results, [row for row in order if row is not own])}."
    )


def _sides_text(results: Results, others: Sequence[Row]) -> str:
    above, below, open_, untested = _sides(results, others)
    if len(untested) == len(others):
        return "no method was tested against it"
    text = (
        f"after Holm's adjustment {names(above)} {'is' if len(above) < 2 else 'are'} above it, "
        f"{names(below)} {'is' if len(below) < 2 else 'are'} below it, and {names(open_)} "
        f"{'is' if len(open_) < 2 else 'are'} not told apart from it"
    )
    return f"{text}; {names(untested)} {'was' if len(untested) == 1 else 'were'} not tested" if untested else text


def _sides(results: Results, rows: Sequence[Row]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the labels of rows above the baseline, below it, not told apart from it, and without a test."""
    above: list[str] = []
    below: list[str] = []
    undecided: list[str] = []
    untested: list[str] = []
    for row in rows:
        found = results.found.difference(row.label)
        if found is None or np.isnan(found.adjusted_p):
            untested.append(row.label)
        elif not results.found.mark(row.label):
            undecided.append(row.label)
        else:
            (above if found.value > 0 else below).append(row.label)
    return above, below, undecided, untested


def same_order(closed: Results, open_: Results) -> str:
    """Say whether the worlds rank the methods alike, and what the open world costs those that are in both."""
    orders = [[row.label for row in ranking(results.group)] for results in (closed, open_)]
    means = [{row.label: float(auc_values(row).mean()) for row in ranking(one.group)} for one in (closed, open_)]
    both = [label for label in orders[0] if label in means[1] and means[0][label] > 0]
    lost = [1 - means[1][label] / means[0][label] for label in both]
    ends = dict.fromkeys(percent(end) for end in (min(lost), max(lost))) if lost else ()
    cost = f"; the open world costs {' to '.join(ends)} % of a method's AUC" if ends else ""
    if orders[0] == orders[1] and len(orders[0]) > 1:
        return f"Both worlds put the methods in the same order ({' > '.join(orders[0])}){cost}."
    return f"Closed: {' > '.join(orders[0])}. Open: {' > '.join(orders[1])}{cost}."


def profiles(clean: Group, official: Group, question: Question = QUESTION) -> dict[str, Difference]:
    """Return what the official profile changes in each method's AUC on the seeds that both have, Holm over methods."""
    found: dict[str, Difference] = {}
    for row in official.full:
        base = next((one for one in clean.full if one.method == row.method), None)
        shared = set(row.seeds) & set(base.seeds) if base is not None else set()
        if base is None or not shared:
            continue
        found[row.label] = change(base.of_seeds(shared).done, row.of_seeds(shared).done, question)
    return after_holm(found)


def switch_changes(material: Material) -> dict[str, Difference]:
    """Return what each switch beside the suite changes in AUC on the seed of its run, Holm over the switches."""
    found: dict[str, Difference] = {}
    for name, run in material.switched.items():
        group = material.groups.get((run.spec.world, run.spec.profile))
        if group is not None and (base := base_of(group.full, run)) is not None:
            found[name] = change([base], [run], material.question)
    return after_holm(found)


def base_of(rows: Sequence[Row], run: RunRecord) -> RunRecord | None:
    """Return the full model's run of the same method and seed, None where it is not there."""
    wanted = (run.spec.method, run.spec.seed)
    return next((one for row in rows for one in row.done if (one.spec.method, one.spec.seed) == wanted), None)


def change(base: Sequence[RunRecord], others: Sequence[RunRecord], question: Question) -> Difference:
    """Return what is changed in AUC from some runs to others of the same seeds."""
    both = {"base": base, "other": others}
    floors = {label: own for label, runs in both.items() if (own := question.rounding.get(runs[0].spec.method))}
    resampling = Resampling(question.resamples, question.level, rounding=floors)
    found = compare(scored_runs(both), "base", (TESTED,), resampling=resampling).methods["other"]
    difference = found.statistics[TESTED].difference
    assert difference is not None  # the others are compared with the base
    return difference


def after_holm(found: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Return differences with their p-values adjusted as one family."""
    adjusted = holm(np.array([one.p_value for one in found.values()])).tolist()
    return {label: replace(one, adjusted_p=p) for (label, one), p in zip(found.items(), adjusted, strict=True)}


def profile_change(changes: Mapping[str, Difference]) -> str:
    """Say what the released codes' accidents change; "" where no method was run in both profiles."""
    if not changes:
        return ""
    parts = []
    for label, one in changes.items():
        sure = bool(QUESTION.mark(one.adjusted_p))
        how = ("gains" if one.value > 0 else "loses") if sure else "does not change beyond chance"
        parts.append(f"{label} {how} ({difference_text(one)})")
    return f"By training and scoring as the released codes do, {names(parts)}."


def switches(table: Table) -> str:
    """Say which switches of a method's ablation table change its AUC, from the table's own cells.

    An empty text where no switch has a change.
    """
    rows = {row[0].text: (row[3], row[5]) for row in table.rows[1:] if row[3].value is not None}
    tested = {name: cells for name, cells in rows.items() if cells[1].value is not None}
    clear = {name: cells for name, cells in tested.items() if cells[0].mark}
    better = [name for name, (change, _) in clear.items() if (change.value or 0) > 0]
    worse = [name for name, (change, _) in clear.items() if (change.value or 0) < 0]
    untested = [f"`{name}`" for name in rows if name not in tested]
    if not rows:
        return ""
    if not tested:
        return f"No change of a switch was tested ({names(untested)})."

    def shown(name: str) -> str:
        change, adjusted = rows[name]
        return f"`{name}` ({points(change.value or 0.0, change.interval)}, {p_value(adjusted.value or 0.0)})"

    said = (
        f"Of {counted(len(tested), 'switch', 'switches')} {names([*map(shown, better)], 'no one')} "
        f"{'raises' if len(better) < 2 else 'raise'} the AUC and {names([*map(shown, worse)], 'no one')} "
        f"{'lowers' if len(worse) < 2 else 'lower'} it"
    )
    if len(clear) < len(tested):
        said += "; the others make no difference that survives Holm's adjustment"
    return f"{said}; not tested: {names(untested)}." if untested else f"{said}."


def shared_switches(tables: Mapping[str, Table]) -> Table | None:
    """Return what the switches that several methods have change in each; None where none is shared.

    tables: ablation tables by the methods' labels, whose cells are taken as they are.
    """
    changed = {
        label: {row[0].text: row[3] for row in table.rows[1:] if row[3].value is not None}
        for label, table in tables.items()
    }
    having = {
        name: [label for label, cells in changed.items() if name in cells]
        for name in dict.fromkeys(name for cells in changed.values() for name in cells)
    }
    shared = sorted(
        (name for name, labels in having.items() if len(labels) > 1), key=lambda name: (-len(having[name]), name)
    )
    labels = [label for label in tables if any(label in having[name] for name in shared)]
    if not shared:
        return None
    lines = [[Cell(text=name), *(changed[label].get(name, Cell()) for label in labels)] for name in shared]
    heads = [Column("switch"), *(Column(label, signed=True, larger_is_better=None) for label in labels)]
    text = "Change in AUC, in points, from the tables below, where intervals and marks are explained."
    return Table("Switches that several methods have", text, heads, lines)


def stages(table: Table) -> str:
    """Say what MSCI's stages bring, from its ablation table."""
    rows = {row[0].text: row for row in table.rows[1:]}
    parts = [
        f"without {name.removeprefix('no_').replace('_', ' ')} {points(row[3].value, row[3].interval)}"
        + ("" if row[5].value is None else f" ({p_value(row[5].value)})")
        for name in STAGES
        if (row := rows.get(name)) is not None and row[3].value is not None
    ]
    return f"What the stages bring: {'; '.join(parts)}." if parts else ""


def on_slice(tests: Sequence[SliceTest], part: int, baseline: str, where: str) -> str:
    """Say which methods are above and below the baseline in a slice (`part` 0 or 1)."""
    if not tests:
        return f"{where}: nothing was tested."
    level = 1 - QUESTION.level
    sure = [(test.label, test.parts[part]) for test in tests if test.adjusted[part] <= level]
    above = [f"{label} ({_estimate(found)})" for label, found in sure if found.value > 0]
    below = [f"{label} ({_estimate(found)})" for label, found in sure if found.value < 0]
    return f"{where}: above {baseline} {names(above, 'nobody')}; below it {names(below, 'nobody')}."


def _estimate(found: Estimate) -> str:
    return points(found.value, found.percentile.ends)


def interaction(tests: Sequence[SliceTest], baseline: str, first: str, second: str) -> str:
    """Say for which methods the difference from the baseline is another one in the two slices; "" of no tests."""
    if not tests:
        return ""
    level = 1 - QUESTION.level
    sure = [test for test in tests if test.adjusted[2] <= level]
    if not sure:
        return (
            f"Whether {baseline} does relatively better on {first} than on {second} is a question of its own, the last "
            "column: for no method is that difference of differences beyond chance."
        )
    parts = []
    for test in sure:
        how = "worse" if test.parts[2].value > 0 else "better"
        parts.append(f"{test.label} ({_estimate(test.parts[2])}: {baseline} does relatively {how} on {first})")
    return f"The difference is another one on {first} than on {second} for {names(parts)}."
