"""The page beside the committed records: what there is and what is missing, how it was made, how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs.records import RunRecord
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.reference import findings
from benchmarks.studies.reference.collection import missing, planned, request_of
from benchmarks.studies.reference.material import Material, is_quiet
from benchmarks.studies.reference.page_parts import digest, filled, section
from benchmarks.studies.reference.switches import SECOND_BEST, SWITCHES
from registry import METHODS


@dataclass(frozen=True)
class Count:
    """How many runs of a part of the suite there are."""

    what: str
    done: int
    planned: int


def records_page(material: Material) -> str:
    """Return the page beside the records: conditions, commands, wall times, what is missing."""
    there = {request_of(run) for run in material.runs}
    wanted = Counter(_part(run) for run in planned())
    done = Counter(_part(run) for run in there)
    absent = missing(material.runs)
    notices = sorted(
        f"- {run.run_id}: {text}" for run in material.every for start in run.starts for text in start.get("notices", ())
    )
    again = sorted(f"- {run.run_id}: resumed after a stop" for run in material.every if len(run.starts) > 1)
    return filled(
        "records.md.j2",
        {
            "runs": len(material.every),
            "digest": digest(material.every),
            "counts": [
                *(Count(what, done[what], count) for what, count in wanted.items()),
                Count("second-best settings, seed 0", len(material.second_best), len(SECOND_BEST)),
                Count("switches beside the suite", len(material.switched), len(SWITCHES)),
            ],
            "missing": _missing_text(absent),
            "conditions": _conditions(material.every),
            "times": section(times).partition("\n\n")[2] if (times := _times(material)).rows else "",
            "notices": "\n".join(["What happened on the way:", "", *again, *notices]) if notices or again else "",
        },
    )


def _missing_text(absent: Sequence[RunRequest]) -> str:
    if not absent:
        return "Nothing is missing."
    what = "ablations" if all(run.ablation is not None for run in absent) else "runs"
    seeds = findings.names([str(seed) for seed in sorted({run.seed for run in absent})])
    return (
        f"**{len(absent)} runs are missing**: {what} with seeds {seeds}. They are not there because each takes minutes "
        "to hours on two cores, not for what they would show: lower seeds were done first. "
        "`python bench.py run --suite reference --results FOLDER`, with the archives expanded into FOLDER, does the "
        "rest; then `collect` and `build`, as above."
    )


def _part(run: Any) -> str:
    title = METHODS.titles()[run.method]
    if run.ablation is not None:
        return f"ablations of {title}"
    return f"full models, {run.world} world, {run.profile} profile"


def _conditions(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return what the records say of how they were made."""
    environments = [start["environment"] for run in runs for start in run.starts]

    def every(read: Callable[[Mapping[str, Any]], Any]) -> str:
        return ", ".join(sorted({str(read(one)) for one in environments}))

    packages = sorted({(name, number) for one in environments for name, number in one["packages"].items()})
    # Of a program that lies in no git checkout nobody knows the commit.
    sources = [one.get("git") or {} for one in environments]
    dirty = sum(bool(one.get("dirty")) for one in sources)
    commits = Counter(str(one.get("commit", "not known"))[:10] for one in sources)
    return [
        ("commits (starts)", ", ".join(f"{name} ({count})" for name, count in sorted(commits.items()))),
        ("with changes not committed", str(dirty)),
        ("machine", every(_machine)),
        ("threads", every(lambda one: one["threads"])),
        ("Python", every(lambda one: one["python"])),
        ("packages", ", ".join(f"{name} {number}" for name, number in packages)),
        ("data", ", ".join(sorted({run.spec.dataset_digest[:12] for run in runs}))),
        ("weights of the backbone", ", ".join(sorted({run.spec.backbone_digest[:12] for run in runs}))),
        ("precision", ", ".join(sorted({run.spec.precision for run in runs}))),
    ]


def _machine(environment: Mapping[str, Any]) -> str:
    cpu = environment["cpu"]
    return f"{cpu['name']}, {cpu['count']} cores, {environment.get('gpu') or 'no GPU'}; {environment['platform']}"


def _times(material: Material) -> Table:
    """Return wall times by method: training, validation, test."""
    heads = [
        Column(name, percent=False, digits=1, larger_is_better=None)
        for name in ("training", "shortest", "longest", "validation", "test", "in all")
    ]
    lines = []
    for (_, profile), group in sorted(material.groups.items()):
        for row in material.quiet(group):
            if row.runs[0].spec.world == "closed":
                label = row.label if profile == "clean" else f"{row.label}, {profile}"
                lines.append([Cell(text=label), Cell(text=str(len(row.runs))), *map(Cell, _seconds(row.runs))])
    return Table("Wall times", "", [Column("method"), Column("runs"), *heads], lines)


def _seconds(runs: Sequence[RunRecord]) -> list[float]:
    assert all(is_quiet(run) for run in runs)
    training = [run.finished.cost.train_seconds for run in runs]
    validation = fmean(sum(epoch.get("val_seconds", 0.0) for epoch in run.epochs) for run in runs)
    test = fmean(seconds for run in runs if (seconds := run.finished.cost.test_seconds) is not None)
    return [fmean(training), min(training), max(training), validation, test, fmean(training) + validation + test]
