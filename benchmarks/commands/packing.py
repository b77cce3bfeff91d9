"""The commands `pack` and `unpack`: finished runs in one file, to be sent and read elsewhere."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.console import err, out
from errors import UserError, counted


def pack(
    results: Annotated[Path, typer.Argument(help="Folder of run records.")],
    file: Annotated[Path, typer.Argument(help="File to be written, e.g. runs.tar.xz.")],
    only: Annotated[str, typer.Option(help="Runs by a pattern of their ids, e.g. 'csp-*'.")] = "*",
) -> None:
    """Pack finished runs into one file: settings, results and per-image scores, without weights and paths."""
    from benchmarks.report import archive
    from benchmarks.report.packing import packed
    from benchmarks.runs.records import find_runs

    if not file.name.endswith(archive.ENDING) or file.is_dir():
        raise UserError(
            f"The runs cannot be packed into {file}.",
            "It is a folder." if file.is_dir() else f"A packed file ends in {archive.ENDING}.",
            f"Name it like {(file / 'runs' if file.is_dir() else file.with_suffix('')).name}{archive.ENDING}.",
        )
    if file.is_file() and not archive.is_archive(file):
        raise UserError(f"{file} is not overwritten.", "It is there and is no packed file.", "Choose another name.")
    runs, problems = find_runs(results)
    done = {run.run_id: run for run in runs if run.result is not None and fnmatchcase(run.run_id, only)}
    for problem in problems:
        err.print(f"Not packed: {problem.path}: {problem.message}", style="yellow", soft_wrap=True)
    if not done:
        raise UserError(
            f"There is nothing to pack in '{results}'.",
            f"It holds {counted(len(runs), 'run')}, and none is finished and fits '{only}'.",
            "Pass a folder of finished runs, or another --only.",
        )
    archive.write(file, [packed(run, shorten=True) for run in done.values()])
    left = len(runs) - len(done)
    others = f", {counted(left, 'other record')} left out" if left else ""
    out.print(f"{file}: {counted(len(done), 'run')}, {file.stat().st_size:,} bytes{others}", soft_wrap=True)


def unpack(
    file: Annotated[Path, typer.Argument(help="A packed file.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the records.")],
    only: Annotated[str, typer.Option(help="Runs by a pattern of their ids, e.g. 'csp-*'.")] = "*",
) -> None:
    """Write the runs of a packed file as ordinary record folders; what is there already is left alone."""
    from benchmarks.report import archive
    from benchmarks.report.sources import Source, opened, records_of
    from benchmarks.runs.records import SPEC

    if not file.is_file():
        raise UserError(f"There is no packed file {file}.", "There is no such file.", "Pass one that 'pack' wrote.")
    with opened([file]) as (source,):
        runs, problems, _ = records_of([source])
        own = [run for run in runs if fnmatchcase(run.run_id, only)]
        new = [run for run in own if not (folder / run.run_id / SPEC).exists()]
        there = [run for run in own if run not in new]
        if there:
            # The folder counts first; what differs there is said.
            for clash in records_of([Source(folder, folder), source])[2]:
                if any(run.run_id in clash for run in there):
                    err.print(clash, style="yellow", soft_wrap=True)
        wanted = {run.run_id for run in new}
        for packed in archive.read(file):
            if packed.run_id in wanted:
                archive.unpack(packed, folder)
        kept = f", {counted(len(there), 'run was', 'runs were')} there already" if there else ""
        out.print(f"{counted(len(new), 'run')} below {folder}{kept}", soft_wrap=True)
        bad = [problem for problem in problems if fnmatchcase(problem.path.name, only)]
        if bad:
            raise UserError(
                f"{counted(len(bad), 'run was', 'runs were')} left out: in {file} they cannot be read.",
                f"The first is {bad[0].path.name}: {bad[0].message}",
                "Have the runs packed once more.",
            )
