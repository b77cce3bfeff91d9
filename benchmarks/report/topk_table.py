"""Top-k numbers, as VAW-CZSL prints them: right is an image whose pair is among the k best after the bias."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.evaluation.topk import KEPT, topk_curve
from benchmarks.report.captions import caption, test_split
from benchmarks.report.cells import LABELS, Metric, lines
from benchmarks.report.groups import Row
from benchmarks.report.scored_runs import phase_arrays, scores_and_labels
from benchmarks.report.table_model import Column, Table
from benchmarks.runs.numbers import defined
from benchmarks.runs.records import RunFolder, RunRecord
from errors import UserError

NUMBERS = ("AUC", "HM", "S", "U")


def check_topk(topk: Sequence[int]) -> None:
    """Refuse numbers k for which no record keeps enough, as a `UserError`."""
    for k in topk:
        if not 1 <= k <= KEPT:
            raise UserError(
                f"There are no top-{k} numbers.",
                f"A record keeps what k from 1 to {KEPT} need.",
                f"Pass --top-k with numbers up to {KEPT}.",
            )


def topk_table(rows: Sequence[Row], topk: Sequence[int]) -> Table:
    """Return AUC, best HM, S and U of each row's exact top-k curves; a row whose records keep too little has gaps."""
    found: dict[str, dict[tuple[str, int], float | None]] = {}
    lacking: dict[str, list[str]] = {}
    for row in rows:
        for run in row.done:
            numbers = _numbers(run, topk)
            found[run.run_id] = numbers if isinstance(numbers, dict) else {}
            if isinstance(numbers, str):
                lacking.setdefault(numbers, []).append(run.run_id)

    def number(name: str, k: int, run: RunRecord) -> float | None:
        return found[run.run_id].get((name, k))

    metrics: list[Metric] = [(Column(f"{name}@{k}"), partial(number, name, k)) for k in topk for name in NUMBERS]
    runs = [run for row in rows for run in row.runs]
    text = (
        "Numbers of the exact top-k curve: an image counts as right if its pair is among the k best candidates after "
        "the bias, which forbids one group or trades the two as in the main table. Not to be set beside top-1 numbers."
    )
    notes = [f"No top-k numbers of {', '.join(ids)}: {reason}." for reason, ids in lacking.items()]
    heads = [*LABELS, *(column for column, _ in metrics)]
    return Table("Top-k", f"{text} {caption(runs)} {test_split(runs)}", heads, lines(rows, metrics), notes)


def _numbers(run: RunRecord, topk: Sequence[int]) -> dict[tuple[str, int], float | None] | str:
    """Return a run's numbers by name and k, or why it has none."""
    try:
        scores, _ = scores_and_labels(phase_arrays(RunFolder(run.path).read_arrays(), "test"))
    except (UserError, KeyError, ValueError):
        return "the per-image scores cannot be read"
    if scores.top_others is None:
        if run.spec.open_world is not None:
            return "under a threshold of the open world they are not kept"
        return "the record is of a release that did not keep the k best scores; run it again with --on-existing redo"
    numbers: dict[tuple[str, int], float | None] = {}
    for k in topk:
        curve = topk_curve(scores, k)
        values = (curve.auc, curve.best_hm.hm, float(curve.seen[0]), float(curve.unseen[-1]))
        numbers |= {(name, k): defined(value) for name, value in zip(NUMBERS, values, strict=True)}
    return numbers
