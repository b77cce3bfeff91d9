"""A run as a file: `python bench.py run --spec FILE` does the same run, with the same numbers, in another process.

A launcher writes `job.json` into the run's folder: the specification, where its settings come from, and how it is to be
done. The `spec.json` of a record will do as well; how it is done is then up to the command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.running.choices import Choices, How
from benchmarks.runs import files, locks
from benchmarks.runs.asked import Asked, asked_of
from benchmarks.runs.environment import PROJECT
from benchmarks.runs.places import as_asked, unknown_places
from benchmarks.runs.records import SPEC, RunFolder, RunRecord
from benchmarks.runs.settings import Provenance
from benchmarks.runs.spec import SCHEMA_VERSION, RunSpec
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

JOB = "job.json"
LOG = "log.txt"
"""File in a run's folder with what its processes printed."""


class Job(BaseModel):
    """One run to be done.

    dataset, backbone, feasibility: as asked for, see `PlannedRun`.
    plugins: absolute paths.
    command_line: what the record says the run was started as; () leaves that to the process.
    beside: names of further folders beside this one's, whose jobs are done with it: they share its training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    spec: RunSpec
    provenance: Provenance
    dataset: str
    backbone: str
    feasibility: str = "none"
    how: How = How()
    plugins: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def applied(self, choices: Choices) -> Choices:
        """Return choices with everything that the job decides about."""
        plugins = tuple(Path(plugin) for plugin in self.plugins)
        spec = self.spec
        return replace(choices, precision=spec.precision, threads=spec.threads, plugins=plugins, how=self.how)


def job_of(planned: PlannedRun, choices: Choices, plugins: Sequence[Path], command_line: Sequence[str]) -> Job:
    """Return the job that does a planned run as these choices say."""
    asked = asked_of(planned, choices.how.allow_missing, plugins)
    return Job(
        spec=planned.spec,
        provenance=planned.provenance,
        dataset=asked.dataset,
        backbone=asked.backbone,
        feasibility=asked.feasibility,
        how=choices.how,
        plugins=asked.plugins,
        command_line=tuple(command_line),
    )


def write_job(folder: Path, job: Job) -> Path:
    """Write a job into a run's folder, which is made if need be, and return the file."""
    with files.writing(folder / JOB):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / JOB, job.model_dump(mode="json"))
    return folder / JOB


def write_jobs(runs: Sequence[PlannedRun], job: Callable[[PlannedRun], Job]) -> None:
    """Write the jobs of runs that share a training; the first one's does them all, each other's its own run alone."""
    for item in runs:
        write_job(item.folder.path, job(item))
    do_with_first([item.folder.path for item in runs])


def do_with_first(folders: Sequence[Path]) -> None:
    """Have the job in the first of the folders do those in the others too, and no more than these."""
    first, *others = folders
    beside = tuple(folder.name for folder in others)
    job, _ = read_job(first / JOB)
    if job.beside != beside:
        write_job(first, job.model_copy(update={"beside": beside}))


def jobs_beside(path: Path, job: Job) -> list[tuple[Path, Job]]:
    """Return the folders and jobs that are done with the job in a file; those that are gone are left out."""
    folders = [path.resolve().parent.parent / name for name in job.beside]
    return [(folder, read_job(folder / JOB)[0]) for folder in folders if (folder / JOB).is_file()]


def read_job(path: Path) -> tuple[Job, bool]:
    """Return the job in a file, and whether it says how the run is to be done; anything else there is a `UserError`.

    A `spec.json` says what the run is and where its files lay, and nothing more. Word vectors and own images that an
    older record knows by their digest alone cannot be found again.
    """
    content = files.read_json(path)
    if "digest" not in content:
        try:
            job = Job.model_validate(content)
        except ValidationError as error:
            raise _refused(path, error) from error
        if job.schema_version != SCHEMA_VERSION:
            raise UserError(
                f"The run in {path} is of schema version {job.schema_version}.",
                f"This release reads version {SCHEMA_VERSION}.",
                "Give the command that planned it once more.",
            )
        return job, True
    record = RunFolder(path.parent).read() if path.name == SPEC else _record(path, content)
    spec = record.spec
    if (asked := record.asked) is None:
        if lacking := unknown_places(record):
            raise UserError(
                f"The run in {path} cannot be done from its record.",
                f"The record does not say where {' and '.join(what for what, _ in lacking)} lie.",
                f"Give the command with {' and '.join(option for _, option in lacking)}.",
            )
        source = "none" if spec.open_world is None else spec.open_world.feasibility
        asked = Asked(dataset=spec.dataset, backbone=as_asked(record), feasibility=source)
    names = asked.model_dump(exclude={"backbone", "allow_missing", "checkpoint"})
    how = How(allow_missing=asked.allow_missing)
    return Job(spec=spec, provenance=record.provenance, backbone=as_asked(record), how=how, **names), False


def plan_job(job: Job, folder: Path, workbench: Workbench, *, redo: bool = False, skip: bool = False) -> PlannedRun:
    """Return a job as a planned run. Other data or weights than the specification names are a `UserError`."""
    from benchmarks.running.plan import PlannedRun, action_for

    spec = job.spec
    dataset = workbench.dataset(job.dataset)
    digest = workbench.backbone_identity(job.backbone)[1]
    for what, asked, there in (
        (f"data set {spec.dataset}", spec.dataset_digest, dataset.digest),
        (f"backbone {spec.backbone}", spec.backbone_digest, digest),
    ):
        if asked != there:
            raise UserError(
                f"The run {spec.run_id} cannot be done here.",
                f"It was planned with the {what} of digest {asked[:10]}, and here that has digest {there[:10]}.",
                "Bring the same files here, or give the command anew to plan a run with these.",
            )
    record = RunFolder(folder)
    action = action_for(record.status, "redo" if redo else "skip" if skip else "resume")
    return PlannedRun(
        spec, job.dataset, job.backbone, job.provenance, record, record.status, action, feasibility=job.feasibility
    )


def forget_failures(folders: Sequence[Path]) -> None:
    """Forget why earlier starts of runs failed: an `error.json` that is found later is then of this one.

    A process takes seconds until it begins a record, and may end before. Somebody else's run is left as it is.
    """
    for run in map(RunFolder, folders):
        if run.status == "failed":
            with suppress(UserError), locks.hold(run.path):  # held, or not to be written: its process will say so
                run.forget_failure()


def start_run(
    folder: Path,
    launcher: str,
    job: str,
    variables: Mapping[str, str],
    *,
    own_session: bool = False,
    open_files: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start the process that does the job in a run's folder; what it prints is appended to `LOG`.

    launcher, job: who started it, for the record. variables: of its environment, beside those of this process.
    own_session: keep a terminal's signals from it. open_files: descriptors that it takes over.
    """
    said = {"CZSL_LAUNCHER": launcher, "CZSL_JOB": job, "PYTHONUNBUFFERED": "1"}
    with files.writing(folder / LOG), (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "bench.py"), "run", "--spec", str(folder / JOB)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables, **said},
            start_new_session=own_session,
            pass_fds=open_files,
        )


def reason(folder: RunFolder, code: int, log: Path | None = None) -> str:
    """Return in a sentence why a run's process ended with a code other than 0: from its record, else from its log.

    log: where its process printed, by default the file in its own folder.
    """
    log = folder.path / LOG if log is None else log
    with suppress(UserError):
        if folder.status == "failed":
            error = folder.read().error or {}
            kind, message = error.get("type", ""), error.get("message", "")
            return f"{message if kind == 'UserError' else f'{kind}: {message}.'} See {folder.path}."
    if code < 0:
        return f"It was killed by signal {-code}; its last state is kept. See {log}."
    lines: list[str] = []
    with suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "It said nothing."
    return f"{last.rstrip('.')}. See {log}."


def _record(path: Path, content: dict[str, Any]) -> RunRecord:
    """Return what a record's file says that goes by another name."""
    try:
        spec = RunSpec.model_validate(content["spec"])
        record = RunRecord(path.parent, "partial", spec, content["provenance"], content["starts"])
    except (KeyError, ValidationError) as error:
        raise _refused(path, error) from error
    if spec.digest() != content["digest"]:
        raise UserError(
            f"The run in {path} has been altered.",
            "Its settings do not give the digest that is written there.",
            "Restore the file, or give the command with --set.",
        )
    return record


def _refused(path: Path, error: Exception) -> UserError:
    return UserError(
        f"The file {path} is no run.",
        f"{files.first_fault(error)}.",
        "Pass a job.json or a spec.json from a run's folder, see docs/cluster.md.",
    )
