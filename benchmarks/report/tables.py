"""The tables of a report. Which runs may stand together is `groups.py`, each kind of table has a module of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.records import RunRecord
from benchmarks.report.ablations import ablation_table
from benchmarks.report.cells import MAIN
from benchmarks.report.costs import cost_table
from benchmarks.report.evidence import Question, choose_baseline, evidence
from benchmarks.report.groups import Group, Row, group_of, groups, paired_differences, test_metric
from benchmarks.report.main import differences_table, main_table
from benchmarks.report.model import Cell, Column, Table
from benchmarks.report.published import comparable, published_table
from benchmarks.report.slices import slice_tables

__all__ = [
    "Cell", "Column", "Group", "Question", "Row", "Table", "group_of", "group_tables", "groups", "paired_differences",
    "summary", "tables", "test_metric",
]  # fmt: skip


def tables(runs: Iterable[RunRecord], question: Question | None = None) -> list[Table]:
    """Return the tables of every group of comparable runs."""
    return [table for group in groups(runs) for table in group_tables(group, question)]


def group_tables(group: Group, question: Question | None = None) -> list[Table]:
    """Return a group's tables: results, differences, published numbers, slices, cost, ablations."""
    question = Question() if question is None else question
    full = group.full
    found = _of_full_models(group, full, question) if full else []
    shown: list[int] = []
    for row in full:
        if switches := group.switches(row):
            found.append(ablation_table(group, row, switches, question))
            shown += map(id, switches)
    alone = [row for row in group.rows if row.ablation is not None and id(row) not in shown]
    if alone:  # ablations whose full model was not run are shown without a comparison
        known = evidence(alone, None, question)
        found.append(main_table(group, alone, known, "Results of ablations without their full model"))
    return found


def _of_full_models(group: Group, full: list[Row], question: Question) -> list[Table]:
    baseline = choose_baseline(full, question)
    known = evidence(full, baseline, question)
    papers = comparable(group)
    notes = [papers] if isinstance(papers, str) else []
    several = sum(bool(row.done) for row in full) > 1
    if several and baseline is None:
        notes.append(f"No differences: the baseline {question.baseline} has no finished run under these conditions.")
    found = [main_table(group, full, known, notes=notes)]
    if several and baseline is not None:
        found.append(differences_table(full, baseline, known))
    if not isinstance(papers, str) and any(row.done for row in full):
        found.append(published_table(group, papers))
    return [*found, *slice_tables(full), cost_table(full)]


def summary(run: RunRecord) -> Mapping[str, float | None]:
    """Return a finished run's headline numbers, fractions."""
    return {column.name: read(run) for column, read in MAIN}
