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
    from benchmarks.report.sources import Source, check_archive, clash, laid_out, records_of
    from benchmarks.runs.records import SPEC, find_runs

    if not file.is_file():
        raise UserError(f"There is no packed file {file}.", "There is no such file.", "Pass one that 'pack' wrote.")
    check_archive(file)
    packed = [run for run in archive.read(file) if fnmatchcase(run.run_id, only)]
    with laid_out(file, packed) as source:
        runs, problems, _ = records_of([source])
        new = {run.run_id for run in runs if not (folder / run.run_id / SPEC).exists()}
        if len(new) < len(runs):
            own_runs, damaged = find_runs(folder)
            for problem in damaged:
                if problem.path.name in {run.run_id for run in runs}:
                    err.print(f"Left as it is: {problem.path}: {problem.message}", style="yellow", soft_wrap=True)
            there = {run.run_id: run for run in own_runs}
            for run in runs:
                if run.run_id in new or (own := there.get(run.run_id)) is None:
                    continue
                if own.result is None:
                    text = f"{run.run_id} is in {folder} without a result ({own.status}), and is left as it is."
                else:
                    text = clash((own, Source(folder, folder)), (run, source))
                if text:
                    err.print(text, style="yellow", soft_wrap=True)
        for one in packed:
            if one.run_id in new:
                archive.unpack(one, folder)
    kept = f", {counted(len(runs) - len(new), 'run was', 'runs were')} there already" if len(new) < len(runs) else ""
    out.print(f"{counted(len(new), 'run')} below {folder}{kept}", soft_wrap=True)
    if problems:
        raise UserError(
            f"{counted(len(problems), 'run was', 'runs were')} left out: in {file} they cannot be read.",
            f"The first is {problems[0].path.name}: {problems[0].message}",
            "Have the runs packed once more.",
        )
