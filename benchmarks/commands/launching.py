"""Starting runs and ending them: what `run` does with a launcher or with one run's file, and `cancel`.

    python bench.py run --seeds 0 1 2 --launcher local --jobs 2
    python bench.py run --seeds 0 1 2 --launcher slurm --parallel 4 --slurm partition=gpu gpus=1 time=2:00:00
    python bench.py run --spec results/RUN/spec.json
    python bench.py cancel

They parse, call `benchmarks`, print, and nothing else. torch is imported where runs are planned.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.console import err, load_plugins, out
from benchmarks.commands.options import HOW, Plugins, Results
from benchmarks.launchers.base import Launcher, LaunchOptions
from benchmarks.launchers.side_by_side import at_once
from benchmarks.runs.environment import PROJECT
from benchmarks.training.processes import launch, must_launch, processes
from errors import UserError, counted
from registry import LAUNCHERS

if TYPE_CHECKING:
    from benchmarks.running.choices import Choices
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench


@dataclass(frozen=True)
class Launch:
    """Who does the runs of `run`, and whether at all."""

    devices: Annotated[int | None, typer.Option(min=1, help="Make each run on so many devices at once.")] = None
    launcher: Annotated[
        str | None, typer.Option(help="inline, local or slurm, see docs/cluster.md; by default what is fastest here.")
    ] = None
    jobs: Annotated[int | None, typer.Option(min=1, help="local: runs at a time.")] = None
    parallel: Annotated[int | None, typer.Option(min=1, help="slurm: jobs at a time.")] = None
    slurm: Annotated[list[str] | None, typer.Option(help="slurm: gpus, time, account ...: any option of sbatch.")] = (
        None
    )
    spec: Annotated[Path | None, typer.Option(help="Do the one run of a spec.json or job.json.")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run/--no-dry-run", help="Show what would be done.")] = False


WITH_SPEC = ("spec", "results", "plugin", "on_existing", "devices", "dry_run")
"""Parameters that go with any `--spec`; those of `How` go with one that does not say itself how the run is done."""


def launcher_of(launch: Launch, plugins: Sequence[Path] | None) -> Launcher:
    """Return the launcher that the command line asks for; where it asks for none, see `fastest_here`."""
    settings, files = tuple(launch.slurm or ()), tuple(plugins or ())
    options = LaunchOptions(launch.jobs, launch.parallel, settings, files, tuple(sys.argv))
    return LAUNCHERS.get(launch.launcher or ("inline" if launch.jobs is None else "local"))(options)


def fastest_here(launch: Launch, launcher: Launcher, planned: Sequence[PlannedRun], workbench: Workbench) -> Launcher:
    """Return the launcher that does the planned runs: side by side on several cores, unless the user chose one."""
    if launch.launcher is not None or launch.jobs is not None or launch.spec is not None:
        return launcher
    jobs = at_once(planned, workbench)
    return launcher if jobs == 1 else LAUNCHERS.get("local")(replace(launcher.options, jobs=jobs))


def on_devices(count: int | None, launcher: Launcher, device: str, precision: str) -> None:
    """Do this very command in `count` processes and exit with their code, unless that is what this process is one of.

    device, precision: as asked for; what cannot be had is told once here, and not in every process.
    """
    if launcher.name != "inline" and (processes() > 1 or (count or 1) > 1):
        raise UserError(
            "Several devices for each run were asked for.",
            f"The launcher {launcher.name} starts runs of one process.",
            "Leave --launcher out; docs/distributed.md has an example for SLURM.",
        )
    if must_launch(count):
        from benchmarks.running.choices import check_device

        assert count is not None  # else there is nothing to launch
        check_device(device, precision, count)
        raise typer.Exit(launch(count, [sys.executable, str(PROJECT / "bench.py"), *sys.argv[1:]]))


def spec_run(
    context: typer.Context, path: Path, choices: Choices, launcher: Launcher
) -> tuple[list[PlannedRun], Workbench]:
    """Return the run of a file, planned. Its folder is the file's own, where that is a run's, else in the results.

    A job that was handed out for several runs of one training is all of these.

    context: says which options were given.
    """
    from benchmarks.launchers.job import jobs_beside, plan_job, read_job
    from benchmarks.running.plan import note_empty_groups
    from benchmarks.running.workbench import Workbench

    given = _given(context)
    job, complete = read_job(path)
    for name in given - {*WITH_SPEC, *(() if complete else HOW)}:
        raise UserError(
            f"The option {_option(context, name)} does not go with --spec.",
            f"The run in {path} says that itself.",
            "Leave one of the two out.",
        )
    if complete or not choices.plugins:
        choices = replace(choices, plugins=tuple(Path(plugin) for plugin in job.plugins))
        load_plugins(choices.plugins)
    if complete:
        launcher.options = replace(launcher.options, command_line=job.command_line)
        choices = job.applied(choices)
    elif "allow_missing" not in given:
        choices = replace(choices, how=replace(choices.how, allow_missing=job.how.allow_missing))
    at_home = path.resolve().parent.name == job.spec.run_id and "results" not in given
    folder = path.resolve().parent if at_home else choices.results / job.spec.run_id
    spec = job.spec
    choices = replace(choices, results=folder.parent, precision=spec.precision, threads=spec.threads)
    workbench = Workbench(choices)
    policy = choices.on_existing
    jobs = [(folder, job), *(jobs_beside(path, job) if at_home else ())]
    redo, skip = policy == "redo", policy == "skip"
    planned = [plan_job(own, place, workbench, redo=redo, skip=skip) for place, own in jobs]
    note_empty_groups(workbench, planned)
    return planned, workbench


def _given(context: typer.Context) -> set[str]:
    """Return the parameters that the command line gives."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _option(context: typer.Context, name: str) -> str:
    """Return how the option of a parameter is called."""
    return next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)


def do_runs(planned: Sequence[PlannedRun], workbench: Workbench, launcher: Launcher) -> int:
    """Have the runs done and say what becomes of them. Return the exit code, see `Launcher.launch`."""
    from benchmarks.commands.printer import Printer, progress_bars

    todo = sum(item.action != "nothing" for item in planned)
    if todo == 0:
        there = "run is" if len(planned) == 1 else counted(len(planned), "run", "runs are")
        out.print(f"Nothing new to do: the {there} there already (--on-existing redo runs again).")
    if note := _computed_elsewhere(planned, workbench):
        out.print(note, style="yellow", soft_wrap=True)
    with progress_bars(err) as bars:
        watch = Printer(bars, visible=todo > 0)
        code = launcher.launch(planned, workbench, watch)
    if watch.jobs:
        where = f"--results {shlex.quote(str(workbench.choices.results))}"
        queued = counted(watch.jobs, "run is", "runs are")
        out.print(f"{queued} queued. How far they are, what they give, and how to end them:")
        for command in ("status", "report", "cancel"):
            out.print(f"    python bench.py {command} {where}", soft_wrap=True)
    return code


def _computed_elsewhere(planned: Sequence[PlannedRun], workbench: Workbench) -> str:
    """Say which finished runs, to which nothing is done, have numbers that would come out otherwise here."""
    records = []
    for item in planned:
        if item.action == "nothing" and item.status == "done":
            with suppress(UserError):  # the report names what cannot be read
                records.append(item.folder.read())
    if not records:
        return ""
    from benchmarks.report.machines import elsewhere_note
    from benchmarks.running.process import here

    return elsewhere_note(records, here(workbench))


def show_launch(planned: Sequence[PlannedRun], workbench: Workbench, launcher: Launcher) -> None:
    """Print how the launcher would do the runs."""
    for line in launcher.preview(planned, workbench):
        out.print(line, soft_wrap=True)


def cancel(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs, by id or its beginning; without any: all.")] = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """End runs that wait or are at work, on this machine or in SLURM's queue; what they have is kept."""
    from benchmarks.launchers.cancel import cancel as cancelled

    load_plugins(plugin)
    found = cancelled(results, runs or ())
    for one in found:
        out.print(f"{one.run_id}: {one.message}.", style=None if one.done else "yellow", soft_wrap=True)
    if not found:
        out.print(f"No run in {results} is waiting or at work.", soft_wrap=True)
    if any(not one.done for one in found):
        raise typer.Exit(1)
