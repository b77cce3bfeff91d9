"""The command line of the suite.

    python bench.py run --methods msci csp --dataset mit_states
    python bench.py report
    python bench.py list methods

It parses, calls `benchmarks`, prints, and nothing else. torch is imported by the commands that need it, so `--help` and
`list` start at once.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

# A library that is also called `datasets` may be installed; this project's own packages come first wherever it starts.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.commands import launching
from benchmarks.commands.cache import cache
from benchmarks.commands.cost import World, profile
from benchmarks.commands.data import Plugins, data, load_plugins
from benchmarks.commands.finished import compare, predict, status
from benchmarks.commands.listing import Profile, list_, show
from benchmarks.training import stopping
from benchmarks.training.processes import rank
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.report.evidence import Question
    from benchmarks.report.writing import Report

app = typer.Typer(
    help="Benchmark suite for compositional zero-shot learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# No markup: what is printed holds brackets of its own, such as the [mit_states] of a preset file.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

LIST_OPTIONS = ("--methods", "--seeds", "--ablations", "--set", "--plugin", "--slurm")
"""Options that take several values: after one option, by repeating it, and (methods, seeds, ablations) with commas."""
COMMA_OPTIONS = ("--methods", "--seeds", "--ablations")
FLAGS = ("--dry-run", "--flops-only", "--recompute", "--compile", "--feature-cache")
"""Options that are on or off; a word after one may say which."""
FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class OnExisting(StrEnum):
    """What to do about runs that are there already."""

    resume = "resume"
    skip = "skip"
    redo = "redo"


def spread_lists(arguments: list[str]) -> list[str]:
    """Repeat list options for each of their values, which is how Typer reads them.

    >>> spread_lists(["run", "--methods", "msci", "csp", "--seeds", "0,1", "--set=lr=1"])
    ['run', '--methods', 'msci', '--methods', 'csp', '--seeds', '0', '--seeds', '1', '--set', 'lr=1']
    """
    spread: list[str] = []
    option: str | None = None
    values = 0
    for position, argument in enumerate(arguments):
        if argument == "--":
            return spread + arguments[position:]
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            if option is not None and values == 0:
                spread.append(option)  # an option without a value: Typer says so
            option, values = (name, 0) if name in LIST_OPTIONS else (None, 0)
            if option is None:
                spread.append(argument)
                continue
            if not equals:
                continue
            argument = value
        if option is None:
            spread.append(argument)
            continue
        parts = [part for part in argument.split(",") if part] if option in COMMA_OPTIONS else [argument]
        for part in parts:
            spread += [option, part]
            values += 1
    return [*spread, option] if option is not None and values == 0 else spread


def plain_flags(arguments: list[str]) -> list[str]:
    """Turn a flag with a word into the flag alone or its negation, which is how Typer reads them.

    >>> plain_flags(["run", "--dry-run", "False", "--recompute=yes"])
    ['run', '--no-dry-run', '--recompute']
    """
    plain: list[str] = []
    for argument in arguments:
        name, equals, word = argument.partition("=")
        if not equals and plain and plain[-1] in FLAGS and argument.lower() in FLAG_WORDS:
            name, word = plain.pop(), argument
        elif not (equals and name in FLAGS and word.lower() in FLAG_WORDS):
            plain.append(argument)
            continue
        plain.append(name if FLAG_WORDS[word.lower()] else f"--no-{name.removeprefix('--')}")
    return plain


@app.command()
def run(
    context: typer.Context,
    suite: Annotated[str, typer.Option(help="A named set of runs; the other options change it.")] = "quick",
    methods: Annotated[list[str] | None, typer.Option(help="Methods, e.g. --methods msci csp, or 'all'.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Seeds, e.g. --seeds 0 1 2.")] = None,
    ablations: Annotated[list[str] | None, typer.Option(help="Switches beside the full model, see 'show'.")] = None,
    world: Annotated[World | None, typer.Option(help="Candidate pairs.")] = None,
    profile: Annotated[Profile | None, typer.Option(help="The paper, or the released code's accidents.")] = None,
    backbone: Annotated[str | None, typer.Option(help="CLIP, e.g. ViT-L-14-quickgelu/openai.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs, instead of the preset's.")] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Train on so many augmented views of an image.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set csp.lr=1e-3.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; --set wins over it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")] = "auto",
    devices: launching.Devices = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    on_existing: Annotated[OnExisting, typer.Option(help="About runs that are there.")] = OnExisting.resume,
    allow_missing: Annotated[int, typer.Option(min=0, help="Leave out up to so many missing images.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder of run records.")] = Path("results"),
    plugin: Plugins = None,
    recompute: Annotated[
        bool, typer.Option("--recompute/--no-recompute", help="Save memory: compute activations again in backward.")
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Have torch.compile make the training step.")
    ] = False,
    feature_cache: Annotated[
        bool, typer.Option("--feature-cache/--no-feature-cache", help="Keep frozen image features on disk.")
    ] = True,
    launcher: launching.LauncherName = "inline",
    jobs: launching.Jobs = None,
    parallel: launching.Parallel = None,
    slurm: launching.SlurmSettings = None,
    spec: launching.SpecFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Show what would be done.")] = False,
) -> None:
    """Train and evaluate methods; without options: every method on icon_states, one seed."""
    from benchmarks.runs.suites import expand, load_suite

    load_plugins(plugin)
    launches = launching.launcher_of(launcher, jobs, parallel, slurm, plugin)
    chosen = load_suite(suite).replace(
        methods=several(methods),
        ablations=several(ablations),
        datasets=None if dataset is None else (dataset,),
        seeds=None if seeds is None else tuple(seeds),
        worlds=None if world is None else (world.value,),
        profile=None if profile is None else profile.value,
        backbones=None if backbone is None else (backbone,),
    )
    requests = expand(chosen)  # names are checked before torch is imported
    if not dry_run:
        launching.on_devices(devices, launches, device, precision)

    from benchmarks.running.choices import Choices, How
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench

    choices = Choices(
        results=results,
        overrides=tuple(set_ or ()),
        config_file=config,
        epochs=epochs,
        views=views,
        precision=precision,
        on_existing=on_existing.value,
        plugins=tuple(plugin or ()),
        how=How(
            feature_cache=feature_cache,
            device=device,
            workers=workers,
            recompute=recompute,
            compiled=compile_,
            allow_missing=allow_missing,
        ),
    )
    if spec is not None:
        planned, workbench = launching.spec_run(context, spec, choices, results, launches)
    else:
        workbench = Workbench(launches.choices(choices))
        planned = plan_runs(requests, workbench)
    for note in workbench.notes:
        out.print(note, soft_wrap=True)
    if dry_run:
        show_plan(planned, workbench)
        launching.show_launch(planned, workbench, launches)
        return
    code = launching.do_runs(planned, workbench, launches)
    if launches.waits and spec is None and code < 128 and workbench.group.leads:
        code = show_failures(show_report(results, {item.spec.run_id for item in planned})) or code
    if code:
        raise typer.Exit(code)


def several(names: list[str] | None) -> str | tuple[str, ...] | None:
    """Return the names of a list option as a suite has them: "all" and "none" are words, no names at all is None."""
    if not names:
        return None
    return names[0] if names in (["all"], ["none"]) else tuple(names)


def show_plan(planned: list, workbench) -> None:
    """Print the runs with what would be done about each, where their settings come from, and what memory they take."""
    from benchmarks.running.memory_estimate import memory_table

    table = RichTable(title=f"Planned runs on {workbench.device} in {workbench.precision}", title_justify="left")
    for head in ("run", "there", "would"):
        table.add_column(head, overflow="fold")
    for item in planned:
        table.add_row(item.spec.run_id, item.status, item.action)
    out.print(table)
    first: dict[str, dict[str, str]] = {}
    for item in planned:
        spec = item.spec
        texts = {
            key: f"{key}={spec.settings[key]} ({note['origin']})"
            for key, note in sorted(item.provenance.items())
            if key in spec.settings
        }
        name = ", ".join(filter(None, (spec.method, spec.ablation, f"seed {spec.seed}")))
        if (before := first.setdefault(spec.method, texts)) is texts:
            said = ", ".join(texts.values())
        else:  # one switch among fifty settings would be looked for in vain
            changed = [text for key, text in texts.items() if before.get(key) != text]
            said = f"{', '.join(changed)}; the rest as in the first" if changed else "as the first"
        out.print(f"{name}: {said}", soft_wrap=True)
    if rows := memory_table(planned, workbench):
        title = "Memory in GB, estimated; the process and the data come on top"
        table = RichTable(title=title, title_justify="left")
        for head in ("method", "data set", "backbone", "weights", "step", "evaluation", "in all"):
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table)


def show_report(results: Path, run_ids: set[str] | None = None, question: Question | None = None) -> Report:
    """Print the main tables of the runs asked for (None: of all), write the report of all records and return it."""
    from benchmarks.report.render import terminal
    from benchmarks.report.writing import read_report

    found = read_report(results, question)
    tables = found.tables if run_ids is None else found.tables_of(run_ids)
    for table in tables:
        if run_ids is None or table.title.startswith(("Results", "Differences", "Ablations")):
            out.print()
            shown = found.failures.attempt("In the terminal", table.title, partial(terminal, table))
            if shown is None:
                continue
            out.print(shown)
            for note in table.notes:
                out.print(note, style="yellow", soft_wrap=True)
    for problem in found.problems:
        err.print(f"Not read: {problem}", style="yellow", soft_wrap=True)
    found.write()  # after the tables are shown: the disk may be full
    if found.runs or found.problems:
        out.print(f"Report: {found.path}", soft_wrap=True)
    return found


def show_failures(found: Report) -> int:
    """Print what of a report could not be made and what its reader must know; return the exit code, 1 for a failure."""
    from benchmarks.report.failures import LOG

    for notice in found.notices:
        err.print(notice, style="yellow", soft_wrap=True)
    for failure in found.failures.found:
        err.print(f"{failure.where}: {failure}", style="red", soft_wrap=True)
    if any(failure.trace for failure in found.failures.found):
        err.print(f"Tracebacks: {found.root / LOG}", soft_wrap=True)
    return 1 if found.failures.found else 0


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="Folder of run records.")] = Path("results"),
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; csp where it was run.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: no intervals and tests.")] = 10_000,
    plugin: Plugins = None,
) -> None:
    """Make the tables (Markdown, LaTeX, CSV), figures and the HTML page of all run records."""
    from benchmarks.report.evidence import Question
    from benchmarks.report.writing import write_files

    load_plugins(plugin)
    found = show_report(results, question=Question(baseline, resamples))
    if not found.runs and not found.problems:
        raise UserError(
            f"There is nothing to report in '{results}'.",
            "It holds no run records.",
            "Run 'python bench.py run' first, or pass --results with another folder.",
        )
    written = write_files(found)
    for folder in sorted({path.parent for path in written}):
        names = sorted(path.name for path in written if path.parent == folder)
        out.print(f"{folder}: {', '.join(names)}", soft_wrap=True)
    if code := show_failures(found):
        raise typer.Exit(code)


for command in (status, launching.cancel, compare, predict, profile):
    app.command()(command)
app.command(name="list")(list_)
app.command()(show)
app.add_typer(data, name="data")
app.add_typer(cache, name="cache")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2, a signal 128 + number."""
    if rank() > 0:  # of several processes that make a run the first one speaks
        for console in (out, err, launching.out, launching.err):
            console.quiet = True
    try:
        with stopping.listening():
            app(spread_lists(plain_flags(sys.argv[1:])), standalone_mode=True)
    except stopping.Stopped as stop:
        err.print(f"Stopped by {stop.word}. Nothing finished is lost; the same command goes on.")
        sys.exit(stop.exit_code)
    except UserError as error:
        err.print(Text.assemble(("Error:", "red"), f" {error}"), soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
