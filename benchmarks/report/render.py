"""Drawing a `Table`: for a terminal (rich) and as Markdown. Rounding happens here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.report.failures import Failure
from benchmarks.report.table_model import Cell, Column, Table
from benchmarks.runs import files
from benchmarks.runs.records import Problem

WIDTH = 80
"""Characters that a table should not exceed in a terminal."""

SMALLEST_P = 0.001
"""Smaller p-values are shown as such: of 10,000 resamples no smaller one is known well."""


def p_text(value: float) -> str:
    """Return a p-value with three digits; "<0.001" for a smaller one, never 0."""
    return f"<{SMALLEST_P:g}" if value < SMALLEST_P else f"{value:.3f}"


def parts(cell: Cell, column: Column) -> list[str]:
    """Return a cell's texts: percent or plain with the column's digits, then the spread and the interval, if any."""
    if cell.value is None:
        return [cell.text]
    if column.p_value:
        return [p_text(cell.value)]
    factor = 100.0 if column.percent else 1.0
    form = f"{'+' if column.signed else ''},.{column.digits}f"
    texts = [f"{cell.value * factor:{form}}{cell.mark}"]
    if cell.spread is not None and column.larger_is_better is not None:
        texts.append(f"± {cell.spread * factor:.{column.digits}f}")
    if cell.interval is not None:
        texts.append(f"[{', '.join(f'{end * factor:{form}}' for end in cell.interval)}]")
    return texts


def shown(cell: Cell, column: Column) -> str:
    """Return a cell's text in one line."""
    return " ".join(parts(cell, column))


def narrow(cell: Cell, column: Column) -> list[str]:
    """Return a cell's texts for lines of their own, as short as can be: "±0.4", "57.1–61.8"."""
    first, *more = parts(cell, column)
    dash = ", " if column.signed else "–"
    return [first, *(text.replace("± ", "±").strip("[]").replace(", ", dash) for text in more)]


def _width(table: Table) -> int:
    """Return the characters that the columns take, without what is between them."""
    return sum(
        max([len(column.name), *(len(text) for row in table.rows for text in narrow(row[place], column))])
        for place, column in enumerate(table.columns)
    )


def terminal(table: Table) -> RichTable:
    """Return the table for a terminal; numbers flush right, the best of a column bold."""
    # No vertical rules, and little or no padding: with them ten columns do not fit 80 characters.
    drawn = RichTable(
        title=table.title,
        title_justify="left",
        caption=table.caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1 if _width(table) + 2 * len(table.columns) < WIDTH else 0),
        pad_edge=False,
    )
    for place, column in enumerate(table.columns):
        if place == 0:
            longest = max((len(row[0].text) for row in table.rows), default=0)
            drawn.add_column(column.name, min_width=min(14, longest), overflow="fold")
        else:
            drawn.add_column(column.name, justify="right", no_wrap=True)
    marked = [any(row[place].mark for row in table.rows) for place in range(len(table.columns))]
    for row in table.rows:
        texts = []
        for cell, column, is_marked in zip(row, table.columns, marked, strict=True):
            # Spread and interval go on lines of their own, so that eight numbers fit 80 columns.
            number, *more = narrow(cell, column)
            aligned = number + " " * (is_marked and not cell.mark)
            texts.append(Text("\n".join([aligned, *more]), style="bold" if cell.best else ""))
        drawn.add_row(*texts)
    return drawn


def markdown(table: Table) -> str:
    """Return the table as Markdown, with its title, caption and notes."""
    lines = [f"## {prose(table.title)}", "", prose(table.caption), ""]
    lines.append("| " + " | ".join(_plain(column.name) for column in table.columns) + " |")
    lines.append("| --- |" + " ---: |" * (len(table.columns) - 1))
    for row in table.rows:
        texts = [_plain(shown(cell, column)) for cell, column in zip(row, table.columns, strict=True)]
        marks = ["**" if cell.best else "_" if cell.second else "" for cell in row]
        marked = [f"{mark}{text}{mark}" for mark, text in zip(marks, texts, strict=True)]
        lines.append("| " + " | ".join(marked) + " |")
    if table.notes:
        lines += ["", *(f"- {prose(note)}" for note in table.notes)]
    if table.sources:
        lines += ["", "Sources:", "", *(f"- {prose(source)}" for source in table.sources)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return the text of a table's cell in which Markdown sees no signs of its own."""
    return "\\*".join(prose(part) for part in text.split("*")).replace("|", "\\|")


_SIGNS = re.compile(
    r"[\\`$~]"  # wherever they stand
    r"|\*(?!:)"  # not that of a legend, "*: the AUC differs"
    r"|(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])"  # inside a word it is a letter
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])(?=[(\[])"  # HTML, and links
)
"""What Markdown would take for signs of its own in running text."""


def prose(text: str) -> str:
    """Return running text in which Markdown sees no signs of its own, in one line.

    >>> prose("$10 a_b _c_ <b>")
    '\\\\$10 a_b \\\\_c\\\\_ \\\\<b>'
    """
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return _SIGNS.sub(lambda found: "\\" + found.group(), line)


def write_markdown(
    path: Path, tables: Sequence[Table], problems: Sequence[Problem], origin: str, failures: Sequence[Failure] = ()
) -> None:
    """Write all tables, and the run folders that could not be read, as one Markdown page.

    origin: its first line. failures: what is left out.
    """
    parts = [f"# Report\n\n{origin}\n", *(markdown(table) for table in tables)]
    if failures:
        named = "".join(f"- {prose(f'{failure.where}: {failure}')}\n" for failure in failures)
        parts.append("## What could not be made\n\n" + named)
    if problems:
        named = "".join(f"- {_below(problem.path, path.parent)}: {problem.message}\n" for problem in problems)
        parts.append("## Records that could not be read\n\n" + named)
    files.write_aside(path, lambda file: file.write("\n".join(parts).encode("utf-8", "replace")))


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
