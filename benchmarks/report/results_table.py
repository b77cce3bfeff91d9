"""The main table of a group, and the differences of its methods from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.report.budgets import budget_notes
from benchmarks.report.captions import ONE_RUN, caption, gaps, intervals, test_split, tests
from benchmarks.report.cells import LABELS, MAIN, Metric, difference_cell, lines, mean, number
from benchmarks.report.evidence import SHOWN, Evidence
from benchmarks.report.groups import Group, Row, test_metric
from benchmarks.report.machines import mixture_notes
from benchmarks.report.table_model import GAP, Cell, Column, Table
from benchmarks.report.undefined import undefined_notes
from benchmarks.runs.numbers import defined
from benchmarks.runs.records import RunRecord

LEGEND = (
    "S, U: accuracy on seen and unseen pairs when the other group is forbidden; G: how well one bias tells the groups "
    "apart; AUC = S U G; HM: best harmonic mean; HM@val: at the bias chosen on validation; state, object: at bias 0."
)


def unseen_cap(run: RunRecord) -> float | None:
    """Return the share of unseen test images whose pair is still a candidate."""
    world = run.finished.open_world
    return test_metric("unseen_cap")(run) if world is None else defined(world.unseen_cap.test)


CAP: Metric = (Column("cap", digits=0, larger_is_better=None), unseen_cap)
"""Stands beside U in the open world, where a threshold takes right answers away. Without digits it fits 80 columns."""


def main_table(
    group: Group, rows: Sequence[Row], found: Evidence, title: str = "Results", notes: Sequence[str] = ()
) -> Table:
    """Return the headline numbers of rows of a group; AUC and HM with intervals where there is evidence."""
    runs = [run for row in rows for run in row.runs]
    columns, legend = list(MAIN), LEGEND
    if runs[0].spec.world == "open":
        columns.insert(1 + [column.name for column, _ in MAIN].index("U"), CAP)
        legend += " cap: share of unseen images whose pair is still a candidate, the most that U can be."
    given = {
        column.name: [replace(mean(row, read), interval=found.interval(row.label, name)) for row in rows]
        for (column, read), name in zip(MAIN, SHOWN, strict=False)
    }
    given["AUC"] = [replace(cell, mark=found.mark(row.label)) for cell, row in zip(given["AUC"], rows, strict=True)]
    said = intervals(found) if any(cell.interval for cells in given.values() for cell in cells) else ""
    texts = [caption(runs), test_split(runs), said, legend]
    if found.comparison is not None and any(cell.mark for cell in given["AUC"]):
        texts.append(f"*: the AUC differs from that of {found.comparison.baseline} (table of differences).")
    return Table(
        title,
        " ".join(text for text in texts if text),
        [*LABELS, *(column for column, _ in columns)],
        lines(rows, columns, given),
        [
            *gaps(group, rows),
            *undefined_notes(runs, [column.name for column, _ in columns]),
            *budget_notes(runs),
            *mixture_notes(runs),
            *found.notes,
            *notes,
        ],
    )


DIFFERENCES = (
    Column("AUC", signed=True),
    Column("p", percent=False, p_value=True, exact=False),
    Column("p Holm", percent=False, p_value=True, exact=False),
    Column("d_z", percent=False, signed=True, exact=False),
    Column("beats", digits=0),
    Column("differ"),
    Column("HM", signed=True),
)


def _undiscordant(runs: Sequence[RunRecord]) -> list[str]:
    """Say why images that only one of two methods gets right are not counted, where validation chose no bias."""
    reasons = dict.fromkeys(reason for run in runs if (reason := run.finished.selection.no_bias))
    return [f"{GAP} of differ: no bias was chosen, because {reason}." for reason in reasons]


def differences_table(rows: Sequence[Row], baseline: Row, found: Evidence) -> Table:
    """Return how each other row with results differs from the baseline, with tests and effect sizes."""
    others = [row for row in rows if row is not baseline and row.done]
    runs = [run for row in (baseline, *others) for run in row.done]
    tested = {row.label: difference for row in others if (difference := found.difference(row.label)) is not None}
    baseline_alone = len(baseline.done) == 1 and any(len(row.done) > 1 for row in others)
    texts = (
        f"Mean of each method less that of {baseline.label}, in points.",
        caption(runs, spread=False),
        test_split(runs),
        tests(found.question, tested, f"{baseline.label} has one run" if baseline_alone else ONE_RUN),
        f"d_z: mean difference over seeds in units of its standard deviation; beats: how often a run of the method has "
        f"a larger AUC than one of {baseline.label}, percent; differ: share of test images that only one of the two "
        "gets right, each at its validation bias.",
    )
    read_auc, read_hm = (test_metric(name) for name in SHOWN)
    rows_of_cells = []
    for row in others:
        difference = tested.get(row.label)
        seeds = None if difference is None else difference.seeds
        rows_of_cells.append(
            [
                Cell(text=row.label),
                replace(difference_cell(row, baseline, read_auc, difference), mark=found.mark(row.label)),
                number(None if difference is None else difference.p_value),
                number(None if difference is None else difference.adjusted_p),
                number(None if seeds is None else seeds.effect_size),
                number(None if seeds is None else seeds.improvement),
                number(found.discordant(row.label)),
                difference_cell(row, baseline, read_hm, found.difference(row.label, SHOWN[1])),
            ]
        )
    return Table(
        f"Differences from {baseline.label}",
        " ".join(text for text in texts if text),
        [LABELS[0], *DIFFERENCES],
        rows_of_cells,
        [
            *undefined_notes(runs, ("AUC", "HM")),
            *_undiscordant(runs),
            *budget_notes(runs),
            *mixture_notes(runs),
            *found.notes,
        ],
        name="differences",  # whatever the baseline, so that a file of another one does not stay behind
    )
