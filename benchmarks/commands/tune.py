"""The command `tune`: settings of a method by a grid, judged on validation alone."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table as RichTable

from benchmarks.commands.console import load_plugins, out
from benchmarks.commands.options import Plugins, Precision, Short, World, spread
from benchmarks.running.choices import How
from errors import UserError
from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from benchmarks.running.tuning import Trial


@spread
def tune(
    method: Annotated[str, typer.Argument(help="A method's name, see 'list methods'.")],
    *,
    grid: Annotated[list[str], typer.Option(help="Settings and their values: --grid lr=1e-3,3e-3 dropout=0,0.3.")],
    budget: Annotated[int | None, typer.Option(min=1, help="At most so many points, drawn from the grid.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of each point; not those of reported runs. 100 101.")] = None,
    dataset: Annotated[str, typer.Option(help="Data set.")] = "icon_states",
    backbone: Annotated[str, typer.Option(help="CLIP.")] = "tiny-icons",
    world: Annotated[World, typer.Option(help="Candidate pairs.")] = World.closed,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting that all points have.")] = None,
    short: Short = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs, instead of the preset's.")] = None,
    precision: Precision = "auto",
    how: How,
    out_file: Annotated[Path | None, typer.Option("--out", help="Markdown file for the trials, best first.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the trials' records; CZSL_HOME/tuning.")] = None,
    plugin: Plugins = None,
) -> None:
    """Try settings of a method and show which is best on validation; test numbers are not looked at."""
    load_plugins(plugin)
    for registry, name in ((METHODS, method), (DATASETS, dataset), (BACKBONES, backbone)):
        registry.check(name)
    from benchmarks.running import tuning
    from benchmarks.running.choices import Choices
    from benchmarks.running.workbench import Workbench
    from datasets.cache import home
    from datasets.files import write_whole

    where: Literal["closed", "open"] = "open" if world == World.open else "closed"
    search = tuning.Search(method, grid, dataset, backbone, where, tuple(seeds or (100, 101)), budget, bool(short))
    chosen = search.points  # what the grid lacks is told before torch is imported
    choices = Choices(
        results=results or home() / "tuning",
        overrides=tuple(set_ or ()),
        epochs=epochs,
        precision=precision,
        plugins=tuple(plugin or ()),
        how=how,
    )
    workbench = Workbench(choices)
    out.print(f"{len(chosen)} points x {len(search.seeds)} seeds, records in {choices.results}", soft_wrap=True)

    def told(number: int, count: int, trial: Trial) -> None:
        out.print(f"{number}/{count} {' '.join(trial.point)}: val AUC {100 * trial.auc:.2f}", soft_wrap=True)

    trials = tuning.run_search(search, workbench, sys.argv, told)
    for note in dict.fromkeys(workbench.notes):
        out.print(note, soft_wrap=True)
    table = RichTable(title=f"{method} on {dataset}, validation, percent", title_justify="left")
    table.add_column("settings", overflow="fold")
    table.add_column("val AUC", justify="right", no_wrap=True)
    for trial in trials:
        table.add_row(" ".join(trial.point), f"{100 * trial.auc:.2f}")
    out.print(table)
    words = ["--methods", method, "--dataset", dataset, "--backbone", backbone, "--world", where]
    words += ["--short" if short else "--no-short", *(["--epochs", str(epochs)] if epochs is not None else [])]
    words += [] if precision == "auto" else ["--precision", precision]
    words += [word for path in plugin or () for word in ("--plugin", str(path))]
    best = [*(set_ or ()), *(f"{method}.{setting}" for setting in trials[0].point)]
    print("Best:", shlex.join(["python", "bench.py", "run", *words, "--set", *best]))
    if out_file is not None:
        try:
            write_whole(out_file, tuning.log(search, trials))
        except OSError as error:
            raise UserError(
                f"The trials cannot be written to {out_file}.", f"The system says: {error.strerror}.", "Choose another."
            ) from error
        out.print(f"Trials: {out_file}", soft_wrap=True)
