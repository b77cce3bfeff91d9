"""The tables of a report. Which runs may stand together is `groups.py`, each kind of table has a module of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from benchmarks.report.ablations import ablation_table
from benchmarks.report.cells import MAIN
from benchmarks.report.convergence import convergence_table
from benchmarks.report.costs import cost_table
from benchmarks.report.evidence import Evidence, Question, choose_baseline, evidence
from benchmarks.report.failures import Failures, attempt
from benchmarks.report.formats import is_known
from benchmarks.report.groups import Group, Row, groups
from benchmarks.report.published import comparable, published_table
from benchmarks.report.results_table import differences_table, main_table
from benchmarks.report.slices import slice_tables
from benchmarks.report.table_model import Table
from benchmarks.report.topk_table import topk_table
from benchmarks.runs.records import RunRecord


def tables(runs: Iterable[RunRecord], question: Question | None = None) -> list[Table]:
    """Return the tables of every group of comparable runs."""
    return [table for group in groups(runs) for table in group_tables(group, question)]


def group_tables(group: Group, question: Question | None = None, failures: Failures | None = None) -> list[Table]:
    """Return a group's tables: results, differences, published numbers, slices, cost, ablations.

    failures: takes what cannot be made, so that the other tables stand; None: the first error ends the work.
    """
    question = Question() if question is None else question

    full = group.full
    found = _of_full_models(group, full, question, failures) if full else []
    shown: list[int] = []
    for row in full:
        title = f"Ablations of {row.label}"
        if switches := attempt(failures, title, partial(group.switches, row)):
            found.append(attempt(failures, title, partial(ablation_table, group, row, switches, question)))
            shown += map(id, switches)
    alone = [row for row in group.rows if row.ablation is not None and id(row) not in shown]
    if alone:  # ablations whose full model was not run are shown without a comparison
        title = "Results of ablations without their full model"
        found.append(attempt(failures, title, lambda: main_table(group, alone, evidence(alone, None, question), title)))
    return [_told_apart(table, group) for table in found if table is not None]


def _of_full_models(group: Group, full: list[Row], question: Question, failures: Failures | None) -> list[Table | None]:
    baseline = choose_baseline(full, question)
    known = attempt(failures, "Intervals and tests", lambda: evidence(full, baseline, question))
    known = known or Evidence(question, None, {"": "they could not be made."})
    papers = attempt(failures, "Published numbers", lambda: comparable(group)) or ""
    notes = [papers] if isinstance(papers, str) and papers else []
    several = sum(bool(row.done) for row in full) > 1
    if several and baseline is None:
        notes.append(f"No differences: the baseline {question.baseline} has no finished run under these conditions.")
    found = [attempt(failures, "Results", lambda: main_table(group, full, known, notes=notes))]
    if several and baseline is not None:
        found.append(attempt(failures, "Differences", lambda: differences_table(full, baseline, known)))
    if not isinstance(papers, str) and any(row.done for row in full):
        found.append(attempt(failures, "Published numbers", lambda: published_table(group, papers)))
    if question.topk and any(row.done for row in full):
        found.append(attempt(failures, "Top-k", lambda: topk_table(full, question.topk)))
    found += attempt(failures, "Slices", lambda: slice_tables(full)) or []
    found.append(attempt(failures, "Convergence", lambda: convergence_table(full)))
    run_here = [row for row in full if row.runs[0].spec.external is None]
    return [*found, attempt(failures, "Cost", lambda: cost_table(run_here)) if run_here else None]


def _told_apart(table: Table, group: Group) -> Table:
    """Return the table with what tells its group from another one of its name, or of a name that LaTeX cannot print."""
    spec = group.runs[0].spec
    apart = group.distinction.removeprefix(", ")
    apart = apart or ("" if is_known(spec.dataset) else f"data {spec.dataset_digest[:8]}")
    return replace(table, caption=f"{table.caption} The group with {apart}.") if apart else table


def summary(run: RunRecord) -> Mapping[str, float | None]:
    """Return a finished run's headline numbers, fractions."""
    return {column.name: read(run) for column, read in MAIN}
