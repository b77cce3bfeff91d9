"""The commands between released codes and this suite: `import` evaluates their checkpoints, `export` writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands import launching
from benchmarks.commands.console import load_plugins, out
from benchmarks.commands.options import OnExisting, Plugins, Precision, Profile, Results, World, spread
from benchmarks.commands.reporting import show_failures, show_report
from benchmarks.running.choices import Choices, How
from registry import BACKBONES, DATASETS, METHODS


class Form(StrEnum):
    """Whose form a file has."""

    official = "official"


@dataclass(frozen=True)
class Made:
    """What a checkpoint was made with, and what its record is to be called by."""

    method: Annotated[str, typer.Option(help="The method: csp, coop, dfsp, troika, msci or caila.")]
    dataset: Annotated[str, typer.Option(help="Data set that it was trained on.")]
    backbone: Annotated[str, typer.Option(help="CLIP that it was trained with, e.g. ViT-L-14-quickgelu/openai.")]
    world: Annotated[World, typer.Option(help="Candidate pairs.")] = World.closed
    profile: Annotated[Profile, typer.Option(help="Which rules evaluate it.")] = Profile.clean
    seed: Annotated[int, typer.Option(min=0, help="Seed that it was trained with, for the record.")] = 0
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting that the file does not tell.")] = None
    precision: Precision = "auto"


@spread
def import_(
    file: Annotated[Path, typer.Argument(help="Checkpoint that a released code saved.")],
    *,
    made: Made,
    how: How,
    on_existing: Annotated[OnExisting, typer.Option(help="About a record that is there.")] = OnExisting.resume,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Evaluate a checkpoint of a released code as any run; see docs/your_checkpoints.md."""
    load_plugins(plugin)
    for registry, name in ((METHODS, made.method), (DATASETS, made.dataset), (BACKBONES, made.backbone)):
        registry.check(name)
    from benchmarks.running.importing import plan_import
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.suites import RunRequest

    choices = Choices(results, tuple(made.set_ or ()), precision=made.precision, on_existing=on_existing.value, how=how)
    workbench = Workbench(replace(choices, plugins=tuple(plugin or ())))
    names = (made.method, made.dataset, made.backbone)
    request = RunRequest(*names, made.world.value, made.profile.value, made.seed)
    found = plan_import(file, request, workbench)
    for sentence in (*workbench.notes, *found.said):
        out.print(sentence, soft_wrap=True)
    launcher = launching.launcher_of(launching.Launch(), plugin)
    code = launching.do_runs([found.planned], workbench, launcher)
    if code < 128:
        code = show_failures(show_report(results, {found.planned.spec.run_id})) or code
    if code:
        raise typer.Exit(code)


def export(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of it, or its folder.")],
    to: Annotated[Form, typer.Option(help="Whose form the file gets: the method's released code.")] = Form.official,
    to_file: Annotated[Path | None, typer.Option("--out", help="File to write; by default RUN.pt here.")] = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Write a finished run's weights as its method's released code saves them."""
    load_plugins(plugin)
    from benchmarks.report.exporting import export as written
    from benchmarks.report.named_runs import find_run
    from errors import counted

    record = find_run(results, run)
    done = written(record, Path(f"{record.run_id}.pt") if to_file is None else to_file)
    out.print(f"Written to {done.path}: {counted(done.tensors, 'tensor')} as the {to.value} code saves them.")
    if done.zeros:
        count = counted(len(done.zeros), "tensor")
        out.print(f"{count} that it saves and never reads are zeros, such as {done.zeros[0]}.", soft_wrap=True)
    out.print("Back again with:")
    out.print(f"    {done.back}", soft_wrap=True)
