"""From requests to planned runs: settings are resolved, and what is there already is seen. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmarks.evaluation.feasibility import open_world, refuse_open_world_settings
from benchmarks.evaluation.selection import empty_group_notes
from benchmarks.running.choices import Choices, OnExisting
from benchmarks.running.workbench import Workbench
from benchmarks.runs.asked import OWN
from benchmarks.runs.fitting import require_fitting
from benchmarks.runs.overrides import load_config_file, parse_overrides
from benchmarks.runs.records import RunFolder, Status
from benchmarks.runs.resolution import Given, Resolved, Resolver
from benchmarks.runs.settings import Provenance
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.runs.suites import RunRequest
from registry import METHODS

if TYPE_CHECKING:
    from torch import Tensor

Action = Literal["run", "resume", "nothing"]


@dataclass(frozen=True)
class Imported:
    """Weights that were trained elsewhere.

    file: the checkpoint that they were read from.
    digest: hexadecimal SHA-256 of the file.
    weights: what `Method.load_checkpoint` takes.
    """

    file: Path
    digest: str
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class PlannedRun:
    """A run with everything that decides its numbers.

    dataset: as asked for, which may be a path; the specification has the name that the data set gives itself.
    backbone: as asked for.
    provenance: where each setting comes from.
    status: of its folder when it was planned.
    action: what will be done about it.
    feasibility: the setting that names the source of an open world's scores; the specification has kind and digest.
    imported: the weights of a run that does not train its own.
    """

    spec: RunSpec
    dataset: str
    backbone: str
    provenance: Provenance
    folder: RunFolder
    status: Status
    action: Action
    feasibility: str = "none"
    imported: Imported | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The file that the weights were imported from."""
        return None if self.imported is None else self.imported.file


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
    return [replace(item, action=cast(Action, action)) for item, action in zip(planned, actions, strict=True)]


def _planned(requests: Sequence[RunRequest], workbench: Workbench) -> list[PlannedRun]:
    for method, backbone in dict.fromkeys((request.method, request.backbone) for request in requests):
        require_fitting(method, backbone)
    resolver = Resolver(_given(requests, workbench.choices))
    planned = []
    idle: dict[str, dict[str, None]] = {}
    for request in requests:
        resolved = resolver.resolved(request)
        if request.ablation is not None and resolver.changes_nothing(request):
            idle.setdefault(request.method, {})[request.ablation] = None
        else:
            planned.append(planned_run(request, resolved, workbench))
    note_empty_groups(workbench, planned)
    workbench.notes += [
        f"Not run, because the full {method} is set so already: {', '.join(names)}." for method, names in idle.items()
    ]
    return planned


def _given(requests: Sequence[RunRequest], choices: Choices) -> dict[str, Given]:
    """Return for each method what the user set in a file and on the command line."""
    configs = {request.method: METHODS.get(request.method).Config for request in requests}
    line = parse_overrides(choices.overrides, configs)
    file = load_config_file(choices.config_file, configs) if choices.config_file is not None else {}
    if all(request.world == "closed" for request in requests):
        refuse_open_world_settings(line)
    options = {"epochs": choices.epochs, "views": choices.views}
    own = {key: value for key, value in options.items() if value is not None}
    return {
        method: Given(file.get(method, {}), str(choices.config_file), {**line.get(method, {}), **own})
        for method in configs
    }


def planned_run(
    request: RunRequest, resolved: Resolved, workbench: Workbench, imported: Imported | None = None
) -> PlannedRun:
    """Return a request with the digests of its data and weights, and what is to be done about it.

    imported: weights that the run is given instead of training its own.
    """
    world, source = None, "none"
    if resolved.open_world is not None:
        source = resolved.open_world.feasibility
        table = partial(workbench.feasibility, request.dataset, source, request.backbone)
        dataset = workbench.dataset(request.dataset)
        world = open_world(resolved.open_world, resolved.provenance, request.profile, dataset, table)
    backbone, digest = workbench.backbone_identity(request.backbone)
    dataset = workbench.dataset(request.dataset)
    trains = METHODS.get(request.method).info.trains and imported is None
    spec = RunSpec(
        method=request.method,
        method_config=resolved.method,
        # How a method without training would be trained does not make another run of it.
        training=resolved.training if trains else TrainingConfig(epochs=0),
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
        imported=None if imported is None else imported.digest,
        threads=workbench.choices.threads,
    )
    folder = RunFolder(workbench.choices.results / spec.run_id)
    status = folder.status
    action = action_for(status, workbench.choices.on_existing)
    return PlannedRun(
        spec, request.dataset, request.backbone, resolved.provenance, folder, status, action, source, imported
    )


def action_for(status: Status, policy: OnExisting) -> Action:
    """Return what is to be done about a run."""
    if status == "empty" or policy == "redo":
        return "run"
    if status == "done" or policy == "skip":
        return "nothing"
    return "resume"


def note_empty_groups(workbench: Workbench, planned: Sequence[PlannedRun]) -> None:
    """Note which groups of images the runs' data sets lack, and what decides in their place; see also `note_icons`."""
    note_icons(workbench, planned)
    for name in dict.fromkeys(item.dataset for item in planned):
        specs = [item.spec for item in planned if item.dataset == name]
        policies = [spec.training.selection for spec in specs if spec.training.epochs > 0]
        searches = any(spec.open_world is not None and spec.open_world.threshold == "search" for spec in specs)
        workbench.notes += empty_group_notes(workbench.dataset(name), policies, searches)


def note_icons(workbench: Workbench, planned: Sequence[PlannedRun]) -> None:
    """Note where somebody's own images meet the embedded CLIP, which was trained on icons alone."""
    from methods.backbone.loading import TINY

    if any(item.spec.dataset.startswith(OWN) and item.spec.backbone == TINY for item in planned):
        workbench.notes.append(
            f"The embedded CLIP {TINY} knows rendered icons and nothing else: on photographs its numbers say that the "
            "suite works, and nothing about a method. Pass --backbone, such as ViT-L-14-quickgelu/openai."
        )
