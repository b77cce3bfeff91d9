"""From requests to finished records: resolve settings, see what is there already, run the rest.

Nothing here prints. `plan_runs` is light enough to answer "nothing to do" quickly; `execute` does one run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.evaluation.empty_groups import check_not_empty
from benchmarks.evaluation.feasibility import feasibility, open_world, refuse_open_world_settings
from benchmarks.evaluation.selection import empty_group_notes
from benchmarks.runs import locks
from benchmarks.runs.asked import asked_of
from benchmarks.runs.environment import cpu_name, launcher_facts, package_version
from benchmarks.runs.overrides import load_config_file, parse_overrides
from benchmarks.runs.records import RunFolder, RunRecord, Status, capture_environment
from benchmarks.runs.settings import Provenance, resolve, resolve_open_world
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.runs.suites import RunRequest, changes, changes_nothing
from benchmarks.training import stopping
from benchmarks.training.processes import on_this_machine
from datasets.checking.presence import with_images_there
from datasets.places import hidden_path, plainly_a_path
from datasets.spelling import spelling_notes
from datasets.system import is_posix
from errors import UserError
from registry import BACKBONES, DATASETS, METHODS

OnExisting = Literal["resume", "skip", "redo"]


@dataclass(frozen=True)
class Choices:
    """What the command line chose beside the names. `None` leaves the preset's or the default's value.

    device: "auto" or torch's name. precision: "auto" or a name. overrides: `--set` texts. recompute: see `Backbone`.
    views: see `TrainingConfig`. feature_cache: whether frozen image features are kept on disk and read from there.
    allow_missing: up to how many missing images a data set is used without them; None does not look for images.
    elsewhere: another machine does the runs, so the device is not looked for here.
    plugins: files of `--plugin`, for the record.
    """

    results: Path = Path("results")
    overrides: Sequence[str] = ()
    config_file: Path | None = None
    epochs: int | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    recompute: bool = False
    views: int | None = None
    feature_cache: bool = True
    compiled: bool = False
    on_existing: OnExisting = "resume"
    allow_missing: int | None = 0
    elsewhere: bool = False
    plugins: Sequence[Path] = ()


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


@dataclass
class Workbench:
    """What runs share: the device, the processes, loaded data sets, digests of weights, frozen features of images.

    backbone_facts: where the weights of a backbone that was loaded come from, for records.
    notes: what a user should know of the plan.
    """

    choices: Choices
    device: Any = None
    group: Any = None
    precision: str = "fp32"
    datasets: dict[str, Any] = field(default_factory=dict)
    backbone_digests: dict[str, tuple[str, str]] = field(default_factory=dict)
    backbone_facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    features: Any = None
    notes: list[str] = field(default_factory=list)
    tables: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from benchmarks.training.distributed import own_device, start_group
        from benchmarks.training.frozen_features import FeatureStore

        if self.choices.workers and not is_posix():
            raise UserError(
                f"{self.choices.workers} processes that decode images were asked for.",
                "On Windows the process of the run decodes them itself.",
                "Pass --workers 0 or leave it out; the numbers are the same.",
            )
        self.features = FeatureStore(enabled=self.choices.feature_cache)
        self.device = own_device(choose_device(self.choices.device, self.choices.elsewhere))
        self.group = start_group(self.device)
        self.precision = choose_precision(self.choices.precision, self.device)

    def dataset(self, name: str) -> Any:
        """Return a data set, loaded (or prepared) once, with all its images there but for those that may be missing."""
        if name not in self.datasets:
            dataset = DATASETS.get(name)()
            if self.choices.allow_missing is not None:
                dataset = with_images_there(dataset, self.choices.allow_missing)
            check_not_empty(dataset)
            self.notes += [*dataset.notes, *spelling_notes(dataset.vocabulary)]
            if name in DATASETS.names():
                self._note(hidden_path(name, "data set"))
            self.datasets[name] = dataset
        return self.datasets[name]

    def backbone(self, name: str) -> Any:
        """Return a freshly loaded backbone; methods may change what they are given, so none is shared."""
        backbone = BACKBONES.get(name)()
        self.backbone_digests[name] = (backbone.name, backbone.digest)
        origin = getattr(backbone, "origin", None)  # a plugin's backbone has none
        if origin is not None and name not in self.backbone_facts:
            self.backbone_facts[name] = origin.facts
            self.notes += origin.notes
        return backbone

    def backbone_identity(self, name: str) -> tuple[str, str]:
        """Return the (name to record, digest of the weights) of a backbone."""
        if name not in self.backbone_digests:
            self._note(hidden_weights(name))
            from methods.backbone.clip import load_backbone
            from methods.backbone.loading import identity

            known = identity(name) if BACKBONES.serves(load_backbone, name) else None
            if known is not None:
                self.backbone_digests[name] = known
            else:
                self.backbone(name)
        return self.backbone_digests[name]

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)

    def feasibility(self, dataset: str, setting: str, backbone: str) -> Any:
        """Return a data set's feasibility scores from the source that a setting names."""
        key = (dataset, setting, backbone)
        if key not in self.tables:
            self.tables[key] = feasibility(
                self.dataset(dataset),
                setting,
                lambda: self.backbone_identity(backbone)[1],
                lambda: self.backbone(backbone),
            )
        return self.tables[key]

    def note_empty_groups(self, planned: Sequence[PlannedRun]) -> None:
        """Note which groups of images the runs' data sets lack, and what decides in their place."""
        for name in dict.fromkeys(item.dataset for item in planned):
            specs = [item.spec for item in planned if item.dataset == name]
            policies = [spec.training.selection for spec in specs if spec.training.epochs > 0]
            searches = any(spec.open_world is not None and spec.open_world.threshold == "search" for spec in specs)
            self.notes += empty_group_notes(self.dataset(name), policies, searches)


def hidden_weights(backbone: str) -> str:
    """Return a note on a tag of weights that was taken for one although a file here is called so too, else ""."""
    definition, _, weights = backbone.partition("/")
    if not weights or plainly_a_path(weights) or not Path(weights).is_file():
        return ""
    from methods.backbone.loading import weights_file

    tag = weights_file(backbone) is None
    return f"'{weights}' is taken for the tag; for the file write {definition}/./{weights}." if tag else ""


def check_device(device: str, precision: str, count: int) -> None:
    """Raise the `UserError` that a device or precision would be in each of `count` processes on this machine."""
    from benchmarks.training.distributed import own_device

    choose_precision(precision, own_device(choose_device(device), count))


def choose_device(wish: str, elsewhere: bool = False) -> Any:
    """Return the torch device: as asked, or the first of cuda, mps, cpu that is there.

    elsewhere: `wish` is the device of another machine, which need not be here.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = None
    if device is None or device.type not in there or not (there[device.type] or elsewhere):
        raise UserError(
            f"The device '{wish}' cannot be used.",
            f"Here there is {', '.join(name for name, available in there.items() if available)}.",
            "Pass one of these, or --device auto.",
        )
    return device


def choose_precision(wish: str, device: Any) -> str:
    """Return the precision: as asked; or bf16 on a cuda device that can, else fp32."""
    import torch

    if wish == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if wish not in ("fp32", "bf16", "fp16"):
        raise UserError(
            f"There is no precision '{wish}'.", "There are fp32, bf16, fp16 and auto.", "Choose one of these."
        )
    if wish == "fp16" and device.type == "cpu":
        raise UserError(
            "Training in fp16 does not work on the CPU.",
            "Its gradients underflow, and the CPU has no fast fp16.",
            "Pass --precision fp32.",
        )
    return wish


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
    workbench.note_empty_groups(planned)
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


def execute(
    planned: PlannedRun,
    workbench: Workbench,
    report: Any = None,
    command_line: Sequence[str] = (),
    notify: Callable[[str], None] = lambda message: None,
) -> RunRecord:
    """Do one planned run and return its record; a failure or a stop is recorded in its folder and raised again.

    notify: told what else a user should know. `locks.Held` if another process is at the run.
    """
    group, folder = workbench.group, planned.folder
    if planned.action == "nothing":
        if group.leads:
            folder.tidy()
        return folder.read()
    with ExitStack() as stack:
        held: locks.Held | None = None
        try:
            if group.leads:
                stack.enter_context(locks.hold(folder.path, notify))
        except locks.Held as error:
            held = error
        except UserError as error:
            group.end(error)
            raise
        # Another process may be at it, or have done it since the plan was made: the first process says.
        (state,) = group.agree([(planned.spec.run_id, "held" if held is not None else folder.status)])
        if state == "held":
            raise held or locks.Held(folder.path.name, None)
        if state == "done" and planned.status != "done":
            return folder.read()
        if planned.action == "run" and state != "empty" and group.leads:
            folder.clear()
        return _execute(planned, workbench, report, command_line, notify)


def _execute(
    planned: PlannedRun,
    workbench: Workbench,
    report: Any,
    command_line: Sequence[str],
    notify: Callable[[str], None],
) -> RunRecord:
    import torch

    from benchmarks.training import loop as training
    from benchmarks.training.execution import Execution
    from datasets.loaders import dead_worker
    from datasets.transforms import derived_seed

    spec, group = planned.spec, workbench.group
    folder = group.folder(planned.folder)
    device = workbench.device
    choices = workbench.choices
    execution = Execution(
        device, spec.precision, workers=_workers(choices.workers, device), compiled=choices.compiled, group=group
    )
    deterministic()
    environment = {**capture_environment(), **_device_facts(device), **group.facts}
    environment |= {"compile": choices.compiled, "feature_cache": choices.feature_cache, **launcher_facts()}
    if planned.backbone in workbench.backbone_facts:
        environment["backbone"] = workbench.backbone_facts[planned.backbone]
    asked = asked_of(planned, choices.allow_missing, choices.plugins)
    folder.start(
        spec, provenance=planned.provenance, command_line=list(command_line), environment=environment, asked=asked
    )
    trainer = None
    try:
        group.barrier()  # until the folder is what this start makes of it
        method_class = METHODS.get(spec.method)
        backbone = workbench.backbone(planned.backbone).to(device)
        backbone.recompute = choices.recompute
        dataset = workbench.dataset(planned.dataset)
        if spec.open_world is not None:
            table = workbench.feasibility(planned.dataset, planned.feasibility, planned.backbone)
            dataset = replace(dataset, feasibility=table.scores)
        torch.manual_seed(derived_seed("init", spec.seed))
        config = method_class.Config.model_validate(spec.method_config)
        method = method_class(backbone, dataset.vocabulary, config).to(device)
        trainer = training.Trainer(
            spec, folder, method, dataset, execution, report or training.silent, workbench.features, notify
        )
        with stopping.deferred():
            folder.finish(trainer.run())
            folder.tidy()
        group.barrier()  # until the record is whole
    except Exception as error:
        dead = dead_worker(error)
        group.end(dead or error, folder)
        if dead is not None:
            raise dead from error
        raise
    except stopping.Stopped as stop:
        with suppress(UserError):
            folder.interrupt(stop.word, {} if trainer is None else trainer.where)
        raise
    return folder.read()


def deterministic() -> None:
    """Ask torch for reproducible kernels, and for fp32 that is fp32 and not tf32.

    Where a kernel has no reproducible form torch warns instead of failing.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _workers(wish: int | None, device: Any) -> int:
    """Return the number of decoding processes: as asked, else 0 on the CPU, where the model needs the cores itself."""
    if wish is not None:
        return wish
    if device.type == "cpu" or not is_posix():
        return 0
    return max(1, min(8, (os.cpu_count() or 1) // on_this_machine()))


def here(workbench: Workbench) -> dict[str, Any]:
    """Return the part of a record's environment that its numbers depend on, as a run in this process would have it."""
    packages = {"torch": package_version("torch")}
    own = {"cpu": {"name": cpu_name()}, "packages": packages}
    return {**own, **_device_facts(workbench.device), **workbench.group.facts}


def _device_facts(device: Any) -> Mapping[str, Any]:
    import torch

    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return facts
