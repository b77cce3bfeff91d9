"""Run folders: a kill at any moment leaves something readable, and no run is skipped silently when they are read.

    spec.json          first: schema version, run id, digest, specification, provenance, one entry per start
    epochs.jsonl       one line per epoch, appended and forced to disk
    scores.npz         per image, what every metric and test can be recomputed from
    result.json        last, by rename: its presence means that the run is done
    error.json         why the latest start failed; removed by the next start
    interrupted.json   what stopped the latest start, and how far it was; removed by the next start

Weights (`best.safetensors`) and the state to resume from are put into the same folder by `checkpoints.py`.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import files
from benchmarks.runs.asked import Asked
from benchmarks.runs.environment import capture_environment, now
from benchmarks.runs.locks import HOLDER, LOCK
from benchmarks.runs.reading import (
    EPOCHS,
    ERROR,
    INTERRUPTED,
    RESULT,
    SCORES,
    SPEC,
    Problem,
    RunRecord,
    Status,
    find_runs,
    read_record,
    status_of,
)
from benchmarks.runs.result import Result
from benchmarks.runs.settings import Provenance
from benchmarks.runs.spec import SCHEMA_VERSION, RunSpec
from errors import UserError

__all__ = [
    "EPOCHS",
    "ERROR",
    "INTERRUPTED",
    "RESULT",
    "SCORES",
    "SPEC",
    "Problem",
    "RunFolder",
    "RunRecord",
    "Status",
    "capture_environment",
    "find_runs",
]

OTHERS = (".launch.json.", ".job.json.")
"""How the temporary files begin that processes without the run's lock write: these may be at it just now."""

STATE, PREVIOUS = "state.pt", "state.previous.pt"


class RunFolder:
    """The files of one run. Nothing is created before `start`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def status(self) -> Status:
        """See `status_of`."""
        return status_of(self.path)

    def start(
        self,
        spec: RunSpec,
        *,
        provenance: Provenance,
        command_line: Sequence[str],
        environment: Mapping[str, Any] | None = None,
        asked: Asked | None = None,
    ) -> None:
        """Begin the run, or begin it again: write the specification and forget an earlier error.

        environment: what was captured, with whatever else is known (device, launcher); captured here when None.
        asked: where the files lie that the specification knows by digest; None where nobody says.
        A folder that holds another run is a `UserError`, a run that is done a ValueError: `clear` it first.
        """
        with files.writing(self.path / SPEC):
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.glob(".*.tmp"):
                if not leftover.name.startswith(OTHERS):
                    leftover.unlink(missing_ok=True)
        starts: list[Mapping[str, Any]] = []
        status = self.status
        if status == "done":
            raise ValueError(f"the run in {self.path} is done already")
        if status == "empty":
            # Without a specification nobody knows what made these.
            self._remove(EPOCHS)
            self._remove(SCORES)
        else:
            before = self.read()
            if before.spec != spec:
                raise UserError(
                    f"The run {spec.run_id} cannot start in {self.path}.",
                    f"The folder holds {before.run_id}.",
                    "Choose another results folder, or move this one away.",
                )
            starts = list(before.starts)
        time = now()
        environment = capture_environment() if environment is None else environment
        latest = {"time": time, "command_line": list(command_line), "environment": environment}
        starts.append(latest if asked is None else latest | {"asked": asked.model_dump(mode="json")})
        self._write_spec(spec, provenance, starts)
        self.forget_failure()
        self._remove(INTERRUPTED)

    def forget_failure(self) -> None:
        """Remove why the latest start failed, if it did."""
        self._remove(ERROR)

    def _write_spec(self, spec: RunSpec, provenance: Provenance, starts: Sequence[Mapping[str, Any]]) -> None:
        content = {"schema_version": SCHEMA_VERSION, "run_id": spec.run_id, "digest": spec.digest()}
        content |= {"spec": spec.model_dump(mode="json"), "provenance": provenance, "starts": starts}
        files.write_json(self.path / SPEC, content)

    def note(self, message: str) -> None:
        """Add a notice to the latest start: something happened that a reader of the record should know."""
        record = self.read()
        *before, latest = record.starts
        latest = {**latest, "notices": [*latest.get("notices", ()), message]}
        self._write_spec(record.spec, record.provenance, [*before, latest])

    def append_epoch(self, record: Mapping[str, Any]) -> None:
        """Append an epoch's record; it needs an integer "epoch", one that is not there yet."""
        epoch = record["epoch"]
        known = self.epochs()
        if known and epoch <= known[-1]["epoch"]:
            raise ValueError(f"epoch {epoch} follows epoch {known[-1]['epoch']} in {self.path}; call resume_at first")
        files.append_line(self.path / EPOCHS, record)

    def resume_at(self, epoch: int) -> None:
        """Discard the records of this and later epochs, because they will be made again."""
        kept = [record for record in self.epochs() if record["epoch"] < epoch]
        files.write_lines(self.path / EPOCHS, kept)

    def epochs(self) -> list[dict[str, Any]]:
        """Return the epochs' records in order, without a last line torn by a kill."""
        return files.read_lines(self.path / EPOCHS)

    def write_arrays(self, arrays: Mapping[str, np.ndarray], name: str = SCORES) -> None:
        """Write named arrays, whole or not at all."""
        files.write_arrays(self.path / name, arrays)

    def read_arrays(self, name: str = SCORES) -> dict[str, np.ndarray]:
        """Return the named arrays; a missing or damaged file is a `UserError`."""
        return files.read_arrays(self.path / name)

    def finish(self, result: Result) -> None:
        """Write the result, which makes the run done. Call it when everything else has been written."""
        files.write_json(self.path / RESULT, {"schema_version": SCHEMA_VERSION, **result.content()})
        self._remove(ERROR)
        self._remove(INTERRUPTED)

    def interrupt(self, by: str, where: Mapping[str, Any]) -> None:
        """Record that a signal stopped the run. by: its name. where: how far it was."""
        content = {"schema_version": SCHEMA_VERSION, "time": now(), "by": by, **where}
        files.write_json(self.path / INTERRUPTED, content)

    def fail(self, error: BaseException) -> None:
        """Record why the run ended without a result."""
        files.write_json(
            self.path / ERROR,
            {
                "schema_version": SCHEMA_VERSION,
                "type": type(error).__name__,
                "message": " ".join(str(error).split()),
                "traceback": "".join(traceback.format_exception(error)),
            },
        )

    def tidy(self) -> None:
        """Remove from a finished run what only resuming needs; a kill after the result was written may leave it."""
        if self.status == "done":
            for name in (STATE, PREVIOUS, HOLDER):
                self._remove(name)

    def clear(self) -> None:
        """Remove the run's files, to begin anew; the result first, so that a half-cleared run is not taken for done.

        A lock stays: whoever clears may be holding it.
        """
        self._remove(RESULT)
        with files.writing(self.path / SPEC):
            found = [path for path in self.path.glob("*") if not path.name.startswith((LOCK, HOLDER, *OTHERS))]
            paths = [path for path in found if path.is_file()]
            # The states before the epochs that they count on.
            for path in sorted(paths, key=lambda path: (path.name == SPEC, path.name not in (STATE, PREVIOUS))):
                path.unlink(missing_ok=True)

    def read(self) -> RunRecord:
        """See `read_record`."""
        return read_record(self.path)

    def _remove(self, name: str) -> None:
        with files.writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)
