"""The report as one HTML file: tables that sort, figures, and for each run its settings and the command to repeat it.

The file is self-contained and works offline, by keyboard, in dark and light, and on a narrow screen.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.records import Problem, RunRecord
from benchmarks.report.formats import slug
from benchmarks.report.render import shown
from benchmarks.report.tables import Cell, Table

TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Picture:
    """A drawn figure: the files it was written to have this stem and lie beside `svg`. wide: broader than a column."""

    caption: str
    svg: Path
    title: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Tables and figures of runs that may be compared."""

    title: str
    tables: Sequence[Table]
    pictures: Sequence[Picture] = field(default_factory=list)
    absent: Sequence[str] = field(default_factory=list)


def page(sections: Sequence[Section], runs: Sequence[RunRecord], problems: Sequence[Problem]) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    done = sum(run.status == "done" for run in runs)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title="Benchmark report",
        introduction=f"{done} finished runs of {len(runs)}. Numbers are percent unless a caption says otherwise. "
        "In a column the best is bold and the second best underlined; click a head to sort.",
        sections=[_section(section) for section in sections],
        runs=[_run(run) for run in runs],
        problems=[f"{problem.path}: {problem.message}" for problem in problems],
    )


def reproduce(run: RunRecord) -> str:
    """Return the command that repeats a run, with every setting that did not come from a default or a preset."""
    spec = run.spec
    parts = ["python", "bench.py", "run", "--methods", spec.method, "--dataset", spec.dataset]
    parts += ["--seeds", str(spec.seed), "--world", spec.world, "--profile", spec.profile]
    parts += ["--backbone", spec.backbone, "--precision", spec.precision]
    if spec.ablation is not None:
        parts += ["--ablations", spec.ablation]
    values = spec.settings
    given = [key for key, note in run.provenance.items() if note["origin"] in ("file", "command line")]
    if given:
        parts += ["--set", *(f"{spec.method}.{key}={_toml(values[key])}" for key in given if key in values)]
    return shlex.join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return "none" if value is None else str(value)


def _section(section: Section) -> dict[str, Any]:
    figures = [{"caption": one.caption, "svg": _inline(one.svg)} for one in section.pictures]
    tables = [
        {
            "title": table.title,
            "caption": table.caption,
            "notes": table.notes,
            "columns": table.columns,
            "rows": [
                [_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
            ],
        }
        for table in section.tables
    ]
    return {"title": section.title, "slug": slug(section.title), "tables": tables, "figures": figures}


def _cell(cell: Cell, column: Any) -> dict[str, str]:
    mark = "best" if cell.best else "second" if cell.second else ""
    value = cell.text if cell.value is None else repr(float(cell.value))
    return {"text": shown(cell, column), "value": "" if value == "–" else value, "mark": mark}


def _inline(path: Path) -> str:
    """Return the <svg> element of a file, without the XML prologue, which HTML does not know."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _run(run: RunRecord) -> dict[str, Any]:
    values = run.spec.settings
    origins = {key: note.get("where") or note["origin"] for key, note in run.provenance.items()}
    environment = run.environment
    git = environment.get("git") or {}
    facts = {
        "started": run.starts[-1].get("time"),
        "device": environment.get("device"),
        "commit": git.get("commit") if isinstance(git, dict) else git,
        "data": run.spec.dataset_digest[:12],
        "weights": run.spec.backbone_digest[:12],
        "train seconds": round(run.result["cost"]["train_seconds"], 1) if run.result else None,
        "error": run.error["message"] if run.error else None,
    }
    return {
        "id": run.run_id,
        "status": run.status,
        "command": reproduce(run),
        "facts": "; ".join(f"{key}: {value}" for key, value in facts.items() if value is not None),
        "settings": [(key, values[key], origins.get(key, "")) for key in sorted(values)],
    }
