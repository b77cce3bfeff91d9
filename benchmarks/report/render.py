"""Drawing a `Table`: for a terminal (rich) and as Markdown. Rounding happens here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks import files
from benchmarks.records import Problem
from benchmarks.report.tables import Cell, Column, Table


def shown(cell: Cell, column: Column) -> str:
    """Return a cell's text: percent or plain with the column's digits, the spread behind ±."""
    if cell.value is None:
        return cell.text
    factor = 100.0 if column.percent else 1.0
    text = f"{cell.value * factor:{'+' if column.signed else ''},.{column.digits}f}"
    if cell.spread is not None and column.larger_is_better is not None:
        text += f" ± {cell.spread * factor:.{column.digits}f}"
    return text


def terminal(table: Table) -> RichTable:
    """Return the table for a terminal; numbers flush right, the best of a column bold."""
    # No vertical rules and little padding: with them ten columns do not fit 80 characters.
    drawn = RichTable(
        title=table.title,
        title_justify="left",
        caption=table.caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for place, column in enumerate(table.columns):
        if place == 0:
            longest = max((len(row[0].text) for row in table.rows), default=0)
            drawn.add_column(column.name, min_width=min(14, longest), overflow="fold")
        else:
            drawn.add_column(column.name, justify="right", no_wrap=True)
    for row in table.rows:
        cells = zip(row, table.columns, strict=True)
        # A spread goes on a line of its own, so that eight numbers fit 80 columns.
        texts = [(shown(cell, column).replace(" ± ", "\n±"), "bold" if cell.best else "") for cell, column in cells]
        drawn.add_row(*(Text(text, style=style) for text, style in texts))
    return drawn


def markdown(table: Table) -> str:
    """Return the table as Markdown, with its title, caption and notes."""
    lines = [f"## {table.title}", "", table.caption, ""]
    lines.append("| " + " | ".join(column.name for column in table.columns) + " |")
    lines.append("| --- |" + " ---: |" * (len(table.columns) - 1))
    for row in table.rows:
        texts = [shown(cell, column) for cell, column in zip(row, table.columns, strict=True)]
        marks = ["**" if cell.best else "_" if cell.second else "" for cell in row]
        marked = [f"{mark}{text}{mark}" for mark, text in zip(marks, texts, strict=True)]
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in marked) + " |")
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def write_markdown(path: Path, tables: Sequence[Table], problems: Sequence[Problem]) -> None:
    """Write all tables, and the run folders that could not be read, as one Markdown page."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    parts = [f"# Report\n\nMade {made} from the run records in this folder.\n"]
    parts += [markdown(table) for table in tables]
    if problems:
        parts.append("## Records that could not be read\n\n" + "".join(f"- {p.path}: {p.message}\n" for p in problems))
    files.write_aside(path, lambda file: file.write("\n".join(parts).encode()))
