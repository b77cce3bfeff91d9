"""From requests to planned runs: settings are resolved, and what is there already is seen. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from benchmarks.evaluation.feasibility import open_world, refuse_open_world_settings
from benchmarks.evaluation.selection import empty_group_notes
from benchmarks.running.choices import OnExisting
from benchmarks.running.workbench import Workbench
from benchmarks.runs.overrides import load_config_file, parse_overrides
from benchmarks.runs.records import RunFolder, Status
from benchmarks.runs.settings import Provenance, resolve, resolve_open_world
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.runs.suites import RunRequest, changes, changes_nothing
from registry import METHODS


@dataclass(frozen=True)
class PlannedRun:
    """A run with everything that decides its numbers.

    dataset, backbone: as asked for; a data set may be a path, the specification has the name it gives itself. action:
    what will be done about it. feasibility: the setting that names the source of an open world's scores, which a
    specification knows by kind and digest alone.
    """

    spec: RunSpec
    dataset: str
    backbone: str
    provenance: Provenance
    folder: RunFolder
    status: Status
    action: Literal["run", "resume", "nothing"]
    feasibility: str = "none"


def plan_runs(requests: Iterable[RunRequest], workbench: Workbench) -> list[PlannedRun]:
    """Return what is to be done, in order. All settings are checked before anything runs.

    An ablation whose switch is set in the full model already is left out, with a note: it would be the same run twice.
    Of several processes the first plans before the others, who find data that it prepared, and decides what is done.
    """
    group = workbench.group
    try:
        with group.leader_first():
            planned = _planned(list(requests), workbench)
        actions = group.agree([(item.spec.run_id, item.action) for item in planned])
    except Exception as error:
        group.end(error)
        raise
    return [replace(item, action=action) for item, action in zip(planned, actions, strict=True)]


def _planned(requests: Sequence[RunRequest], workbench: Workbench) -> list[PlannedRun]:
    choices = workbench.choices
    configs = {request.method: METHODS.get(request.method).Config for request in requests}
    line = parse_overrides(choices.overrides, configs)
    file = load_config_file(choices.config_file, configs) if choices.config_file is not None else {}
    if all(request.world == "closed" for request in requests):
        refuse_open_world_settings(line)
    planned = []
    idle: dict[str, dict[str, None]] = {}
    for request in requests:
        values = dict(line.get(request.method, {}))
        if choices.epochs is not None:
            values["epochs"] = choices.epochs
        if choices.views is not None:
            values["views"] = choices.views
        sources: dict[str, Any] = {
            "profile": request.profile,
            "file_values": file.get(request.method, {}),
            "command_line_values": values,
            "file_name": str(choices.config_file),
        }
        names = (request.method, configs[request.method], request.dataset)
        training, method_config, provenance = resolve(*names, **sources, ablation=changes(request))
        if request.ablation is not None and changes_nothing(request, **sources):
            idle.setdefault(request.method, {})[request.ablation] = None
            continue
        world, source = None, "none"
        if request.world == "open":
            settings, places = resolve_open_world(*names, **sources, ablation=changes(request))
            provenance, source = provenance | places, settings.feasibility
            table = partial(workbench.feasibility, request.dataset, source, request.backbone)
            world = open_world(settings, places, request.profile, workbench.dataset(request.dataset), table)
        if not METHODS.get(request.method).info.trains:
            # How a method without training would be trained does not make another run of it.
            training = TrainingConfig(epochs=0)
        backbone, digest = workbench.backbone_identity(request.backbone)
        dataset = workbench.dataset(request.dataset)
        spec = RunSpec(
            method=request.method,
            method_config=method_config,
            training=training,
            dataset=dataset.name,
            dataset_digest=dataset.digest,
            backbone=backbone,
            backbone_digest=digest,
            world=request.world,
            profile=request.profile,
            seed=request.seed,
            precision=workbench.precision,
            ablation=request.ablation,
            open_world=world,
        )
        folder = RunFolder(choices.results / spec.run_id)
        action = action_for(folder.status, choices.on_existing)
        planned.append(
            PlannedRun(
                spec, request.dataset, request.backbone, provenance, folder, folder.status, action, feasibility=source
            )
        )
    note_empty_groups(workbench, planned)
    workbench.notes += [
        f"Not run, because the full {method} is set so already: {', '.join(names)}." for method, names in idle.items()
    ]
    return planned


def action_for(status: Status, policy: OnExisting) -> Literal["run", "resume", "nothing"]:
    """Return what is to be done about a run."""
    if status == "empty" or policy == "redo":
        return "run"
    if status == "done" or policy == "skip":
        return "nothing"
    return "resume"


def note_empty_groups(workbench: Workbench, planned: Sequence[PlannedRun]) -> None:
    """Note which groups of images the runs' data sets lack, and what decides in their place."""
    for name in dict.fromkeys(item.dataset for item in planned):
        specs = [item.spec for item in planned if item.dataset == name]
        policies = [spec.training.selection for spec in specs if spec.training.epochs > 0]
        searches = any(spec.open_world is not None and spec.open_world.threshold == "search" for spec in specs)
        workbench.notes += empty_group_notes(workbench.dataset(name), policies, searches)
