"""Tables from run records alone: one model of a table, filled here and drawn by `render.py`.

Runs are compared only where data, backbone, world, profile, precision and protocol agree; anything else is another
table. A run that failed or is not finished is shown as a gap.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.records import RunRecord
from registry import METHODS


@dataclass(frozen=True)
class Cell:
    """A number with its spread, both in the column's unit, or a text. best, second: whether it is the
    largest of its column, or the second of more than two."""

    value: float | None = None
    spread: float | None = None
    text: str = ""
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Column:
    """A column's head and how its numbers are shown: "percent" of a fraction, or plain with some digits.

    signed: with a plus before positive numbers.
    """

    name: str
    percent: bool = True
    digits: int = 1
    larger_is_better: bool | None = True
    signed: bool = False


@dataclass(frozen=True)
class Table:
    """A table with all it needs to be understood: the caption says data, backbone, profile, selection and seeds."""

    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """The runs of one method with one setting, one per seed."""

    label: str
    runs: Sequence[RunRecord]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.runs[0].spec.method

    @property
    def ablation(self) -> str | None:
        """The switch, None for the full model."""
        return self.runs[0].spec.ablation

    @property
    def done(self) -> list[RunRecord]:
        """Return the runs that have a result."""
        return [run for run in self.runs if run.result is not None]


def test_metric(name: str) -> Callable[[RunRecord], float | None]:
    """Return a reader of a metric of the test split, "auc" or dotted as in "at_zero.state"."""

    def read(run: RunRecord) -> float | None:
        value: Any = run.result["metrics"]["test"]  # type: ignore[index]
        for part in name.split("."):
            value = value[part]
        return value

    return read


MAIN: tuple[tuple[Column, Callable[[RunRecord], float | None]], ...] = (
    (Column("AUC"), test_metric("auc")),
    (Column("HM"), test_metric("best_hm")),
    (Column("S"), test_metric("best_seen")),
    (Column("U"), test_metric("best_unseen")),
    (Column("G"), test_metric("gate")),
    (Column("HM@val"), test_metric("at_bias.hm")),
    (Column("state"), test_metric("at_zero.state")),
    (Column("object"), test_metric("at_zero.object")),
)


def unseen_cap(run: RunRecord) -> float | None:
    """Return the share of unseen test images whose pair is still a candidate."""
    world = run.result.get("open_world")  # type: ignore[union-attr]
    return test_metric("unseen_cap")(run) if world is None else world["unseen_cap"]["test"]


CAP = (Column("cap", digits=0, larger_is_better=None), unseen_cap)
"""Stands beside U in the open world, where a threshold takes right answers away. Without digits it fits 80 columns."""

COST: tuple[tuple[Column, Callable[[RunRecord], float | None]], ...] = (
    (
        Column("parameters", percent=False, digits=0, larger_is_better=None),
        lambda run: run.result["cost"]["trained_parameters"],  # type: ignore[index]
    ),
    (
        Column("train s", percent=False, larger_is_better=None),
        lambda run: run.result["cost"]["train_seconds"],  # type: ignore[index]
    ),
    (
        Column("MB", percent=False, digits=0, larger_is_better=None),
        lambda run: run.result["cost"]["peak_memory_bytes"] / 1e6,  # type: ignore[index]
    ),
)


def conditions(run: RunRecord) -> tuple[str, ...]:
    """Return what must agree for two runs to stand in one table."""
    spec, world = run.spec, run.spec.open_world
    masked = ("", "", "") if world is None else (world.feasibility, world.feasibility_digest or "", world.masking)
    return (
        spec.dataset, spec.dataset_digest, spec.backbone, spec.backbone_digest, spec.world, spec.profile,
        spec.precision, str(spec.protocol_version), *masked,
    )  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Runs that may be compared. rows: the full models and the ablations, in order."""

    runs: Sequence[RunRecord]
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """What the runs have in common, in short."""
        spec = self.runs[0].spec
        profile = "" if spec.profile == "clean" else f", {spec.profile} profile"
        return f"{spec.dataset}, {spec.world} world, {spec.backbone}{profile}, {spec.precision}"

    @property
    def full(self) -> list[Row]:
        """The rows of full models."""
        return [row for row in self.rows if row.ablation is None]

    def switches(self, full: Row) -> list[Row]:
        """Return the rows of a full model's ablations, which differ from it in the switched settings alone."""
        return [row for row in self.rows if row.ablation is not None and _switched(full, row)]

    @cached_property
    def tables(self) -> list[Table]:
        """The main table, those of ablations, the slices and the cost."""
        full, main = self.full, [run for row in self.full for run in row.runs]
        found = [_main(full, main), *_slices(full, main), _cost(full, main)] if full else []
        shown = []
        for row in full:
            if switches := self.switches(row):
                found.append(_ablations(row, switches))
                shown += map(id, switches)
        alone = [row for row in self.rows if row.ablation is not None and id(row) not in shown]
        if alone:  # ablations whose full model was not run are shown without a comparison
            found.append(_main(alone, [run for row in alone for run in row.runs]))
        return found


def _switched(full: Row, row: Row) -> bool:
    """Return whether `row` is `full` but for what its ablation changes."""
    if row.method != full.method:
        return False
    declared = {ablation.name: ablation.changes for ablation in METHODS.get(row.method).info.ablations}
    ours, base = row.runs[0].spec.settings, full.runs[0].spec.settings
    return all(value == base.get(key) for key, value in ours.items() if key not in declared.get(row.ablation or "", ()))


def groups(runs: Iterable[RunRecord]) -> list[Group]:
    """Return the runs grouped by what must agree, see `conditions`."""
    found: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        found.setdefault(conditions(run), []).append(run)
    return [Group(members, _rows(members)) for _, members in sorted(found.items(), key=lambda item: item[0])]


def tables(runs: Iterable[RunRecord]) -> list[Table]:
    """Return the tables of every group of comparable runs."""
    return [table for group in groups(runs) for table in group.tables]


def _rows(runs: Sequence[RunRecord]) -> list[Row]:
    """Group runs into rows; where a method was run with several settings, the label says which differ."""
    order = {name: place for place, name in enumerate(METHODS.names())}
    titles = {entry.name: entry.title or entry.name for entry in METHODS.entries()}
    by_method: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_method.setdefault(run.spec.method, []).append(run)
    rows = []
    for method in sorted(by_method, key=lambda name: (order.get(name, len(order)), name)):
        variants: dict[str, list[RunRecord]] = {}
        for run in by_method[method]:
            key = repr((run.spec.ablation, sorted(run.spec.settings.items())))
            variants.setdefault(key, []).append(run)
        first = [group[0].spec.settings for group in variants.values() if group[0].spec.ablation is None]
        differing = [
            key for key in (first[0] if first else {}) if len({repr(setting.get(key)) for setting in first}) > 1
        ]
        for group in variants.values():
            setting = group[0].spec.settings
            ablation = group[0].spec.ablation
            marks = [ablation] if ablation is not None else [f"{key}={setting[key]}" for key in differing]
            label = titles.get(method, method) + (f" ({', '.join(marks)})" if marks else "")
            rows.append(Row(label, sorted(group, key=lambda run: run.spec.seed)))
    return rows


def _cells(
    rows: Sequence[Row], columns: Sequence[tuple[Column, Callable[[RunRecord], float | None]]]
) -> list[list[Cell]]:
    """Return a line of cells per row, the best two of each column marked where there is something to compare."""
    lines = [[Cell(text=row.label), Cell(text=_seeds(row))] for row in rows]
    for column, read in columns:
        cells = [_mean(row, read) for row in rows]
        known = sorted({cell.value for cell in cells if cell.value is not None}, reverse=True)
        compared = column.larger_is_better and sum(cell.value is not None for cell in cells) > 1
        best = known[0] if compared else None
        second = known[1] if compared and len(known) > 2 else None
        for line, cell in zip(lines, cells, strict=True):
            marks = (cell.value is not None and cell.value == mark for mark in (best, second))
            line.append(Cell(cell.value, cell.spread, cell.text, *marks))
    return lines


def _seeds(row: Row) -> str:
    missing = len(row.runs) - len(row.done)
    return f"{len(row.done)}" + (f" (+{missing} missing)" if missing else "")


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _mean(row: Row, read: Callable[[RunRecord], float | None]) -> Cell:
    values = [value for value in map(read, row.done) if _known(value)]
    if not values:
        return Cell(text="–")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), spread)


def _caption(runs: Sequence[RunRecord]) -> str:
    spec = runs[0].spec
    policies = {run.spec.training.selection for run in runs if run.spec.training.epochs > 0}
    seeds = sorted({run.spec.seed for run in runs})
    several = "± is the standard deviation over seeds" if len(seeds) > 1 else "one seed, so no spread is shown"
    return (
        f"{spec.dataset}, {spec.world} world{_masking(runs)}, backbone {spec.backbone}, profile {spec.profile}, "
        f"{spec.precision}; epoch selected by {', '.join(sorted(policies)) or 'nothing'}; "
        f"seeds {', '.join(map(str, seeds))}; {several}. Test split, percent, exact evaluator."
    )


def _masking(runs: Sequence[RunRecord]) -> str:
    """Say in brackets what removes pairs from an open world, where anything does."""
    worlds = [run.spec.open_world for run in runs if run.spec.open_world is not None]
    if not worlds:
        return ""
    thresholds = {"searched" if world.threshold == "search" else f"{world.threshold:g}" for world in worlds}
    places = sorted({world.selection_world for world in worlds})
    return (
        f" (feasibility: {worlds[0].feasibility}, threshold {', '.join(sorted(thresholds))}, masking "
        f"{worlds[0].masking}, epoch chosen in the {' or '.join(places)} world)"
    )


def _gaps(runs: Sequence[RunRecord]) -> list[str]:
    """Return notes on what is not there: images that were left out (the same for all runs), and results."""
    notes = []
    names = next((run.result["left_out_images"] for run in runs if "left_out_images" in (run.result or {})), None)
    if names is not None:
        notes.append(f"{len(names)} images that the splits list were missing and left out; the records name them.")
    for run in runs:
        if run.status == "failed" and run.error is not None:
            notes.append(f"{run.run_id} failed: {run.error['message']}")
        elif run.status != "done":
            notes.append(f"{run.run_id} is not finished ({len(run.epochs)} epochs so far).")
    return notes


def _main(rows: Sequence[Row], runs: Sequence[RunRecord]) -> Table:
    columns = list(MAIN)
    if runs[0].spec.world == "open":
        columns.insert(1 + [column.name for column, _ in MAIN].index("U"), CAP)
    heads = [Column("method"), Column("seeds"), *(column for column, _ in columns)]
    legend = (
        "S, U: accuracy on seen and unseen pairs when the other group is forbidden; G: how well one bias tells the "
        "groups apart; AUC = S U G; HM: best harmonic mean; HM@val: at the bias chosen on validation; state, object: "
        "at bias 0."
    )
    if runs[0].spec.world == "open":
        legend += " cap: share of unseen images whose pair is still a candidate, the most that U can be."
    return Table("Results", f"{_caption(runs)} {legend}", heads, _cells(rows, columns), _gaps(runs))


def _slice_value(tag: str, value: str, group: str) -> Callable[[RunRecord], float | None]:
    def read(run: RunRecord) -> float | None:
        for entry in run.result["slices"]:  # type: ignore[index]
            if (entry["tag"], entry["value"], entry["group"]) == (tag, value, group):
                return entry["own_pair"]
        return None

    return read


def _slices(rows: Sequence[Row], runs: Sequence[RunRecord]) -> list[Table]:
    """Return a table per tag, with a column for each of its values and groups."""
    done = [run for run in runs if run.result is not None]
    tags: dict[str, dict[str, None]] = {}
    measured = set()  # an unseen pair has no training images, so some values belong to one group alone
    for run in done:
        for entry in run.result["slices"]:  # type: ignore[index]
            tags.setdefault(entry["tag"], {})[entry["value"]] = None
            if _known(entry["own_pair"]):
                measured.add((entry["tag"], entry["value"], entry["group"]))
    found = []
    for tag, values in tags.items():
        columns = [
            (Column(f"{value} {group}"), _slice_value(tag, value, group))
            for value in values
            for group in ("seen", "unseen")
            if (tag, value, group) in measured
        ]
        heads = [Column("method"), Column("seeds"), *(column for column, _ in columns)]
        caption = f"Pair accuracy inside an image's own group (seen or unseen), by {tag}. {_caption(runs)}"
        found.append(Table(f"Slices by {tag}", caption, heads, _cells(rows, columns)))
    return found


def _cost(rows: Sequence[Row], runs: Sequence[RunRecord]) -> Table:
    heads = [Column("method"), Column("seeds"), *(column for column, _ in COST)]
    devices = sorted({str(run.environment.get("device", "?")) for run in runs})
    caption = (
        f"On {', '.join(devices)}. Numbers trained; seconds of training without validation; peak memory in MB, of the "
        "accelerator, or on the CPU of the whole process up to then."
    )
    return Table("Cost", caption, heads, _cells(rows, COST))


def _ablations(full: Row, switches: Sequence[Row]) -> Table:
    """Return the full model and each switch with its change, on the seeds that both have."""
    signed = Column("change", larger_is_better=True, signed=True)
    heads = [Column("switch"), Column("seeds"), Column("AUC"), signed, Column("HM"), signed]
    lines = []
    for row in (full, *switches):
        line = [Cell(text=row.ablation or full.label), Cell(text=_seeds(row))]
        for name in ("auc", "best_hm"):
            read = test_metric(name)
            line += [_mean(row, read), Cell(text="") if row is full else _change(full, row, read)]
        lines.append(line)
    asked = {ablation.name: ablation.question for ablation in METHODS.get(full.method).info.ablations}
    questions = [f"{row.ablation}: {asked[row.ablation]}" for row in switches if row.ablation in asked]
    runs = [run for row in (full, *switches) for run in row.runs]
    caption = (
        f"{_caption(runs)} Change: to the full model, mean of the paired differences over the seeds that both have."
    )
    return Table(f"Ablations of {full.label}", caption, heads, lines, [*_gaps(runs), *questions])


def paired_differences(full: Row, row: Row, read: Callable[[RunRecord], float | None]) -> list[float]:
    """Return what `read` gives for a row less what it gives for the full model, for each seed that both have."""
    reference = {run.spec.seed: read(run) for run in full.done}
    return [read(run) - reference[run.spec.seed] for run in row.done if run.spec.seed in reference]  # type: ignore[operator]


def _change(full: Row, row: Row, read: Callable[[RunRecord], float | None]) -> Cell:
    differences = paired_differences(full, row, read)
    if not differences:
        return Cell(text="–")
    return Cell(statistics.fmean(differences), statistics.stdev(differences) if len(differences) > 1 else None)


def summary(run: RunRecord) -> Mapping[str, float | None]:
    """Return a finished run's headline numbers, fractions."""
    return {column.name: read(run) for column, read in MAIN}
