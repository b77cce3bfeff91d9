"""The command `profile`: what methods cost. It parses, calls `benchmarks.cost`, prints."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.commands.data import Plugins, load_plugins, print_hidden
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.cost.tables import Table

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


class World(StrEnum):
    """Candidate pairs: the split's own, or every state x object."""

    closed = "closed"
    open = "open"


def profile(
    methods: Annotated[list[str] | None, typer.Option(help="Methods, or 'all', which is the default.")] = None,
    backbone: Annotated[str, typer.Option(help="CLIP, e.g. ViT-B-32; its weights are random.")] = "tiny-icons",
    labels: Annotated[str, typer.Option(help="mit_states, ut_zappos, cgqa, icon_states or a data set.")] = "mit_states",
    world: Annotated[World, typer.Option(help="Candidate pairs of the evaluation.")] = World.closed,
    batch: Annotated[int, typer.Option(min=0, help="Images at once; 0: each method's own batch size.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps and evaluation batches.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before them.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights and images.")] = 0,
    image: Annotated[str, typer.Option(help="Pixels of the JPEG files that are decoded.")] = "256x256",
    flops_only: Annotated[
        bool, typer.Option("--flops-only/--no-flops-only", help="Count and time nothing: any size, no memory.")
    ] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute/--no-recompute", help="Save memory: compute activations again in backward.")
    ] = False,
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
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", image)
    if size is None or min(map(int, size.groups())) < 1:
        raise UserError(f"'{image}' is no size of an image.", "A size is a width, an x and a height.", "Pass 480x360.")
    from benchmarks.cost.record import Settings
    from benchmarks.cost.tables import markdown, tables, write_csv
    from benchmarks.cost.whole import take
    from benchmarks.running.choices import choose_device, choose_precision

    print_hidden(labels)
    there = choose_device(device)
    settings = Settings(
        methods=chosen,
        backbone=backbone,
        labels=labels,
        world=world.value,
        batch=batch,
        steps=steps,
        warmup=warmup,
        device=str(there),
        precision=choose_precision(precision, there),
        seed=seed,
        flops_only=flops_only,
        recompute=recompute,
        image=(int(size[1]), int(size[2])),
        plugins=tuple(str(path.resolve()) for path in plugin or ()),
    )
    with err.status("starting") as status:
        found = take(settings, sys.argv, status.update)
    made = tables(found)
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        for table in made:
            show(table)
    if output is not None:
        from benchmarks.cost.figure import draw

        found.write(output / "profile.json")
        write_csv(found, output / "profile.csv")
        (output / "profile.md").write_text(markdown(made), encoding="utf-8")
        draw(found, output / "profile")
        err.print(f"{output}: {', '.join(sorted(path.name for path in output.glob('profile.*')))}", soft_wrap=True)
    if all(row.error for row in found.rows):
        raise typer.Exit(1)


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
