"""From the committed records to docs/results.md, docs/figures/, the page beside the records and the README's table."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report.budgets import epochs_text
from benchmarks.report.convergence import LAST_SHARE
from benchmarks.report.evidence import Question
from benchmarks.report.render import markdown
from benchmarks.runs import files
from benchmarks.runs.budgets import trained_short
from benchmarks.studies.reference import conclusions, deviations
from benchmarks.studies.reference.collection import FOLDER, FORMER, ROOT, archives
from benchmarks.studies.reference.drawings import of_the_page
from benchmarks.studies.reference.material import QUESTION, Material, Results
from benchmarks.studies.reference.page_parts import digest, filled, one_budget, section
from benchmarks.studies.reference.records_page import records_page
from benchmarks.studies.reference.results_page import caution, results_page
from benchmarks.studies.reference.switches import SWITCHES
from errors import UserError, counted

FORMER_TABLES = {
    ("closed", "clean"): "Results, closed world",
    ("open", "clean"): "Results, open world",
    ("closed", "official"): "Results, closed world, official profiles",
}
"""Main tables on the page of the two-epoch records, by world and profile."""
BEGIN, END = "<!-- reference:main -->", "<!-- /reference:main -->"


def build(folder: Path = FOLDER, root: Path = ROOT, question: Question = QUESTION) -> list[Path]:
    """Make everything anew and return the files that were written. root: of the repository."""
    with Material(folder, question=question) as material, former(folder, question) as before:
        drawn = root / "docs" / "figures"
        page, made = results_page(material, drawn, before)
        made += _put(root / "docs" / "results.md", page)
        made += _put(root / "docs" / "deviations.md", deviations_page(material, before))
        made += _put(folder / "README.md", records_page(material))
        if before is not None:
            made += _put(folder / FORMER / "README.md", former_page(before))
        made += put_into_readme(root / "README.md", readme_part(material.results("closed", "clean")))
    return made


def differing(folder: Path = FOLDER, root: Path = ROOT, question: Question = QUESTION) -> list[str]:
    """Make everything anew elsewhere and return the files that are not byte for byte what is in the repository.

    So are figures of the page that nothing makes any more.

    Archives that are not in it are a `UserError`: its pages are not made of them.
    """
    folder, root = folder.resolve(), root.resolve()
    if not folder.is_relative_to(root):
        raise UserError(
            f"The pages of {root} cannot be held against the archives in {folder}.",
            "They are made from archives of the repository.",
            "Leave --archives out, or pass a folder of the repository.",
        )
    with TemporaryDirectory() as there:
        copy = Path(there)
        records = copy / folder.relative_to(root)
        shutil.copytree(folder, records)
        shutil.copy(root / "README.md", copy)
        made = [path.relative_to(copy) for path in build(records, copy, question)]
        own = [path.relative_to(root) for path in of_the_page(root / "docs" / "figures")]
        return [str(name) for name in dict.fromkeys([*made, *own]) if _content(root / name) != _content(copy / name)]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@contextmanager
def former(folder: Path, question: Question = QUESTION) -> Iterator[Material | None]:
    """Yield the records of the two-epoch reference, None where they are not kept apart."""
    if not archives(folder / FORMER):
        yield None
        return
    with Material(folder / FORMER, question=question) as material:
        yield material


def former_page(before: Material) -> str:
    """Return the page beside the two-epoch records: what they are, and their tables."""
    tables = [
        section(replace(results.main(), title=title))
        for key, title in FORMER_TABLES.items()
        if (results := before.results_if_there(*key)) is not None
    ]
    return filled(
        "former.md.j2",
        {
            "runs": len(before.every),
            "digest": digest(before.every),
            "tables": tables,
            "ablation_caution": caution(before),
            "ablations": [section(table) for table in before.ablations.values()],
        },
    )


def deviations_page(material: Material, before: Material | None = None) -> str:
    """Return docs/deviations.md: what paper, released code and suite do, and what the switches change.

    before: the two-epoch records, whose effects stand, marked, where today's have none.
    """
    shown = deviations.Shown([deviations.Effects.of(one) for one in (material, before) if one is not None])
    content = {
        "caution": caution(material) or ("" if before is None else caution(before)),
        "e": shown.ablation,
        "s": shown.switch,
        "w": lambda name: f"`{shlex.join(SWITCHES[name].words)}`",
        "official": shown.official,
    }
    text = filled("deviations.md.j2", {**content, "not_run": "", "formerly": ""})
    explained = {
        "not_run": f'"{deviations.NOT_RUN}" means that the switch exists and its run is not there yet. ',
        "formerly": f'"{deviations.FORMERLY}": not run again yet under the [budget rule](protocol.md#budget), so the '
        "effect is that of the [two-epoch records](../results/reference/two_epochs/README.md). ",
    }
    marks = {"not_run": deviations.NOT_RUN, "formerly": deviations.FORMERLY}
    needed = {name: said if marks[name] in text else "" for name, said in explained.items()}
    return filled("deviations.md.j2", {**content, **needed})


def readme_part(results: Results) -> str:
    """Return the README's table: the main table of the closed world without what is said beside it."""
    table = results.main()
    left_out = [place for place, column in enumerate(table.columns) if column.name == "seeds"]
    columns = [column for place, column in enumerate(table.columns) if place not in left_out]
    rows = [[cell for place, cell in enumerate(row) if place not in left_out] for row in table.rows]
    lines = [line for line in markdown(replace(table, columns=columns, rows=rows)).splitlines() if line.startswith("|")]
    return "\n".join(
        [
            "Test split of the embedded data set, closed world, percent: "
            f"mean ± standard deviation, {_seeds(results)},",
            *_readme_tests(results),
            "",
            *lines,
            "",
            f"{_readme_budget(results)} Best validation AUC so far against what training has cost by then:",
            "",
            "![Best validation AUC so far against training time and FLOPs](docs/figures/spending-closed.svg)",
        ]
    )


def _seeds(results: Results) -> str:
    """Say how many seeds the methods of a table have, "3 to 5 seeds" where not all have the same number."""
    rows = [row for row in results.group.full if row.done]
    counts = {len(row.done) for row in rows if row.trains} or {len(row.done) for row in rows}
    fewest = f"{min(counts)} to " if len(counts) > 1 else ""
    return f"{fewest}{counted(max(counts), 'seed')}"


def _readme_tests(results: Results) -> list[str]:
    """Return the lines on intervals and stars of the README's table; a line that says so where there are none."""
    found, label = results.found, results.baseline.label
    if found.comparison is None:
        return ["without intervals and tests:"]
    alone = len(found.over_images_alone) == len(found.comparison.methods)
    over, drawn = ("test images", "images") if alone else ("seeds and test images", "seeds and images")
    interval = f"[{100 * found.question.level:g} % interval over {over}]"
    if not found.comparison.family:
        return [f"{interval}:"]
    return [
        f"{interval}; \\*: the AUC differs from {label}'s",
        f"(bootstrap over {drawn}, p at most {1 - found.question.level:.2g} after Holm's adjustment for the "
        f"{counted(found.comparison.family, 'comparison')}):",
    ]


def _readme_budget(results: Results) -> str:
    """Say under which budget the table came about, and who is unfinished."""
    runs = [run for row in results.group.full for run in row.done]
    epochs = epochs_text(runs).removesuffix("; ")
    late = [curves for curves in conclusions.curves_in(results) if curves.is_unfinished]
    why = ", their best epoch being the last" if all(one.at_last >= LAST_SHARE * len(one.seeds) for one in late) else ""
    said = f" Unfinished{why}: {', '.join(curves.label for curves in late)}." if late else ""
    if any(trained_short(run) for run in runs):
        return f"**Short training** ({epochs}): this ranking measures patience.{said}"
    if not one_budget(runs):
        return f"Not the same ceiling and schedule for every trained method ({epochs}).{said}"
    return f"The same ceiling and schedule for every trained method ({epochs}).{said}"


def put_into_readme(path: Path, part: str) -> list[Path]:
    """Put the README's part between its markers; markers that are not there are a `UserError`."""
    files.put_between(path, BEGIN, END, part)
    return [path]


def _put(path: Path, text: str) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [path]
