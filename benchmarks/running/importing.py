"""From a checkpoint of a released code to a planned run that evaluates it as any other; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.running.plan import Imported, PlannedRun, note_empty_groups, planned_run
from benchmarks.running.workbench import Workbench
from benchmarks.runs.open_world_settings import OpenWorldSettings
from benchmarks.runs.overrides import parse_overrides, setting_text
from benchmarks.runs.resolution import Given, Resolved, resolve
from benchmarks.runs.settings import Values
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from datasets.streams import derived_seed
from errors import UserError, counted
from registry import METHODS

if TYPE_CHECKING:
    from methods.released.names import ReleasedForm
    from methods.released.reading import Checkpoint, Fitted


@dataclass(frozen=True)
class ImportPlan:
    """An import, and in sentences what a user should know of it."""

    planned: PlannedRun
    said: tuple[str, ...]


def plan_import(file: Path, request: RunRequest, workbench: Workbench) -> ImportPlan:
    """Return the run that evaluates a checkpoint; whatever does not fit in it is a `UserError`.

    request: method, data set, backbone, world, profile and seed that the record is to have.
    """
    import torch

    from methods.released.reading import check_labels, check_method, fit, form_of, read_checkpoint, settings_of

    form_of(request.method)
    set_here = _set_here(request, workbench)
    checkpoint = read_checkpoint(file)
    form = check_method(checkpoint, request.method)
    dataset = workbench.dataset(request.dataset)
    vocabulary = dataset.vocabulary
    check_labels(checkpoint, form, len(vocabulary.states), len(vocabulary.objects), dataset.name)
    found = settings_of(checkpoint, form)
    _check_given(checkpoint, found, set_here)
    resolved = _resolved(checkpoint, form, request, found, set_here)
    method_class = METHODS.get(request.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("init", request.seed))
        method = method_class(
            workbench.backbone(request.backbone), vocabulary, method_class.Config.model_validate(resolved.method)
        )
    fitted = fit(checkpoint, form, method)
    imported = Imported(checkpoint.path, checkpoint.digest, fitted.weights)
    planned = planned_run(request, resolved, workbench, imported)
    note_empty_groups(workbench, [planned])
    return ImportPlan(planned, tuple(_said(checkpoint, fitted, form, found, resolved)))


def _set_here(request: RunRequest, workbench: Workbench) -> Values:
    """Return what `--set` gives, which may be settings of the method and of the open world alone."""
    config = METHODS.get(request.method).Config
    values = parse_overrides(workbench.choices.overrides, {request.method: config}).get(request.method, {})
    world = OpenWorldSettings.model_fields if request.world == "open" else {}
    for key in values:
        if key not in config.model_fields and key not in world:
            training = key in TrainingConfig.model_fields
            raise UserError(
                f"The setting {key} does not go with an import.",
                "Nothing is trained, and how the weights were trained is not known."
                if training
                else "The closed world has no such setting.",
                "Leave it out." if training else "Pass --world open, or leave it out.",
            )
    return values


def _check_given(checkpoint: Checkpoint, found: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if key in given and given[key] != value:
            raise UserError(
                f"The setting {key}={given[key]} is not that of the file '{checkpoint.path.name}'.",
                f"The shapes of its tensors say {key}={value}.",
                "Leave the setting out.",
            )


def _resolved(
    checkpoint: Checkpoint,
    form: ReleasedForm,
    request: RunRequest,
    found: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Resolved:
    """Return the settings: presets, then the file and what its code computes, then the command line."""
    from methods.released.reading import variant_of

    own = {**form.forward, **variant_of(request.method, checkpoint.path), **found}
    return resolve(
        request.method,
        METHODS.get(request.method).Config,
        request.dataset,
        profile=request.profile,
        world=request.world,
        given=Given(own, checkpoint.path.name, given),
    )


def _said(
    checkpoint: Checkpoint, fitted: Fitted, form: ReleasedForm, found: Mapping[str, Any], resolved: Resolved
) -> Iterator[str]:
    digest = checkpoint.digest[:12]
    yield f"{checkpoint.path.name}, SHA-256 {digest}: {counted(len(fitted.weights), 'tensor')} of {form.method}."
    if found:
        yield f"Read from their shapes: {_settings(found)}."
    unsaid = {key: resolved.method[key] for key in dict.fromkeys((*form.forward, *form.unsaid))}
    if unsaid:
        yield f"The file does not say, so this is taken (--set changes it): {_settings(unsaid)}."
    yield (
        f"The CLIP in it is the backbone's: {counted(fitted.clip, 'tensor is', 'tensors are')} equal."
        if fitted.clip
        else "It holds no CLIP, so nobody can tell whether it was trained with this backbone."
    )
    if fitted.unused:
        modules = dict.fromkeys(
            ".".join(name.split(".")[: 2 if name.startswith("fusion.") else 1]) for name in fitted.unused
        )
        count = counted(len(fitted.unused), "tensor")
        yield f"Saved by the released code and never used: {count} ({', '.join(modules)})."


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={setting_text(value)}" for key, value in values.items())
