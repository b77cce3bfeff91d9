"""The command `tune`: settings of a method by a grid, judged on validation alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import load_plugins, out
from benchmarks.commands.options import Plugins, Precision, Short, World, spread
from benchmarks.commands.places import require_file, writing
from benchmarks.running.choices import Choices, How
from errors import counted
from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from benchmarks.running.tuning import Point, Search, Trial


@dataclass(frozen=True)
class Tried:
    """What is tried, and what all points have."""

    grid: Annotated[list[str], typer.Option(help="Settings and their values: --grid lr=1e-3,3e-3 dropout=0,0.3.")]
    budget: Annotated[int | None, typer.Option(min=1, help="At most so many points, drawn from the grid.")] = None
    seeds: Annotated[
        list[int] | None, typer.Option(min=0, help="Of each point; not those of reported runs. 100 101.")
    ] = None
    dataset: Annotated[str, typer.Option(help="Data set.")] = "icon_states"
    backbone: Annotated[str, typer.Option(help="CLIP.")] = "tiny-icons"
    world: Annotated[World, typer.Option(help="Candidate pairs.")] = World.closed
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting that all points have.")] = None
    short: Short = None
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs, instead of the preset's.")] = None
    precision: Precision = "auto"

    def search(self, method: str) -> Search:
        """Return this for a method; names are checked, and torch is not imported."""
        for registry, name in ((METHODS, method), (DATASETS, self.dataset), (BACKBONES, self.backbone)):
            registry.check(name)
        from benchmarks.running.tuning import Search

        seeds = tuple(dict.fromkeys(self.seeds or (100, 101)))
        world: Literal["closed", "open"] = "open" if self.world == World.open else "closed"
        return Search(method, self.grid, self.dataset, self.backbone, world, seeds, self.budget, bool(self.short))

    def choices(self, results: Path, how: How, plugins: Sequence[Path]) -> Choices:
        """Return what is chosen beside names and grid."""
        return Choices(
            results=results,
            overrides=tuple(self.set_ or ()),
            epochs=self.epochs,
            precision=self.precision,
            plugins=tuple(plugins),
            how=how,
        )

    def command(self, method: str, point: Point, plugins: Sequence[Path], how: How) -> str:
        """Return the command for a shell that runs a method with the settings of a point.

        Of how the points were computed it has what decides whether a run starts, and in which precision by default.
        """
        words = ["--methods", method, "--dataset", self.dataset, "--backbone", self.backbone]
        words += ["--world", self.world.value, "--short" if self.short else "--no-short"]
        words += ["--epochs", str(self.epochs)] if self.epochs is not None else []
        words += [] if self.precision == "auto" else ["--precision", self.precision]
        words += [] if how.device == "auto" else ["--device", how.device]
        words += ["--allow-missing", str(how.allow_missing)] if how.allow_missing else []
        words += [word for path in plugins for word in ("--plugin", str(path))]
        settings = [*(self.set_ or ()), *(f"{method}.{setting}" for setting in point)]
        return shlex.join(["python", "bench.py", "run", *words, "--set", *settings])


@spread
def tune(
    method: Annotated[str, typer.Argument(help="A method's name, see 'list methods'.")],
    *,
    tried: Tried,
    how: How,
    out_file: Annotated[Path | None, typer.Option("--out", help="Markdown file for the trials, best first.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the trials' records; CZSL_HOME/tuning.")] = None,
    plugin: Plugins = None,
) -> None:
    """Try settings of a method and show which is best on validation; test numbers are not looked at."""
    load_plugins(plugin)
    search = tried.search(method)
    chosen = search.points  # what the grid lacks is told before torch is imported
    if out_file is not None:
        require_file(out_file, "--out")
    from benchmarks.running import tuning
    from benchmarks.running.workbench import Workbench
    from datasets.cache import home
    from datasets.files import write_whole

    workbench = Workbench(tried.choices(results or home() / "tuning", how, plugin or ()))
    planned = tuning.plan_search(search, workbench)
    notes = list(dict.fromkeys(workbench.notes))  # points share most of them
    for note in notes:
        out.print(note, soft_wrap=True)
    runs = f"{counted(len(chosen), 'point')} x {counted(len(search.seeds), 'seed')}"
    out.print(f"{runs}, records in {workbench.choices.results}", soft_wrap=True)
    trials = tuning.run_search(planned, workbench, sys.argv, show_trial)
    for note in dict.fromkeys(workbench.notes):
        if note not in notes:  # told when a backbone was loaded
            out.print(note, soft_wrap=True)
    out.print(trials_table(trials, f"{method} on {tried.dataset}, validation, percent"))
    if not trials[0].error:
        print("Best:", tried.command(method, trials[0].point, plugin or (), how))
    if out_file is not None:
        with writing(out_file, "--out"):
            write_whole(out_file, tuning.log(search, trials))
        out.print(f"Trials: {out_file}", soft_wrap=True)
    tuning.require_success(trials)


def show_trial(number: int, count: int, trial: Trial) -> None:
    """Print what came of a point."""
    said = f"failed. {trial.error}" if trial.error else f"val AUC {100 * trial.auc:.2f}"
    out.print(f"{number}/{count} {' '.join(trial.point)}: {said}", soft_wrap=True)


def trials_table(trials: Sequence[Trial], title: str) -> RichTable:
    """Return the table of trials in their order, with a column for why points failed if any did."""
    failed = any(trial.error for trial in trials)
    table = RichTable(title=title, title_justify="left")
    table.add_column("settings", overflow="fold")
    table.add_column("val AUC", justify="right", no_wrap=True)
    if failed:
        table.add_column("why it failed", overflow="fold")
    for trial in trials:
        cells = [" ".join(trial.point), "failed" if trial.error else f"{100 * trial.auc:.2f}"]
        table.add_row(*cells, *([trial.error] if failed else []))
    return table
