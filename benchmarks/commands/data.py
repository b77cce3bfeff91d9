"""The `data` commands of the command line: fetching, checking and describing data sets.

    python bench.py data fetch mit_states
    python bench.py data info mit_states
    python bench.py data check mit_states
    python bench.py data feasibility mit_states
    python bench.py data feasibility cgqa --source glove:glove.6B.300d.txt

They parse, call `datasets` and `benchmarks`, print, and nothing else; torch is imported where a model is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import err, load_plugins, out, print_hidden
from benchmarks.commands.feasibility import feasibility
from benchmarks.commands.options import DatasetName, Plugins
from errors import UserError, counted

if TYPE_CHECKING:
    from datasets.checking.check import Size
    from datasets.checking.image_files import Progress
    from datasets.fetching.download import Progress as DownloadProgress
    from datasets.fetching.plan import FetchPlan

data = typer.Typer(help="Fetch, check and describe data sets.", no_args_is_help=True)


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
    from datasets.fetching import download
    from datasets.fetching.plan import plan_fetch

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
        manifest = download.fetch(plan, progress, repin=repin)
    size = manifest["bytes"] / 1e9
    out.print(
        f"{plan.source.title}: {counted(len(manifest['files']), 'file')}, {size:.2f} GB in {plan.folder}",
        soft_wrap=True,
    )
    out.print(f"The archives in {plan.downloads} are not needed any more, but for a later comparison.", soft_wrap=True)
    if missing := manifest["missing"]:
        shown = ", ".join(missing[:10]) + (" and more" if len(missing) > 10 else "")
        count = counted(len(missing), "image that the splits list is", "images that the splits list are")
        err.print(f"{count} in no archive: {shown}", style="yellow", soft_wrap=True)


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
def progress_bars() -> Iterator[DownloadProgress]:
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


@data.command()
def info(name: DatasetName, plugin: Plugins = None) -> None:
    """Show a data set's sizes, source, licence, where it lies and what is special about it; offline."""
    load_plugins(plugin)
    from datasets.checking.check import about

    found = about(name)
    print_hidden(name)
    out.print(f"{found.name}: {found.title}", style="bold", soft_wrap=True)
    if found.published is not None:
        out.print(f"Source: {found.published.source}.", soft_wrap=True)
        out.print(f"Home page: {found.published.homepage}", soft_wrap=True)
        out.print(f"Licence: {found.published.licence}.", soft_wrap=True)
    out.print(f"Here: {found.problem or found.root}", soft_wrap=True)
    out.print(size_table(found.sizes))
    for text in () if found.published is None else found.published.special:
        out.print(f"- {text}", soft_wrap=True)


@data.command()
def check(
    name: DatasetName,
    fast: Annotated[bool, typer.Option("--fast", help="Only whether images exist; do not read them.")] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Look for copies, scaled, mirrored or saved again, across splits.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Compare a data set with what is published, read every image, look for leakage; offline. Exit code 1: problems."""
    load_plugins(plugin)
    from datasets.checking import check as checks
    from datasets.checking.near_duplicates import require_imagehash

    print_hidden(name)
    if near_duplicates:
        require_imagehash()
    with reading_bar() as progress:
        report = checks.check(name, fast=fast, near=near_duplicates, progress=progress)
    out.print(f"{report.title} in {report.root}", style="bold", soft_wrap=True)
    out.print(size_table(report.sizes))
    for finding in report.findings:
        kind, style = ("Problem", "red") if finding.problem else ("Note", "yellow")
        out.print(f"{kind}: {finding.text}", style=style, soft_wrap=True)
    if report.digest is not None:
        out.print(f"Digest of pair lists and image lists: {report.digest}", soft_wrap=True)
    if report.content is not None:
        out.print(f"Digest of the pictures: {report.content}", soft_wrap=True)
    problems = len(report.problems)
    count = {0: "No problem", 1: "1 problem"}.get(problems, f"{problems} problems")
    out.print(f"{count}. {'Images were looked for, not read.' if fast else 'Images were read.'}")
    if problems:
        raise typer.Exit(1)


def size_table(sizes: Sequence[Size]) -> RichTable:
    """Return the table of sizes: there, published, and those of the pair lists that ship with the suite."""
    table = RichTable()
    table.add_column("size", no_wrap=True)
    columns = {"there": "here", "published": "published", "shipped": "lists in the suite"}
    used = [key for key in columns if any(getattr(size, key) is not None for size in sizes)]
    for key in used:
        table.add_column(columns[key], justify="right")
    for size in sizes:
        values = [getattr(size, key) for key in used]
        table.add_row(size.name, *("" if value is None else f"{value:,}" for value in values))
    return table


@contextmanager
def reading_bar() -> Iterator[Progress]:
    """Give a callback that shows how many images are read, at a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task = bars.add_task("Reading images", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


data.command()(feasibility)
