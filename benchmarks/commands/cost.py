"""The command `cost`: what methods cost."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import err, load_plugins, out, print_hidden
from benchmarks.commands.options import Device, Plugins, Precision, Recompute, World, spread
from benchmarks.commands.places import require_folder, writing
from datasets.files import write_whole
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.cost.record import Profile, Settings
    from benchmarks.cost.tables import Table


@dataclass(frozen=True)
class Measured:
    """What is measured, and how often."""

    backbone: Annotated[str, typer.Option(help="CLIP, e.g. ViT-B-32; its weights are random.")] = "tiny-icons"
    labels: Annotated[str, typer.Option(help="mit_states, ut_zappos, cgqa, icon_states or a data set.")] = "mit_states"
    world: Annotated[World, typer.Option(help="Candidate pairs of the evaluation.")] = World.closed
    batch: Annotated[int, typer.Option(min=0, help="Images at once; 0: each method's own batch size.")] = 16
    steps: Annotated[int, typer.Option(min=1, help="Timed steps and evaluation batches.")] = 3
    warmup: Annotated[int, typer.Option(min=0, help="Steps before them.")] = 1
    device: Device = "auto"
    precision: Precision = "auto"
    seed: Annotated[int, typer.Option(help="Of weights and images.")] = 0
    image: Annotated[str, typer.Option(help="Pixels of the JPEG files that are decoded.")] = "256x256"
    flops_only: Annotated[
        bool, typer.Option("--flops-only/--no-flops-only", help="Count and time nothing: any size, no memory.")
    ] = False
    recompute: Recompute = False

    def settings(self, methods: tuple[str, ...], plugins: Sequence[Path]) -> Settings:
        """Return this for methods, checked, with the device that is there."""
        size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.image)
        if size is None or min(map(int, size.groups())) < 1:
            raise UserError(
                f"'{self.image}' is no size of an image.", "A size is a width, an x and a height.", "Pass 480x360."
            )
        from benchmarks.cost.record import Settings
        from benchmarks.running.choices import choose_device, choose_precision

        print_hidden(self.labels)
        there = choose_device(self.device)
        changed = {
            "methods": methods,
            "device": str(there),
            "precision": choose_precision(self.precision, there),
            "image": tuple(map(int, size.groups())),
            "plugins": tuple(str(path.resolve()) for path in plugins),
        }
        return Settings.model_validate(asdict(self) | changed)


@spread
def cost(
    *,
    methods: Annotated[list[str] | None, typer.Option(help="Methods, or 'all', which is the default.")] = None,
    measured: Measured,
    output: Annotated[Path | None, typer.Option(help="Folder for profile.json, .csv, .md and the figure.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    plugin: Plugins = None,
) -> None:
    """Measure what methods cost: parameters, FLOPs, time by part, memory. Needs no data and no trained weights."""
    load_plugins(plugin)
    from registry import METHODS

    chosen = tuple(METHODS.names() if not methods or methods == ["all"] else methods)
    for name in chosen:
        METHODS.check(name)
    if methods and methods != ["all"]:  # of all methods, those that do not fit are rows that say so
        require_these_fit(chosen, measured.backbone)
    settings = measured.settings(chosen, plugin or ())
    if output is not None:
        require_folder(output, "--output")
    from benchmarks.cost.tables import tables
    from benchmarks.cost.whole import take

    with err.status("starting") as status:
        found = take(settings, sys.argv, status.update)
    made = tables(found)
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        for table in made:
            show(table)
    if output is not None:
        write(found, made, output)
        err.print(f"{output}: {', '.join(sorted(path.name for path in output.glob('profile.*')))}", soft_wrap=True)
    if all(row.error for row in found.rows):
        raise typer.Exit(1)


def write(found: Profile, made: Sequence[Table], folder: Path) -> None:
    """Write a profile and its tables into a folder, which is made if need be, as JSON, CSV, Markdown and figures."""
    from benchmarks.cost.figure import draw
    from benchmarks.cost.tables import markdown, write_csv

    with writing(folder, "--output"):
        found.write(folder / "profile.json")
        write_csv(found, folder / "profile.csv")
        write_whole(folder / "profile.md", markdown(made))
        draw(found, folder / "profile")


def require_these_fit(methods: Sequence[str], backbone: str) -> None:
    """Raise `UserError` for the first of the methods that cannot run on a backbone."""
    from benchmarks.cost.counting import backbone_name
    from benchmarks.runs.fitting import require_fitting

    for name in methods:
        require_fitting(name, backbone_name(backbone))


@wraps(cost)
def profile(**given: object) -> None:
    # The old name of `cost`; what the command says of itself is wrapped.
    err.print("profile is called cost now; the old name goes with the next release", style="yellow", soft_wrap=True)
    cost(**given)


def show(table: Table) -> None:
    """Print a table that fits 80 columns, and its notes."""
    out.print()
    drawn = RichTable(title=table.title, title_justify="left", padding=(0, 0), pad_edge=False)
    for head in table.heads:
        drawn.add_column(head, justify="left" if head == "method" else "right", no_wrap=head != "method")
    for row in table.rows:
        drawn.add_row(*row)
    out.print(drawn)
    for note in table.notes:
        out.print(note, soft_wrap=True)
