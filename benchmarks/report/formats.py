"""A `Table` as LaTeX (booktabs) and as CSV. LaTeX shows what Markdown shows, CSV every digit that counts."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

from benchmarks.report.render import narrow
from benchmarks.report.table_model import GAP, Cell, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "—": "---", "×": r"$\times$",
    "<": r"$<$", ">": r"$>$", "≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "…": r"\dots{}", "“": "``", "”": "''",
    "‘": "`", "’": "'", "→": r"$\rightarrow$", '"': "''", "|": r"\textbar{}",
}  # fmt: skip


def slug(text: str) -> str:
    """Return a text as a file name and label: lower case, hyphens.

    >>> slug("Results, closed world")
    'results-closed-world'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def escaped(text: str) -> str:
    """Return a text with LaTeX's special signs escaped; letters lose their accents, unknown ones are "?".

    >>> escaped("icon_states, 50 %")
    'icon\\\\_states, 50 \\\\%'
    """
    return "".join(_SPECIAL.get(sign) or _known(sign) for sign in text)


def is_known(text: str) -> bool:
    """Return whether LaTeX can print every letter of a text, see `escaped`."""
    return all(sign in _SPECIAL or _known(sign) != "?" for sign in text if sign != "?")


def _known(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else " "  # two line breaks would end a caption
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def latex(table: Table, label: str = "") -> str:
    """Return a `table` environment for a document that loads booktabs: best bold, second underlined.

    Spread and interval stand small below their number, so that the table keeps to a page's width; notes stand below.
    label: of \\label, without "tab:"; the title's slug if empty.
    """
    place = "l" + "r" * (len(table.columns) - 1)
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{\textbf{{{escaped(table.title)}.}} {escaped(table.caption)}}}",
        rf"\label{{tab:{label or slug(table.title)}}}",
        r"\par\smallskip",
        rf"\begin{{tabular}}{{{place}}}",
        r"\toprule",
        " & ".join(escaped(column.name) for column in table.columns) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        lines += _latex_rows(row, table)
    lines += [r"\bottomrule", r"\end{tabular}"]
    if below := [*table.notes, *(f"Source of {source}" for source in table.sources)]:
        lines += [r"\par\smallskip\raggedright\footnotesize", *(rf"{escaped(note)}\par" for note in below)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_rows(row: Sequence[Cell], table: Table) -> list[str]:
    """Return the lines of a row: numbers, then what stands below them."""
    cells = [narrow(cell, column) for cell, column in zip(row, table.columns, strict=True)]
    cells = [[_tex(text, cell) for text in texts] for texts, cell in zip(cells, row, strict=True)]
    first = [_marked(texts[0], cell) for texts, cell in zip(cells, row, strict=True)]
    made = [" & ".join(first) + r" \\"]
    for depth in range(1, max(map(len, cells))):
        small = [rf"{{\scriptsize {texts[depth]}}}" if depth < len(texts) else "" for texts in cells]
        made.append(" & ".join(small) + r" \\")
    return made if len(made) == 1 else [*made, r"\addlinespace[2pt]"]


def _tex(text: str, cell: Cell) -> str:
    """Return a cell's text escaped, with a minus before a negative number."""
    return escaped(text if cell.value is None else re.sub(r"(?<![\w.])-(?=\d)", "−", text))


def _marked(text: str, cell: Cell) -> str:
    if cell.best:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if cell.second else text


def csv_text(table: Table) -> str:
    """Return the table as CSV: values as they are (fractions, not percent); spread, interval and mark in own columns.

    Values have every digit; what comes of resampling has eight, far below its own error and the same on any machine.
    """
    columns = [_csv_column(table, place) for place in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in zip(*(texts for column in columns for texts in column), strict=True):
        writer.writerow(line)
    return out.getvalue()


def _csv_column(table: Table, place: int) -> list[list[str]]:
    """Return a column of the table as columns of texts with their heads: value, and what any of its cells has more."""
    column, cells = table.columns[place], [row[place] for row in table.rows]
    texts = ["" if cell.text == GAP else cell.text for cell in cells]
    if any(cell.value is not None for cell in cells):
        texts = [_number(cell.value, column.exact) for cell in cells]
    found = [[column.name, *texts]]
    if any(cell.spread is not None for cell in cells):
        found.append([f"{column.name} sd", *(_number(cell.spread) for cell in cells)])
    if any(cell.interval is not None for cell in cells):
        ends = [cell.interval or (None, None) for cell in cells]
        found.append([f"{column.name} low", *(_number(low, exact=False) for low, _ in ends)])
        found.append([f"{column.name} high", *(_number(high, exact=False) for _, high in ends)])
    if any(cell.mark for cell in cells):
        found.append([f"{column.name} mark", *(cell.mark for cell in cells)])
    return found


def _number(value: float | None, exact: bool = True) -> str:
    if value is None:
        return ""
    return repr(float(value)) if exact else f"{value:.8g}"
