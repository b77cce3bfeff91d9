"""The report as one HTML file: leaderboard, tables that sort, figures, and how to repeat each row.

The file is self-contained and works offline, by keyboard, in dark and light, and on a narrow screen.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.report import names
from benchmarks.report.failures import Failures
from benchmarks.report.groups import Group, Row
from benchmarks.report.render import shown
from benchmarks.report.reproduce import commands, provenance, unrepeatable
from benchmarks.report.table_model import Table
from benchmarks.runs.records import Problem, RunRecord

TEMPLATE = Path(__file__).with_name("page.html.j2")
LEADERBOARD = "Results"
"""Title of the table of a group that stands first on the page, best row first."""
LEADING = "AUC"
"""The column that the leaderboard is ordered by."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the files it was written to have this stem and lie beside `svg`. wide: broader than a column."""

    caption: str
    svg: Path
    title: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Tables and figures of a group of runs that may be compared; group None: what is about several groups.

    name: of its files' folder, and of its anchors. absent: why figures are not there, in sentences.
    """

    title: str
    name: str
    tables: Sequence[Table]
    group: Group | None = None
    pictures: Sequence[Picture] = field(default_factory=list)
    absent: Sequence[str] = field(default_factory=list)


def page(
    sections: Sequence[Section],
    runs: Sequence[RunRecord],
    problems: Sequence[Problem],
    failures: Failures,
    notices: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    failures: what is left out; what the page itself cannot show is added. notices: sentences that stand first.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    done = sum(run.status == "done" for run in runs)
    shown_sections = [_section(section, failures) for section in sections]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title="Benchmark report",
        introduction=f"{done} finished runs of {len(runs)}. Numbers are percent unless a caption says otherwise. "
        "In a column the best is bold and the second best underlined. The head of a column sorts by it; the name of a "
        "method leads to the command that repeats it.",
        notices=[*notices, *([_left_out(failures)] if failures.found else [])],
        sections=shown_sections,
        groups=[section for section in shown_sections if section["rows"]],
        problems=[f"{problem.path}: {problem.message}" for problem in problems],
    )


def _left_out(failures: Failures) -> str:
    count = len(failures.found)
    said = "A part" if count == 1 else f"{count} parts"
    return (
        f"{said} of this report could not be made: {'; '.join(f'{one.where}, {one.what}' for one in failures.found)}."
    )


def _section(section: Section, failures: Failures) -> dict[str, Any]:
    name, group, own = section.name, section.group, failures.within(section.title)
    rows = [] if group is None else group.rows
    anchors = {
        row.label: f"how-{name}-{anchor}"
        for row, anchor in zip(rows, names.unique([row.label for row in rows]), strict=True)
    }
    tables = list(section.tables)
    leader = next((table for table in tables if table.title == LEADERBOARD), None)
    if leader is not None:
        tables.remove(leader)
    made = {
        "title": section.title,
        "slug": name,
        "leaderboard": leader
        and own.attempt(f"Leaderboard, {leader.title}", partial(_table, leader, anchors, order_by=LEADING)),
        "tables": _those(own.attempt(f"Table {table.title}", partial(_table, table, anchors)) for table in tables),
        "figures": _those(own.attempt(f"Figure {one.title}", partial(_figure, one)) for one in section.pictures),
        "rows": [
            own.attempt(f"How to repeat {row.label}", partial(_row, row, anchors[row.label]))
            or {"label": row.label, "anchor": anchors[row.label], "commands": [], "runs": []}
            for row in rows
        ],
    }
    return {**made, "absent": [*own.sentences, *section.absent]}


def _those(made: Iterable[Any]) -> list[Any]:
    return [one for one in made if one is not None]


def _table(table: Table, anchors: Mapping[str, str], order_by: str | None = None) -> dict[str, Any]:
    rows = [[_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    for row in rows:
        row[0]["anchor"] = anchors.get(row[0]["text"], "")
    place = next((place for place, column in enumerate(table.columns) if column.name == order_by), None)
    if place is not None:
        # Gaps last. Stable, so rows of one value stay as they were.
        rows.sort(key=lambda row: -float(row[place]["value"]) if row[place]["value"] else float("inf"))
    return {
        "title": table.title,
        "caption": table.caption,
        "notes": [*table.notes, *(f"Source of {source}" for source in table.sources)],
        "columns": [{"name": column.name, "sorted": number == place} for number, column in enumerate(table.columns)],
        "rows": rows,
    }


def _cell(cell: Any, column: Any) -> dict[str, str]:
    mark = "best" if cell.best else "second" if cell.second else ""
    value = cell.text if cell.value is None else repr(float(cell.value))
    return {"text": shown(cell, column), "value": "" if value == "–" else value, "mark": mark, "anchor": ""}


def _figure(picture: Picture) -> dict[str, Any]:
    """Return a figure with its drawing inside: as an image, so that no name or style of one reaches another."""
    drawing = re.sub(r"<metadata>.*?</metadata>", "", picture.svg.read_text(encoding="utf-8"), flags=re.DOTALL)
    encoded = base64.b64encode(drawing.encode()).decode()
    width = re.search(r'<svg[^>]* width="([0-9.]+)pt"', drawing)
    return {
        "title": picture.title,
        "caption": picture.caption,
        "files": f"{picture.svg.parent.name}/{picture.svg.stem} (.pdf, .svg, .png)",
        "source": f"data:image/svg+xml;base64,{encoded}",
        "wide": picture.wide,
        "width": round(float(width.group(1)) / 72, 2) if width else 3.3,  # inches
    }


def _row(row: Row, anchor: str) -> dict[str, Any]:
    return {
        "label": row.label,
        "anchor": anchor,
        "commands": commands(row.runs),
        "unrepeatable": unrepeatable(row.runs),
        "runs": [provenance(run) for run in row.runs],
    }
