"""The `cache` commands of the command line: frozen image features that runs keep on disk.

    python bench.py cache list
    python bench.py cache check
    python bench.py cache clear icon_states

They parse, call `datasets`, print, and nothing else. No torch is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.console import err, out
from errors import UserError, counted

if TYPE_CHECKING:
    from datasets.feature_cache.entries import Entry

cache = typer.Typer(help="List, check and clear the image features that runs keep on disk.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(help="A folder of the list, a data set or a backbone; without: all.")]


@cache.command(name="list")
def list_() -> None:
    """List the kept features: what they belong to, their size and when they were last used."""
    from datasets.feature_cache.entries import entries
    from datasets.feature_cache.folder import root

    found = entries()
    if not found:
        out.print(f"There are no image features in {root()}.", soft_wrap=True)
        return
    for entry in found:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        out.print(entry.name, style="bold", soft_wrap=True)
        out.print(f"    {size(entry.bytes)}, {entry.state}, last used {used}{belongs_to(entry)}", soft_wrap=True)
    out.print(f"{total(found)} in {root()}", soft_wrap=True)


def belongs_to(entry: Entry) -> str:
    """Return what is kept of which images; "" where the folder has no index."""
    about = entry.about
    if not about:
        return ""
    view = "" if about["view"] is None else ", augmented view {1} of seed {0}".format(*about["view"])
    what = about["what"].split(".")[-2]  # the class that computes them
    images = counted(entry.count, f"{about['phase']} image")
    return f": {what} of {images}{view}, {about['precision']}"


@cache.command()
def check(name: Name = None) -> None:
    """Read kept features in full and compare them with their digests. Exit code 1: some are damaged."""
    from datasets.feature_cache.entries import damages, select

    found = select(name)
    wrong = [text for entry in found for text in damages(entry)]
    for text in wrong:
        out.print(f"Problem: {text}", style="red", soft_wrap=True)
    out.print(f"{total(found)} read, {counted(len(wrong), 'problem') if wrong else 'no problems'}.")
    if wrong:
        out.print("The next run that reads them computes what is damaged again.")
        raise typer.Exit(1)


@cache.command()
def clear(
    name: Name = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete kept features; runs compute them again when they need them."""
    from datasets.feature_cache.entries import remove, select

    found = select(name)
    if not found:
        out.print("There is nothing to delete.")
        return
    for entry in found:
        out.print(f"{entry.name}: {size(entry.bytes)}", soft_wrap=True)
    if not yes:
        ask(found)
    left = [entry for entry in found if not remove(entry)]
    for entry in left:
        err.print(f"Left: another process is at {entry.name}.", style="yellow", soft_wrap=True)
    out.print(f"Deleted: {total([entry for entry in found if entry not in left])}.")


def ask(found: Sequence[Entry]) -> None:
    """Ask for consent; where nobody can answer, `--yes` is needed."""
    if not sys.stdin.isatty():
        raise UserError(
            f"Deleting {total(found)} needs your consent.", "There is no terminal to ask you at.", "Pass --yes."
        )
    if not typer.confirm(f"Delete {total(found)}?", err=True):
        raise typer.Exit(1)


def total(found: Sequence[Entry]) -> str:
    """Return how many folders of what size there are.

    >>> total([])
    '0 folders, 0.0 MB'
    """
    count = counted(len(found), "folder")
    return f"{count}, {size(sum(entry.bytes for entry in found))}"


def size(number: int) -> str:
    """Return a number of bytes as people read it.

    >>> size(1_500_000), size(20_000_000_000)
    ('1.5 MB', '20.0 GB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
