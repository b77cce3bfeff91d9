"""Reading run folders: none is passed over silently, and what is damaged is named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from benchmarks.runs import files
from benchmarks.runs.asked import Asked
from benchmarks.runs.result import Result, result_of
from benchmarks.runs.settings import Provenance
from benchmarks.runs.spec import SCHEMA_VERSION, RunSpec
from errors import UserError

SPEC, EPOCHS, SCORES, RESULT, ERROR = "spec.json", "epochs.jsonl", "scores.npz", "result.json", "error.json"
INTERRUPTED = "interrupted.json"

ASIDE = ".tmp"
"""How the name of a folder ends in which a run is put together before it is renamed. A kill may leave one: no run."""

Status = Literal["done", "failed", "interrupted", "partial", "empty"]


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says. `result` is there when the run is done, `error` when its latest start failed.

    starts: per start of the run its `time`, `command_line`, `environment` and what was `asked`, and `notices` where
    something happened that a reader should know; more than one when it was resumed.
    """

    path: Path
    status: Status
    spec: RunSpec
    provenance: Provenance
    starts: Sequence[Mapping[str, Any]]
    epochs: Sequence[Mapping[str, Any]] = field(default_factory=list)
    result: Result | None = None
    error: Mapping[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """Name of the run, whatever its folder is called now."""
        return self.spec.run_id

    @property
    def finished(self) -> Result:
        """The result of a run that is done; ValueError of another."""
        if self.result is None:
            raise ValueError(f"the run {self.run_id} is {self.status}, so it has no result")
        return self.result

    @property
    def environment(self) -> Mapping[str, Any]:
        """Environment of the latest start, the one that ended the run."""
        return self.starts[-1]["environment"]

    @property
    def asked(self) -> Asked | None:
        """What the latest start was asked for; None in records from before that was kept."""
        try:
            return Asked.model_validate(self.starts[-1]["asked"])
        except (KeyError, ValidationError):
            return None


@dataclass(frozen=True)
class Problem:
    """A run folder that could not be read, and why, in one line."""

    path: Path
    message: str


def status_of(folder: Path) -> Status:
    """Return the status of a run from which files are there.

    "partial" is begun and not ended: at work, or killed. "interrupted" was stopped by a signal and saved itself.
    """
    found: tuple[tuple[str, Status], ...] = (
        (RESULT, "done"),
        (ERROR, "failed"),
        (INTERRUPTED, "interrupted"),
        (SPEC, "partial"),
    )
    return next((status for name, status in found if (folder / name).is_file()), "empty")


def read_record(folder: Path) -> RunRecord:
    """Return the record; one that is unreadable, altered or of another schema version is a `UserError`."""
    while True:
        status = status_of(folder)
        try:
            return _read_as(folder, status)
        except UserError:
            if status_of(folder) == status:
                raise
            # It was started again, or ended, meanwhile.


def _read_as(folder: Path, status: Status) -> RunRecord:
    path = folder / SPEC
    content = _versioned(path)
    try:
        spec = RunSpec.model_validate(content["spec"])
        provenance, starts, digest = content["provenance"], content["starts"], content["digest"]
        starts[-1]["environment"]
    except ValidationError as error:
        raise files.incomplete(path, error, "spec.") from error
    except (KeyError, IndexError, TypeError) as error:
        raise files.incomplete(path, error) from error
    if spec.digest() != digest:
        raise UserError(
            f"The record {path} has been altered.",
            f"Its settings give the digest {spec.digest()[:10]}, but {str(digest)[:10]} is written there.",
            "Restore the file, or remove the folder and run it again.",
        )
    result = result_of(_versioned(folder / RESULT), folder / RESULT) if status == "done" else None
    failure = _versioned(folder / ERROR) if status == "failed" else None
    epochs = files.read_lines(folder / EPOCHS)
    return RunRecord(folder, status, spec, provenance, starts, epochs, result, failure)


def _versioned(path: Path) -> dict[str, Any]:
    content = files.read_json(path)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"The record {path} is of schema version {version}.",
            f"This release reads version {SCHEMA_VERSION}.",
            "Use the release that wrote it, or remove the folder and run it again.",
        )
    return content


def find_runs(root: str | Path) -> tuple[list[RunRecord], list[Problem]]:
    """Return every run below `root`, by path, and every run folder that could not be read. No root, no runs."""
    runs: list[RunRecord] = []
    problems: list[Problem] = []

    def unlisted(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            problems.append(Problem(Path(error.filename), f"The folder cannot be listed: {error.strerror}."))

    for folder, below, names in os.walk(root, onerror=unlisted):
        below[:] = sorted(name for name in below if not (name.startswith(".") and name.endswith(ASIDE)))
        if not {SPEC, EPOCHS, RESULT, ERROR, INTERRUPTED}.intersection(names):
            continue
        below.clear()  # a run folder holds no other runs
        try:
            runs.append(read_record(Path(folder)))
        except UserError as error:
            problems.append(Problem(Path(folder), str(error)))
    return runs, problems
