"""What each switch of a method changes: the full model, its ablations, and whether the changes are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.report.captions import ONE_RUN, caption, gaps, seeds, test_split, tests
from benchmarks.report.cells import mean, mean_of, number
from benchmarks.report.evidence import SHOWN, Evidence, Question, bounds, evidence
from benchmarks.report.groups import Group, Row, paired_differences, test_metric
from benchmarks.report.machines import mixture_notes
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.report.undefined import undefined_notes
from registry import METHODS

HEADS = (
    Column("switch"),
    Column("seeds"),
    Column("AUC"),
    Column("AUC change", signed=True),
    Column("p", percent=False, p_value=True, exact=False),
    Column("p Holm", percent=False, p_value=True, exact=False),
    Column("HM"),
    Column("HM change", signed=True),
)


@dataclass(frozen=True, eq=False)
class Changes:
    """What is known of a method's switches.

    found: by the switch's place, on the seeds that it shares with the full model. adjusted: p-values after Holm over
    all switches. reasons: why there is nothing, a line each.
    """

    found: Mapping[int, Evidence]
    adjusted: Mapping[int, float]
    reasons: Sequence[str]


def ablation_table(group: Group, full: Row, switches: Sequence[Row], question: Question) -> Table:
    """Return the full model and each switch with its change, on the seeds that both have."""
    known = changes(full, switches, question)
    read_auc, read_hm = (test_metric(name) for name in SHOWN)
    lines = [[Cell(text=full.label), _seeds(full), mean(full, read_auc), *[Cell()] * 3, mean(full, read_hm), Cell()]]
    tested = {}
    for place, row in enumerate(switches):
        difference, hm = (
            known.found[place].difference(row.label, name) if place in known.found else None for name in SHOWN
        )
        adjusted = known.adjusted.get(place, np.nan)
        auc_change, hm_change = (
            replace(
                mean_of(paired_differences(full, row, read)),
                interval=None if one is None else bounds(one.sources[one.decided_by]),
            )
            for read, one in ((read_auc, difference), (read_hm, hm))
        )
        if difference is not None:
            tested[str(row.ablation)] = difference
        lines.append(
            [
                Cell(text=str(row.ablation)),
                _seeds(row),
                mean(row, read_auc),
                replace(auc_change, mark=question.mark(adjusted)),
                number(None if difference is None else difference.p_value),
                number(adjusted),
                mean(row, read_hm),
                hm_change,
            ]
        )
    runs = [run for row in (full, *switches) for run in row.runs]
    texts = (
        caption(runs),
        test_split(runs),
        "Change: to the full model, mean of the paired differences over the seeds that both have, in points.",
        tests(question, tested, "each shares one seed with the full model" if len(full.done) > 1 else ONE_RUN),
    )
    asked = {ablation.name: ablation.question for ablation in METHODS.get(full.method).info.ablations}
    questions = [f"{row.ablation}: {asked[row.ablation]}" for row in switches if row.ablation in asked]
    missing = [*undefined_notes(runs, ("AUC", "HM")), *mixture_notes(runs)]
    notes = [*gaps(group, (full, *switches), same_seeds=False), *missing, *known.reasons, *questions]
    return Table(f"Ablations of {full.label}", " ".join(text for text in texts if text), HEADS, lines, notes)


def changes(full: Row, switches: Sequence[Row], question: Question) -> Changes:
    """Compare each switch with the full model on the seeds that both have; the family of tests is all switches."""
    by_seeds: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(switches):
        if shared := tuple(seed for seed in full.seeds if seed in row.seeds):
            by_seeds.setdefault(shared, []).append(place)
    found: dict[int, Evidence] = {}
    p_values: list[float] = []
    reasons: dict[str, None] = {}
    for shared, places in by_seeds.items():
        base = full.of_seeds(shared)
        own = evidence([base, *(switches[place].of_seeds(shared) for place in places)], base, question)
        reasons |= dict.fromkeys(own.notes)
        for place in places:
            if (difference := own.difference(switches[place].label)) is not None:
                found[place] = own
                p_values.append(difference.p_value)
    if not found:
        return Changes({}, {}, list(reasons))
    from benchmarks.significance import holm

    adjusted = dict(zip(found, holm(np.array(p_values)).tolist(), strict=True))
    return Changes(found, adjusted, list(reasons))


def _seeds(row: Row) -> Cell:
    return Cell(text=seeds(row, {run.spec.seed for run in row.runs}))
