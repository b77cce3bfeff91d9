"""What every page of the reference records is put together from: a filled template, tables, a digest of the results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.report.render import markdown
from benchmarks.report.table_model import Table
from benchmarks.runs.records import RESULT, RunRecord
from benchmarks.studies.reference.joining import RULE


def filled(name: str, content: Mapping[str, Any]) -> str:
    """Return a template of this folder with its content; blank lines in a row are one."""
    text = (Path(__file__).parent / name).read_text()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return re.sub(r"\n{3,}", "\n\n", environment.from_string(text).render(content))


def section(table: Table) -> str:
    """Return a table as Markdown, one heading deeper, for a page that has headings of its own."""
    return "#" + markdown(replace(table, notes=[note for note in table.notes if "published numbers" not in note]))


def digest(runs: Sequence[RunRecord]) -> str:
    """Return the first digits of a digest of all results, which tells whether a page is of just these records."""
    found = hashlib.sha256()
    for run in sorted(runs, key=lambda run: run.run_id):
        found.update(run.run_id.encode() + (run.path / RESULT).read_bytes())
    return found.hexdigest()[:12]


def one_budget(runs: Sequence[RunRecord]) -> bool:
    """Return whether all runs that trained had what docs/protocol.md, "Budget", has alike for every method."""
    return len({tuple(getattr(run.spec.training, name) for name in RULE) for run in runs if run.spec.has_weights}) <= 1
