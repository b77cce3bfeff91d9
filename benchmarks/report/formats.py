"""A `Table` as LaTeX (booktabs) and as CSV. LaTeX shows what Markdown shows; CSV has every digit."""

from __future__ import annotations

import csv
import io
import re

from benchmarks.report.render import shown
from benchmarks.report.tables import Cell, Column, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "×": r"$\times$", "<": r"$<$",
    ">": r"$>$", "≤": r"$\leq$", "−": "$-$",
}  # fmt: skip


def slug(text: str) -> str:
    """Return a text as a file name and label: lower case, hyphens.

    >>> slug("Results, closed world")
    'results-closed-world'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def escaped(text: str) -> str:
    """Return a text with LaTeX's special signs escaped.

    >>> escaped("icon_states, 50 %")
    'icon\\\\_states, 50 \\\\%'
    """
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def latex(table: Table, label: str = "") -> str:
    """Return a `table` environment for a document that loads booktabs: best bold, second underlined.

    label: of \\label, without "tab:"; the title's slug if empty.
    """
    place = "l" + "r" * (len(table.columns) - 1)
    notes = " ".join([table.caption, *table.notes])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{\textbf{{{escaped(table.title)}.}} {escaped(notes)}}}",
        rf"\label{{tab:{label or slug(table.title)}}}",
        rf"\begin{{tabular}}{{{place}}}",
        r"\toprule",
        " & ".join(escaped(column.name) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = zip(row, table.columns, strict=True)
        lines.append(" & ".join(_latex_cell(cell, column) for cell, column in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_cell(cell: Cell, column: Column) -> str:
    text = escaped(shown(cell, column))
    if cell.best:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if cell.second else text


def csv_text(table: Table) -> str:
    """Return the table as CSV: values as they are (fractions, not percent), a spread in a column of its own."""
    numeric = [any(row[place].value is not None for row in table.rows) for place in range(len(table.columns))]
    spread = [any(row[place].spread is not None for row in table.rows) for place in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head: list[str] = []
    for place, column in enumerate(table.columns):
        head += [column.name, f"{column.name} sd"] if spread[place] else [column.name]
    writer.writerow(head)
    for row in table.rows:
        line: list[str] = []
        for place, cell in enumerate(row):
            line.append(("" if cell.value is None else repr(float(cell.value))) if numeric[place] else cell.text)
            if spread[place]:
                line.append("" if cell.spread is None else repr(float(cell.spread)))
        writer.writerow(line)
    return out.getvalue()
