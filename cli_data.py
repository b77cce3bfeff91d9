"""The commands `python bench.py data ...`: they parse, call `datasets`, print, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from errors import UserError

if TYPE_CHECKING:
    from datasets.download import Progress
    from datasets.fetch_plan import FetchPlan

data = typer.Typer(help="Fetch, check and describe data sets.", no_args_is_help=True)
# No markup: what is printed holds brackets of its own.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(help="mit_states, ut_zappos, cgqa, vaw_czsl or glove.")],
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", help="Address, file, or folder of the archives, instead of the mirrors."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about the licence.")] = False,
    repin: Annotated[bool, typer.Option("--repin", help="Accept archives of other checksums than before.")] = False,
) -> None:
    """Download a data set, or unpack the archives that lie in its downloads folder."""
    from datasets import download
    from datasets.fetch_plan import plan_fetch

    plan = plan_fetch(name, given=from_ or ())
    if plan.state == "whole":
        out.print(f"{plan.source.title} is there already: {plan.folder}", soft_wrap=True)
        return
    if plan.state == "by hand":
        out.print(f"{plan.source.title} was put into {plan.folder} by hand and is left as it is.", soft_wrap=True)
        return
    show_plan(plan)
    if not yes:
        ask(plan)
    with progress_bars() as progress:
        try:
            manifest = download.fetch(plan, progress, repin=repin)
        except KeyboardInterrupt:
            err.print("Stopped. The same command goes on where this one ended.")
            raise typer.Exit(130) from None
    size = manifest["bytes"] / 1e9
    out.print(f"{plan.source.title}: {len(manifest['files']):,} files, {size:.2f} GB in {plan.folder}", soft_wrap=True)
    out.print(f"The archives in {plan.downloads} are not needed any more, but for a later comparison.", soft_wrap=True)
    if missing := manifest["missing"]:
        shown = ", ".join(missing[:10]) + (" and more" if len(missing) > 10 else "")
        err.print(
            f"{len(missing)} images that the splits list are in no archive: {shown}", style="yellow", soft_wrap=True
        )


def show_plan(plan: FetchPlan) -> None:
    """Say what would be fetched, from where, and under which licence."""
    out.print(f"{plan.source.title} into {plan.folder}", soft_wrap=True)
    for item in plan.items:
        origin = ", ".join(str(path) for path in item.files) or " or ".join(item.urls)
        out.print(f"  {item.archive.file}: {origin}", soft_wrap=True)
    out.print(f"Licence: {plan.source.licence}.", soft_wrap=True)


def ask(plan: FetchPlan) -> None:
    """Ask for consent; where nobody can answer, `--yes` is needed."""
    if not sys.stdin.isatty():
        raise UserError(
            f"Fetching {plan.source.title} needs your consent to its licence.",
            "There is no terminal to ask you at.",
            "Pass --yes.",
        )
    if not typer.confirm("Fetch it under this licence?", err=True):
        raise typer.Exit(1)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Give a callback that shows a bar per task at a terminal, and a line per task elsewhere."""
    from rich import progress as rich

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn())
    rates = (rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
    tasks: dict[str, rich.TaskID] = {}
    with rich.Progress(*columns, *rates, console=err, disable=not err.is_terminal) as bars:

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
                if not err.is_terminal:
                    err.print(what, soft_wrap=True)
            bars.update(tasks[what], completed=done, total=total)

        yield progress
