"""What is concluded from the records: findings with their test and what would overturn them, and which have changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.convergence import Curves, curves_of
from benchmarks.report.evidence import Question
from benchmarks.report.groups import Row
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.significance import Difference
from benchmarks.studies.reference import findings
from benchmarks.studies.reference.material import Material, Results
from benchmarks.studies.reference.slice_tests import SliceTest, comparisons
from errors import counted

NOT_THERE = "not run"
BESIDE = "not told apart"


@dataclass(frozen=True)
class Finding:
    """A finding and what it rests on.

    test: which test decided it.
    seeds: of the runs, in words.
    overturn: what would show that it is wrong.
    """

    title: str
    text: str
    test: str
    seeds: str
    overturn: str


def unfinished(results: Results) -> list[str]:
    """Return the labels of the methods that might be better with more epochs."""
    return [curves.label for curves in curves_in(results) if curves.is_unfinished]


def curves_in(results: Results) -> list[Curves]:
    """Return the validation curves of the full models that have any."""
    return [curves for row in results.group.full if (curves := curves_of(row)) is not None]


def seeds_of(rows: Sequence[Row]) -> str:
    """Say which seeds some rows have, those that differ by name."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        by_seeds.setdefault(tuple(row.seeds), []).append(row.label)
    if len(by_seeds) == 1:
        return ", ".join(map(str, next(iter(by_seeds))))
    return "; ".join(f"{', '.join(map(str, seeds))} ({', '.join(labels)})" for seeds, labels in by_seeds.items())


def bootstrap_test(question: Question, count: int, with_seeds: bool) -> str:
    """Name the test of so many differences. with_seeds: some are of several seeds, and not over images alone."""
    if not count:
        return "none."
    over = "seeds and test images" if with_seeds else "test images alone"
    return f"bootstrap over {over}, two-sided at {1 - question.level:.2g}, Holm over {counted(count, 'comparison')}."


def test_of(question: Question, found: Sequence[Difference]) -> str:
    """Name the test of some differences, of which those without a p-value are no comparisons."""
    tested = [one for one in found if not math.isnan(one.p_value)]
    return bootstrap_test(question, len(tested), any(one.decided_by != "images" for one in tested))


def who_leads(closed: Results, open_: Results | None) -> Finding:
    """Say who leads, and what its lead over the second rests on."""
    order = findings.ranking(closed.group)
    text = findings.standing(closed)
    if open_ is not None:
        text += f" {findings.same_order(closed, open_)}"
    overturn = []
    if len(order) > 1 and len(findings.leaders(closed.group)) == 1:
        shared = sorted(set(order[0].seeds) & set(order[1].seeds))
        if shared and closed.found.question.resamples:
            first, second = (row.of_seeds(shared).done for row in order[:2])
            lead = findings.change(second, first, closed.found.question)
            low = lead.interval.low
            said = f"{findings.points(lead.value, lead.interval.ends)}, {findings.p_value(lead.p_value)}, not adjusted"
            text += f" Its lead over the second, {order[1].label}: {said}."
            overturn.append(
                f"runs of {order[1].label} under the same rule that are better by more than "
                f"{findings.points(low)[1:]} points"
                if low > 0
                else f"other seeds or other images of the kind, since the interval of the lead over {order[1].label} "
                f"{'is not known' if math.isnan(low) else 'holds 0'}"
            )
    overturn += overturned_by_training(unfinished(closed))
    return Finding(
        "Who leads",
        text,
        test_of(closed.found.question, _differences(closed)),
        seeds_of([row for row in order if row.trains]),
        f"{'; '.join(overturn)}.",
    )


def overturned_by_training(late: Sequence[str]) -> list[str]:
    """Return what of the training might overturn a ranking. late: labels of unfinished methods."""
    tuned = "learning rates tuned at this budget, which were tuned at the short one"
    if not late:
        return [tuned]
    return [f"more epochs, for {findings.names(late)} {'is' if len(late) == 1 else 'are'} unfinished", tuned]


def _differences(results: Results) -> list[Difference]:
    every = (results.found.difference(row.label) for row in results.group.full)
    return [one for one in every if one is not None]


def what_parts_bring(full: Row, table: Table, rows: Sequence[Row], question: Question, caution: str) -> Finding:
    """Say what a method's parts bring, from its ablation table. rows: of the switches."""
    count = sum(line[5].value is not None for line in table.rows[1:])
    with_seeds = any(len(set(row.seeds) & set(full.seeds)) > 1 for row in rows)
    return Finding(
        f"What {full.label}'s parts bring",
        " ".join(filter(None, (findings.stages(table), findings.switches(table), caution))),
        bootstrap_test(question, count, with_seeds),
        seeds_of(rows),
        "further seeds, where a switch rests on one; a switch whose best learning rate is not the full model's.",
    )


def where_it_wins(text: str, tests: Sequence[SliceTest], results: Results) -> Finding:
    """Say on which kind of states methods differ."""
    rows = [row for row in results.group.full if any(test.label == row.label for test in tests)]
    return Finding(
        "Local and global states",
        text,
        "bootstrap over seeds and test images inside each slice and of the difference of both, Holm over "
        f"{counted(comparisons(tests), 'comparison')}.",
        seeds_of([results.baseline, *rows]),
        "other states of either kind: there are some ten of each, and they are drawn as icons, not photographed.",
    )


def best_on_slices(tested: Sequence[tuple[Sequence[SliceTest], tuple[str, str]]], results: Results) -> str:
    """Say on which slices the baseline has the largest mean AUC. tested: tests with the names of their two slices."""
    baseline = results.baseline.label
    held = {test.label for tests, _ in tested for test in tests} | {baseline}
    others = [row.label for row in results.group.full if row.done and row.label not in held]
    every = [(value, [test.parts[part].value for test in tests]) for tests, values in tested
             for part, value in enumerate(values)]  # fmt: skip
    won = [value for value, leads in every if leads and max(leads) < 0]
    if not any(leads for _, leads in every):
        return f"No method shares two seeds with {baseline}, so nothing is tested inside slices."
    beside = f" (not held against it: {findings.names(others)})" if others else ""
    return f"{baseline} has the largest AUC on {findings.names(won, 'none')} of these {len(every)} slices{beside}."


# The same questions asked of two sets of records.


def conclusions(material: Material, among: Material) -> dict[str, str]:
    """Return what the records of a material say to each question, in a word or two.

    among: other records; the methods are put in order as far as these have them too.
    """
    found: dict[str, str] = {}
    for world in ("closed", "open"):
        results = material.results_if_there(world, "clean")
        if results is None:
            continue
        order = findings.ranking(results.group)
        found[f"largest AUC, {world} world"] = findings.names(findings.leaders(results.group))
        other = among.results_if_there(world, "clean")
        both = {row.label for row in order} if other is None else {row.label for row in other.group.full if row.done}
        found[f"order, {world} world"] = " > ".join(row.label for row in order if row.label in both)
        base = results.baseline.label
        for row in order:
            if row is not results.baseline and results.found.difference(row.label) is not None:
                found[f"{row.label} against {base}, {world} world"] = _side(results, row.label)
    table = material.ablations.get("msci") if ("closed", "clean") in material.groups else None
    for name in findings.STAGES if table is not None else ():
        line = next((line for line in table.rows[1:] if line[0].text == name), None) if table is not None else None
        if line is not None and line[3].value is not None:
            words = _word(line[3].value, bool(line[3].mark), "better", "worse", "no difference")
            found[f"MSCI with {name.replace('_', ' ')}"] = words
    return found


def _side(results: Results, label: str) -> str:
    difference = results.found.difference(label)
    assert difference is not None
    return _word(difference.value, bool(results.found.mark(label)), "above", "below", BESIDE)


def _word(value: float, marked: bool, more: str, less: str, neither: str) -> str:
    return neither if not marked else more if value > 0 else less


def changed_table(before: Mapping[str, str], now: Mapping[str, str]) -> Table:
    """Return the conclusions of both, those that changed first; what only one of them can say is said to be so."""
    questions = list(dict.fromkeys([*now, *before]))
    rows = [(one, before.get(one, NOT_THERE), now.get(one, NOT_THERE)) for one in questions]
    rows.sort(key=lambda row: (_change(*row[1:]) != "yes", NOT_THERE in row))
    columns = [Column("question"), Column("two epochs"), Column("now"), Column("changed")]
    lines = [[Cell(text=text) for text in (*row, _change(*row[1:]))] for row in rows]
    text = (
        "above, below: the AUC differs after Holm's adjustment within each set of records (bootstrap over seeds and "
        "test images). Ablations of the two-epoch records rest on one seed."
    )
    return Table("Conclusions, then and now", text, columns, lines)


def _change(before: str, now: str) -> str:
    return "–" if NOT_THERE in (before, now) else "yes" if before != now else "no"


def trained_seeds(material: Material) -> str:
    """Say which seeds the full models of a material have, by world."""
    found = []
    for world in ("closed", "open"):
        group = material.groups.get((world, "clean"))
        if rows := [row for row in group.full if row.trains and row.done] if group is not None else []:
            found.append(f"{world} {seeds_of(rows)}")
    return "; ".join(found)


def changed_count(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say how many conclusions changed."""
    both = [one for one in now if one in before]
    changed = sum(before[one] != now[one] for one in both)
    return f"Of {len(both)} conclusions that both can draw, {changed} changed."
