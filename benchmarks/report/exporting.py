"""A finished run's weights in the form of the released code, and the command that reads them back as the same run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.finished import load_method
from benchmarks.report.prediction import candidates_of
from benchmarks.runs.overrides import setting_text
from benchmarks.runs.places import as_asked
from benchmarks.runs.records import RunRecord
from benchmarks.runs.resolution import Given, resolve
from errors import UserError
from registry import METHODS


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    path: of the file.
    tensors: how many it holds.
    zeros: names of those that nothing reads and that are zeros.
    back: the command that imports the file with the run's settings.
    """

    path: Path
    tensors: int
    zeros: tuple[str, ...]
    back: str


def export(run: RunRecord, path: Path) -> Exported:
    """Write a run's weights as the released code of its method saves them.

    A run without weights, a method without a released form, a setting that the form cannot hold, and a file that is
    there already are a `UserError`.
    """
    from methods.released.reading import form_of
    from methods.released.writing import released_tensors, write_released

    form = form_of(run.spec.method)
    if run.result is None:
        raise UserError(
            f"The run {run.run_id} cannot be exported.",
            f"It is {run.status}, not done.",
            "Finish it with bench.py run.",
        )
    method = load_method(run, candidates_of(run)[0].vocabulary)
    tensors, zeros = released_tensors(method, run.spec.dataset)
    write_released(path, tensors, form.inside)
    return Exported(path, len(tensors), zeros, import_command(run, path))


def import_command(run: RunRecord, path: Path) -> str:
    """Return the command that reads an exported file back with every setting that scores depend on."""
    from methods.released.names import FORMS
    from methods.released.reading import variant_of

    spec, form = run.spec, FORMS[run.spec.method]
    own = {**form.forward, **variant_of(spec.method, path)}
    config = METHODS.get(spec.method).Config
    taken = resolve(spec.method, config, spec.dataset, profile=spec.profile, world=spec.world, given=Given(own))
    dataset = spec.dataset if run.asked is None else run.asked.dataset
    parts = ["python", "bench.py", "import", str(path), "--method", spec.method, "--dataset", dataset]
    parts += ["--backbone", as_asked(run), "--world", spec.world, "--profile", spec.profile, "--seed", str(spec.seed)]
    parts += ["--precision", spec.precision]
    for key, value in spec.method_config.items():
        if taken.method[key] != value:
            parts += ["--set", f"{key}={setting_text(value)}"]
    return shlex.join(parts)
