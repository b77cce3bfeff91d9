"""From the committed records to docs/results.md, docs/figures/, the page beside the records and the README's table."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from benchmarks.report import figures, style, uncertainty
from benchmarks.report.figures import Change
from benchmarks.report.groups import Row, paired_differences, test_metric
from benchmarks.report.model import Cell, Column, Table
from benchmarks.report.render import markdown
from benchmarks.report.scored import read_scored
from benchmarks.runs import files
from benchmarks.runs.records import RESULT, RunRecord
from benchmarks.runs.suites import RunRequest
from benchmarks.studies.reference import deviations, findings
from benchmarks.studies.reference.collection import FOLDER, ROOT, missing, planned, request_of
from benchmarks.studies.reference.material import Material, Results, cost, is_quiet
from benchmarks.studies.reference.slice_tests import SliceTest, slice_table, slice_tests
from benchmarks.studies.reference.switches import SWITCHES
from errors import UserError
from registry import METHODS

SLICES = (("kind", ("local", "global")), ("clutter", ("present", "none")))
BEGIN, END = "<!-- reference:main -->", "<!-- /reference:main -->"


def build(folder: Path = FOLDER, root: Path = ROOT) -> list[Path]:
    """Make everything anew and return the files that were written. root: of the repository."""
    with Material(folder) as material:
        drawn = root / "docs" / "figures"
        page, made = results_page(material, drawn)
        made += _put(root / "docs" / "results.md", page)
        made += _put(root / "docs" / "deviations.md", deviations_page(material))
        made += _put(folder / "README.md", records_page(material))
        made += put_into_readme(root / "README.md", readme_part(material.results("closed", "clean")))
    return made


def results_page(material: Material, drawn: Path | None = None) -> tuple[str, list[Path]]:
    """Return docs/results.md and the figures that were drawn for it into a folder; None draws nothing."""
    closed, open_, official = (
        material.results(*key) for key in (("closed", "clean"), ("open", "clean"), ("closed", "official"))
    )
    tested = {
        tag: slice_tests(closed.group.full, closed.baseline, tag, values, material.question) for tag, values in SLICES
    }
    ablated = material.ablations
    own = ablated.get(closed.baseline.method)
    labels = {row.method: row.label for row in closed.group.full}
    shared = findings.shared_switches({labels[method]: table for method, table in ablated.items()})
    closed_main = closed.main()
    changes = findings.profile_change(findings.profiles(closed.group, official.group, material.question))
    content = {
        "runs": len(material.every),
        "digest": digest(material.every),
        "closed_standing": findings.standing(closed),
        "open_standing": findings.standing(open_),
        "order": findings.same_order(closed, open_),
        "profile_change": changes,
        "msci_stages": "" if own is None else findings.stages(own),
        "msci_switches": "" if own is None else findings.switches(own),
        "closed_main": section(closed_main),
        "closed_differences": section(closed.differences()),
        "open_main": section(open_.main()),
        "open_differences": section(open_.differences()),
        "official_main": section(official.main()),
        "slices": [section(table) for table in closed.slices()],
        "slice_tests": [
            section(slice_table(tested[tag], closed.baseline, tag, values, material.question)) for tag, values in SLICES
        ],
        "kind_text": _slice_text(tested["kind"], closed, "local states", "global states"),
        "slice_best": findings.best_on_slices([(tested[tag], values) for tag, values in SLICES], closed.baseline.label),
        "clutter_text": _slice_text(tested["clutter"], closed, "images with clutter", "images without"),
        "ablation_caution": _caution(material),
        "ablations_there": _ablations_there(material),
        "shared_switches": "" if shared is None else section(shared),
        "ablations": [
            {
                "table": section(table),
                "text": findings.switches(table),
                "figure": f"figures/ablations-{method}.svg",
            }
            for method, table in ablated.items()
        ],
        "cost": section(cost(material.quiet(closed.group))),
    }
    paths = [] if drawn is None else draw(drawn, material, closed, open_, closed_main, ablated)
    return _filled("results.md.j2", content), paths


def deviations_page(material: Material) -> str:
    """Return docs/deviations.md: what paper, released code and suite do, and what the switches change."""
    clean, official = (material.groups["closed", profile] for profile in ("clean", "official"))
    question = material.question
    switched = deviations.effects(findings.switch_changes(material), question)
    content = {
        "caution": _caution(material),
        "e": partial(deviations.effect, material.ablations),
        "s": lambda name: switched.get(name, deviations.NOT_RUN),
        "w": lambda name: f"`{shlex.join(SWITCHES[name].words)}`",
        "official": deviations.effects(findings.profiles(clean, official, question), question),
    }
    text = _filled("deviations.md.j2", {**content, "not_run": ""})
    if deviations.NOT_RUN not in text:
        return text
    explained = f'"{deviations.NOT_RUN}" means that the switch exists and its run is not there yet. '
    return _filled("deviations.md.j2", {**content, "not_run": explained})


def section(table: Table) -> str:
    """Return a table as Markdown, one heading deeper, for a page that has headings of its own."""
    return "#" + markdown(replace(table, notes=[note for note in table.notes if "published numbers" not in note]))


def readme_part(results: Results) -> str:
    """Return the README's table: the main table of the closed world without what is said beside it."""
    table = results.main()
    left_out = [place for place, column in enumerate(table.columns) if column.name == "seeds"]
    columns = [column for place, column in enumerate(table.columns) if place not in left_out]
    rows = [[cell for place, cell in enumerate(row) if place not in left_out] for row in table.rows]
    lines = [line for line in markdown(replace(table, columns=columns, rows=rows)).splitlines() if line.startswith("|")]
    seeds = len({run.spec.seed for run in results.group.runs if run.spec.ablation is None})
    question, label = results.found.question, results.baseline.label
    return "\n".join(
        [
            f"Test split of the embedded data set, closed world, percent: mean ± standard deviation, {seeds} seeds,",
            f"[{100 * question.level:g} % interval over seeds and test images]; \\*: the AUC differs from {label}'s",
            f"(bootstrap over seeds and images, p at most {1 - question.level:.2g} after Holm's adjustment for the "
            f"{len(rows) - 1} comparisons):",
            "",
            *lines,
            "",
            "![Accuracy on seen against accuracy on unseen pairs](docs/figures/seen-unseen-closed.svg)",
        ]
    )


def put_into_readme(path: Path, part: str) -> list[Path]:
    """Put the README's part between its markers; markers that are not there are a `UserError`."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{path.name} has no place for the table.", f"It lacks {BEGIN} and {END}.", "Put them back.")
    files.put_between(path, BEGIN, END, part)
    return [path]


def digest(runs: Sequence[RunRecord]) -> str:
    """Return the first digits of a digest of all results, which tells whether a page is of just these records."""
    found = hashlib.sha256()
    for run in sorted(runs, key=lambda run: run.run_id):
        found.update(run.run_id.encode() + (run.path / RESULT).read_bytes())
    return found.hexdigest()[:12]


def _slice_text(tests: Sequence[SliceTest], results: Results, first: str, second: str) -> str:
    label = results.baseline.label
    parts = [findings.on_slice(tests, part, label, f"On {where}") for part, where in enumerate((first, second))]
    return " ".join([*parts, findings.interaction(tests, label, first, second)])


def _caution(material: Material) -> str:
    """Say on how many seeds ablations rest."""
    seeds = sorted({run.spec.seed for run in material.runs if run.spec.ablation is not None})
    if len(seeds) > 1:
        return f"(Ablations ran with seeds {', '.join(map(str, seeds))}.)"
    return (
        f"Ablations rest on one seed ({', '.join(map(str, seeds))}), so their intervals are over test images alone, "
        "which answers another question: whether these two trained models differ, not whether another seed would agree."
    )


def _ablations_there(material: Material) -> str:
    absent = Counter(run.method for run in missing(material.runs) if run.ablation is not None)
    if not absent:
        return "All planned runs are there."
    titles = {entry.name: entry.title or entry.name for entry in METHODS.entries()}
    parts = [f"{count} of {titles[method]}" for method, count in absent.items()]
    return f"Of the planned three seeds {findings.names(parts)} are not there yet."


def _filled(name: str, content: Mapping[str, Any]) -> str:
    text = (Path(__file__).parent / name).read_text()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return re.sub(r"\n{3,}", "\n\n", environment.from_string(text).render(content))


def _put(path: Path, text: str) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [path]


def draw(
    folder: Path, material: Material, closed: Results, open_: Results, closed_main: Table, ablated: Mapping[str, Table]
) -> list[Path]:
    """Draw the figures of the page as SVG; intervals are those of its tables."""
    looks = style.styles(closed.group.full)
    plans: dict[str, Callable[[], Any]] = {}
    for name, results in (("closed", closed), ("open", open_)):
        plans[f"seen-unseen-{name}"] = partial(_curves, results, looks)
    place = [column.name for column in closed_main.columns].index("AUC")
    intervals = {row[0].text: row[place].interval for row in closed_main.rows if row[place].interval is not None}
    plans["auc-closed"] = lambda: figures.auc_of_runs(closed.group.full, looks, intervals)  # type: ignore[arg-type]
    for method, table in ablated.items():
        full = next(row for row in closed.group.full if row.method == method)
        found = changes_of(table, full, closed.group.switches(full))
        plans[f"ablations-{method}"] = partial(figures.ablation_bars, method, found)
    return [path for name, plan in plans.items() for path in style.save(plan(), folder / name, (".svg",))]


def _curves(results: Results, looks: dict[str, style.Style]) -> Any:
    runs = [(row.label, [read_scored(run) for run in row.done]) for row in results.group.full]
    return figures.seen_unseen(uncertainty.curve_lines(runs, looks))


def changes_of(table: Table, full: Row, switches: Sequence[Row]) -> list[Change]:
    """Return what a figure of ablations shows, with the intervals of their table."""
    read = test_metric("auc")
    cells = {row[0].text: row[3] for row in table.rows[1:]}
    return [
        Change(name, cells[name].value or 0.0, paired_differences(full, row, read), cells[name].interval)
        for row in switches
        if (name := str(row.ablation)) in cells and cells[name].value is not None
    ]


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
    return _filled(
        "records.md.j2",
        {
            "runs": len(material.every),
            "digest": digest(material.every),
            "counts": [
                *(Count(what, done[what], count) for what, count in wanted.items()),
                Count("switches beside the suite", len(material.switched), len(SWITCHES)),
            ],
            "missing": _missing_text(absent),
            "conditions": _conditions(material.every),
            "times": section(_times(material)).partition("\n\n")[2],
            "notices": "\n".join(["What happened on the way:", "", *again, *notices]) if notices or again else "",
        },
    )


def _missing_text(absent: Sequence[RunRequest]) -> str:
    if not absent:
        return "Nothing is missing."
    what = "ablations" if all(run.ablation is not None for run in absent) else "runs"
    seeds = findings.names([str(seed) for seed in sorted({run.seed for run in absent})])
    return (
        f"**{len(absent)} runs are missing**: {what} with seeds {seeds}. They are not there because each takes two to "
        "five minutes on two cores, not for what they would show: lower seeds were done first. "
        "`python bench.py run --suite reference --results FOLDER`, with the archives expanded into FOLDER, does the "
        "rest; then `collect` and `build`, as above."
    )


def _part(run: Any) -> str:
    title = {entry.name: entry.title or entry.name for entry in METHODS.entries()}[run.method]
    if run.ablation is not None:
        return f"ablations of {title}"
    return f"full models, {run.world} world, {run.profile} profile"


def _conditions(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return what the records say of how they were made."""
    environments = [start["environment"] for run in runs for start in run.starts]

    def every(read: Callable[[Mapping[str, Any]], Any]) -> str:
        return ", ".join(sorted({str(read(one)) for one in environments}))

    packages = sorted({(name, number) for one in environments for name, number in one["packages"].items()})
    dirty = sum(bool(one["git"].get("dirty")) for one in environments)
    commits = Counter(one["git"]["commit"][:10] for one in environments)
    return [
        ("commits (starts)", ", ".join(f"{name} ({count})" for name, count in sorted(commits.items()))),
        ("with changes not committed", str(dirty)),
        ("machine", every(lambda one: f"{one['cpu']['name']}, {one['cpu']['count']} cores, no GPU; {one['platform']}")),
        ("threads", every(lambda one: one["threads"])),
        ("Python", every(lambda one: one["python"])),
        ("packages", ", ".join(f"{name} {number}" for name, number in packages)),
        ("data", ", ".join(sorted({run.spec.dataset_digest[:12] for run in runs}))),
        ("weights of the backbone", ", ".join(sorted({run.spec.backbone_digest[:12] for run in runs}))),
        ("precision", ", ".join(sorted({run.spec.precision for run in runs}))),
    ]


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
