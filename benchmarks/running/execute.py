"""Does one planned run under its lock, and leaves its record, or why it failed or stopped. Nothing here prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.running.plan import PlannedRun
from benchmarks.running.workbench import Workbench
from benchmarks.runs import locks
from benchmarks.runs.asked import asked_of
from benchmarks.runs.environment import cpu_name, launcher_facts, package_version
from benchmarks.runs.records import RunRecord, capture_environment
from benchmarks.training import stopping
from benchmarks.training.processes import on_this_machine
from datasets.system import is_posix
from errors import UserError
from registry import METHODS

if TYPE_CHECKING:
    import torch

    from benchmarks.training.execution import Report


def execute(
    planned: PlannedRun,
    workbench: Workbench,
    report: Report | None = None,
    command_line: Sequence[str] = (),
    notify: Callable[[str], None] = lambda message: None,
) -> RunRecord:
    """Do one planned run and return its record; a failure or a stop is recorded in its folder and raised again.

    `locks.Held` is raised where another process is at the run.

    report: told how far it is.
    command_line: what the record says that the run was started as.
    notify: told what else a user should know.
    """
    from benchmarks.running import tracking

    group, folder = workbench.group, planned.folder
    check_given(planned)
    if planned.action == "nothing":
        if group.leads:
            folder.tidy()
        return folder.read()
    with ExitStack() as stack:
        held: locks.Held | None = None
        try:
            if group.leads:
                tracking.check(workbench.choices.how.track)
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
    report: Report | None,
    command_line: Sequence[str],
    notify: Callable[[str], None],
) -> RunRecord:
    import torch

    from benchmarks.running import tracking
    from benchmarks.runs.checkpoints import write_best
    from benchmarks.training import loop as training
    from benchmarks.training.batches import Surroundings, untold
    from benchmarks.training.execution import Execution
    from datasets.loaders import dead_worker
    from datasets.transforms import derived_seed

    spec, group = planned.spec, workbench.group
    folder = group.folder(planned.folder)
    device = workbench.device
    choices = workbench.choices
    how = choices.how
    workers = _workers(how.workers, device)
    execution = Execution(device, spec.precision, workers=workers, compiled=how.compiled, group=group)
    deterministic()
    environment = {**capture_environment(), **_device_facts(device), **group.facts}
    environment |= {"compile": how.compiled, "feature_cache": how.feature_cache, **launcher_facts()}
    if planned.backbone in workbench.backbone_facts:
        environment["backbone"] = workbench.backbone_facts[planned.backbone]
    asked = asked_of(planned, how.allow_missing, choices.plugins)
    folder.start(
        spec, provenance=planned.provenance, command_line=list(command_line), environment=environment, asked=asked
    )
    trainer: training.Trainer | None = None
    try:
        group.barrier()  # until the folder is what this start makes of it
        method_class = METHODS.get(spec.method)
        backbone = workbench.backbone(planned.backbone).to(device)
        backbone.recompute = how.recompute
        dataset = workbench.dataset(planned.dataset)
        if spec.open_world is not None:
            table = workbench.feasibility(planned.dataset, planned.feasibility, planned.backbone)
            dataset = replace(dataset, feasibility=table.scores)
        torch.manual_seed(derived_seed("init", spec.seed))
        config = method_class.Config.model_validate(spec.method_config)
        method = method_class(backbone, dataset.vocabulary, config).to(device)
        if planned.imported is not None:
            method.load_checkpoint(planned.imported.weights)
            if group.leads:
                write_best(folder.path, method.checkpoint(), spec.run_id, epoch=-1)
        surroundings = Surroundings(workbench.features, report or untold, notify)
        kind = training.Trainer if how.track is None or not group.leads else tracking.TrackedTrainer
        trainer = kind(spec, folder, method, dataset, execution, surroundings)
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


def check_given(planned: PlannedRun) -> None:
    """Raise a `UserError` for a run of imported weights that is to be done without them, before anything is removed."""
    if planned.spec.imported is not None and planned.imported is None and planned.action != "nothing":
        raise UserError(
            f"The run {planned.spec.run_id} cannot be done from its specification.",
            f"Its weights were imported from a file with the SHA-256 {planned.spec.imported[:12]}.",
            "Give the command bench.py import with that file.",
        )


def deterministic() -> None:
    """Ask torch for reproducible kernels, and for fp32 that is fp32 and not tf32.

    Where a kernel has no reproducible form torch warns instead of failing.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Its default fills all fresh memory with a value first, against programs that read what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # of a module's class
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _workers(wish: int | None, device: torch.device) -> int:
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


def _device_facts(device: torch.device) -> Mapping[str, Any]:
    import torch

    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return facts
