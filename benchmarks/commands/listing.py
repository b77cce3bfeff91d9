"""What there is: the `list` and `show` commands of the command line.

    python bench.py list methods
    python bench.py show msci

They parse, print, and nothing else. `list` imports no torch.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.commands.console import err, load_plugins, out, print_hidden
from benchmarks.commands.options import Plugins, Profile, Results
from errors import UserError, did_you_mean


class Listing(StrEnum):
    """What can be listed."""

    methods = "methods"
    datasets = "datasets"
    backbones = "backbones"
    launchers = "launchers"
    suites = "suites"
    runs = "runs"


def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets, backbones, launchers, suites or runs.")],
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """List what is there: methods, datasets, backbones, launchers, suites or runs."""
    if what not in list(Listing):
        raise UserError(
            f"There is no list of '{what}'.",
            f"There are lists of {', '.join(Listing)}.",
            did_you_mean(what, list(Listing)) or "Choose one of these.",
        )
    load_plugins(plugin)
    {Listing.suites: list_suites, Listing.runs: lambda: list_runs(results)}.get(
        Listing(what), lambda: list_registry(what)
    )()
    if what == Listing.backbones:
        list_offers()


def show(
    method: Annotated[str, typer.Argument(help="A method's name, see 'list methods'.")],
    dataset: Annotated[str, typer.Option(help="Data set whose preset and vocabulary are shown.")] = "icon_states",
    backbone: Annotated[str, typer.Option(help="CLIP that the shapes belong to.")] = "tiny-icons",
    profile: Annotated[Profile, typer.Option(help="The paper, or the released code's accidents.")] = Profile.clean,
    plugin: Plugins = None,
) -> None:
    """Show a method: its paper, what it trains, its settings with their sources, ablations and known deviations."""
    load_plugins(plugin)
    from benchmarks.runs.describe import describe

    about = describe(method, dataset, backbone, profile.value)
    print_hidden(dataset)
    info = about.info
    out.print(Text(info.title, "bold"))
    where = ", ".join(part for part in (info.venue, f"arXiv {info.arxiv}" if info.arxiv else "") if part)
    out.print(f"{info.paper}{f'. {where}' if where else ''}")
    total = sum(group.numbers for group in about.tensors)
    table = RichTable(title=f"Trained on {backbone} and {dataset}: {total:,} numbers", title_justify="left")
    for head in ("tensor", "shape", "how many", "numbers"):
        table.add_column(head, justify="left" if head in ("tensor", "shape") else "right", overflow="fold")
    for group in about.tensors:
        shape = " x ".join(map(str, group.shape)) or "scalar"
        table.add_row(group.name, shape, str(group.count), f"{group.numbers:,}")
    out.print(table if about.tensors else "It trains nothing.")
    file = f"presets/{method}.toml "
    title = f"Settings for {dataset}, profile {profile.value}; in brackets: tables of {file}"
    table = RichTable(title=title.strip(), title_justify="left")
    for head in ("setting", "value", "from"):
        table.add_column(head, overflow="fold")
    for key, value, place in about.settings:
        table.add_row(key, str(value), place.removeprefix(file))
    out.print(table)
    for place, source in about.sources.items():
        out.print(f"{place}: {source}.")
    if info.ablations:
        table = RichTable(title="Ablations (--suite ablation)", title_justify="left")
        for head in ("name", "sets", "question"):
            table.add_column(head, overflow="fold")
        for item in info.ablations:
            changes = ", ".join(f"{key}={value}" for key, value in item.changes.items())
            table.add_row(item.name, changes, item.question)
        out.print(table)
    for text in info.deviations:
        out.print(f"Deviation: {text}.")


def list_registry(what: str) -> None:
    """Print the entries of a registry."""
    from registry import REGISTRIES

    registry = dict(zip(("methods", "datasets", "backbones", "launchers"), REGISTRIES, strict=True))[what]
    entries = registry.entries()
    table = RichTable()
    table.add_column("name", no_wrap=True)
    table.add_column("what", overflow="fold")
    if any(entry.paper for entry in entries):
        table.add_column("paper", overflow="fold")
    table.add_column("from", overflow="fold")
    for entry in entries:
        broken = Text(f"broken: {entry.error}", style="red") if entry.state == "broken" else entry.title
        paper = [entry.paper] if len(table.columns) == 4 else []
        table.add_row(entry.name, broken, *paper, entry.origin)
    out.print(table)


def list_offers() -> None:
    """Print what open_clip's definitions offer methods; those that offer the same are one row and one line of names."""
    from methods.offers import ALWAYS, OFFERS, TINY, all_offers

    known = {name: offers for name, offers in all_offers().items() if name != TINY}
    usable = sum(bool(offers.names) for offers in known.values())
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, offers in known.items():
        text = offers.text + (f", needs {offers.package}" if offers.package else "")
        shown = (
            ", ".join(offer for offer in OFFERS if offer in offers.names - ALWAYS) if offers.names else "no backbone"
        )
        groups.setdefault((offers.images, text, shown), []).append(name)
    title = f"{usable} of open_clip's {len(known)} models can be a backbone; they offer"
    table = RichTable(title=title, title_justify="left")
    for head in ("", "images", "text", "offers"):
        table.add_column(head, overflow="fold")
    for number, kind in enumerate(groups, start=1):
        table.add_row(str(number), *kind)
    out.print(table)
    for number, names in enumerate(groups.values(), start=1):
        out.print(f"{number}: {', '.join(names)}", soft_wrap=True)
    for name, what in OFFERS.items():
        out.print(f"{name}: {what}{', in all of them' if name in ALWAYS else ''}.", soft_wrap=True)


def list_suites() -> None:
    """Print the suites."""
    from benchmarks.runs.suites import load_suite, suite_names

    table = RichTable()
    for head in ("name", "what", "methods", "data sets", "seeds"):
        table.add_column(head, overflow="fold")
    for name in suite_names():
        suite = load_suite(name)
        methods = suite.methods if isinstance(suite.methods, str) else ", ".join(suite.methods)
        table.add_row(name, suite.title, methods, ", ".join(suite.datasets), ", ".join(map(str, suite.seeds)))
    out.print(table)


def list_runs(results: Path) -> None:
    """Print the run records of a folder with their state."""
    from benchmarks.report.tables import summary
    from benchmarks.runs.records import find_runs

    runs, problems = find_runs(results)
    table = RichTable()
    table.add_column("run", overflow="fold")
    for head in ("state", "AUC", "HM"):
        table.add_column(head, justify="right", no_wrap=True)
    for record in runs:
        values = summary(record) if record.result is not None else {}
        shown = (values.get("AUC"), values.get("HM"))
        table.add_row(record.run_id, record.status, *("–" if v is None else f"{v * 100:.1f}" for v in shown))
    out.print(table if runs else f"There are no runs in {results}.")
    for problem in problems:
        err.print(f"{problem.path}: {problem.message}", style="yellow", soft_wrap=True)
