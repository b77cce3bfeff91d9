"""Numbers of papers beside measured ones, where data, backbone and world are the same, and a plain word where not.

`published_results.csv` has the numbers (percent) with the tables that they were read from.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.report.captions import caption
from benchmarks.report.cells import mean, number
from benchmarks.report.groups import Group, Reader, Row
from benchmarks.report.machines import mixture_notes
from benchmarks.report.table_model import GAP, Cell, Column, Table
from benchmarks.report.undefined import undefined_notes
from benchmarks.runs.numbers import defined
from benchmarks.runs.records import RunRecord
from benchmarks.runs.spec import EXTERNAL, NOT_KNOWN
from registry import DATASETS

FILE = Path(__file__).parents[1] / "published_results.csv"

PAPERS_BACKBONES = {"ViT-L-14-quickgelu/openai": "ViT-L/14"}
"""What papers call backbones, by our names."""

PAPERS_METHODS = {
    "caila": "CAILA",
    **{"clip_zero_shot": "CLIP", "coop": "CoOp", "csp": "CSP", "troika": "Troika", "msci": "MSCI"},
    "cams": "CAMS",
    "vp_cmjl": "VP-CMJL",
}
"""What papers call methods, by our names; DFSP is of several fusions."""

PAPERS_FUSIONS = {"t2i": "DFSP(t2i)", "i2t": "DFSP(i2t)", "bif": "DFSP(BiF)"}

NUMBERS = {"seen": ("S", "best_seen"), "unseen": ("U", "best_unseen"), "hm": ("HM", "best_hm"), "auc": ("AUC", "auc")}
"""Columns of the file, with their names in a table and in a run's `legacy` result."""


@dataclass(frozen=True)
class PublishedResult:
    """A line of a paper's table. numbers: fractions by the file's column, NaN where the source has none."""

    method: str
    venue: str
    year: str
    backbone: str
    dataset: str
    world: str
    numbers: Mapping[str, float]
    source: str


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return the published numbers, in order of the file: by world, then year."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            PublishedResult(
                numbers={name: float(line.pop(name) or "nan") / 100 for name in NUMBERS},
                **line,
            )
            for line in csv.DictReader(file)
        )


def comparable(group: Group) -> list[PublishedResult] | str:
    """Return the published numbers that a group's may be compared with, or why there are none, as a sentence."""
    spec = group.runs[0].spec
    of_data = [entry for entry in published_results() if entry.dataset == spec.dataset]
    if not of_data:
        return f"No published numbers stand beside these: there are none of {spec.dataset}."
    backbone = PAPERS_BACKBONES.get(spec.backbone, spec.backbone if spec.external is not None else None)
    if spec.backbone == NOT_KNOWN:
        return "No published numbers stand beside these: their backbone is not known; score --backbone-name says it."
    found = [entry for entry in of_data if entry.backbone == backbone and entry.world == spec.world]
    if not found:
        there = ", ".join(sorted({entry.backbone for entry in of_data if entry.world == spec.world}))
        return (
            f"No published numbers stand beside these: those of {spec.dataset} in the {spec.world} world are of "
            f"{there or 'no backbone'}, these of {spec.backbone}."
        )
    return _other_images(group) or found


def _other_images(group: Group) -> str:
    """Say whether the test images are others than the published ones: a made miniature, or some that are missing."""
    spec = group.runs[0].spec
    about = getattr(DATASETS.get(spec.dataset), "published", None)
    counts = {run.result.counts.test_images for run in group.runs if run.result is not None}
    if about is None or counts <= {about.test.images}:
        return ""
    here = " or ".join(f"{count:,}" for count in sorted(counts, key=str))
    return f"No published numbers stand beside these: they are of {about.test.images:,} test images, these of {here}."


def published_name(row: Row) -> str | None:
    """Return what papers call a row's method; None if they do not have it."""
    if row.runs[0].spec.external is not None:
        said = {paper_of(row.runs[0]).casefold(), row.method.removeprefix(EXTERNAL).casefold()}
        return next((entry.method for entry in published_results() if entry.method.casefold() in said), None)
    if row.method == "dfsp":
        return PAPERS_FUSIONS.get(str(row.runs[0].spec.method_config.get("fusion", "t2i")))
    return PAPERS_METHODS.get(row.method)


def paper_of(run: RunRecord) -> str:
    """Return what was said of the paper of scores that came from a file; "" for nothing."""
    return str((run.environment.get("scores") or {}).get("paper", ""))


def published_table(group: Group, entries: Sequence[PublishedResult]) -> Table:
    """Return every published line with what was measured here, by the published evaluator, beside it."""
    measured = [row for row in group.full if row.done]
    heads = [Column("method"), *(Column(f"{name} paper") for name, _ in NUMBERS.values())]
    heads += [Column(f"{name} here") for name, _ in NUMBERS.values()]
    lines = []
    for entry in entries:
        papers = [number(entry.numbers[name]) for name in NUMBERS]
        own = [row for row in measured if published_name(row) == entry.method]
        label = f"{entry.method} ({f'{entry.venue} {entry.year}'.strip()})"  # a reproduction has no venue
        variants: list[Row | None] = [*own] or [None]
        for row in variants:
            here = [Cell(text=GAP) if row is None else mean(row, _legacy(key)) for _, key in NUMBERS.values()]
            variant = f", {row.label}" if row is not None and len(own) > 1 else ""
            lines.append([Cell(text=label + variant), *papers, *here])
    names = {entry.method for entry in entries}
    others = [row.label for row in measured if published_name(row) not in names]
    runs = [run for row in measured for run in row.done]
    text = (
        "Paper: as printed there, mostly of one run, each with its own settings and rules for the epoch that counts. "
        f"Here: {caption(runs)} Test split, percent, by the published evaluator (a sweep of about 20 biases), hence a "
        "little off the other tables' exact one. The official profile (--profile official) is the nearest to what the "
        "papers did."
    )
    notes = [f"No published numbers of {', '.join(others)}."] if others else []
    notes += [*undefined_notes(runs, ("AUC", "HM")), *mixture_notes(runs)]
    return Table("Published numbers", text, heads, lines, notes, _sources(entries))


def _legacy(name: str) -> Reader:
    def read(run: RunRecord) -> float | None:
        result = run.finished
        if result.legacy is None or math.isnan(result.metrics.test.auc):  # the sweep gives 0 without a group
            return None
        return defined(getattr(result.legacy.test, name))

    return read


def _sources(entries: Sequence[PublishedResult]) -> list[str]:
    """Return the sources, each with the methods whose numbers were read there."""
    methods: dict[str, list[str]] = {}
    for entry in entries:
        methods.setdefault(entry.source, []).append(entry.method)
    return [f"{', '.join(names)}: {source}." for source, names in methods.items()]
