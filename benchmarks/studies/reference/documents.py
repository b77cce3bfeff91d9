"""From the committed records to docs/results.md, docs/figures/, the page beside the records and the README's table."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.report.render import markdown
from benchmarks.runs import files
from benchmarks.studies.reference import deviations, findings
from benchmarks.studies.reference.collection import FOLDER, ROOT, missing
from benchmarks.studies.reference.drawings import draw
from benchmarks.studies.reference.material import Material, Results, cost
from benchmarks.studies.reference.page_parts import digest, filled, section
from benchmarks.studies.reference.records_page import records_page
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
    paths = [] if drawn is None else draw(drawn, closed, open_, closed_main, ablated)
    return filled("results.md.j2", content), paths


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
    text = filled("deviations.md.j2", {**content, "not_run": ""})
    if deviations.NOT_RUN not in text:
        return text
    explained = f'"{deviations.NOT_RUN}" means that the switch exists and its run is not there yet. '
    return filled("deviations.md.j2", {**content, "not_run": explained})


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


def _put(path: Path, text: str) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [path]
