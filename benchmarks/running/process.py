"""What this process computes with: reproducible kernels, decoding processes, and the facts that numbers depend on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.running.workbench import Workbench
from benchmarks.runs.environment import cpu_name, package_version
from benchmarks.training.processes import on_this_machine
from datasets.system import is_posix

if TYPE_CHECKING:
    import torch


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


def workers(wish: int | None, device: torch.device) -> int:
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
    return {**own, **device_facts(workbench.device), **workbench.group.facts}


def instructions() -> str:
    """Return which vector instructions torch and oneDNN use on the processor, since sums are rounded in their order."""
    import torch

    limits = [limit for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if (limit := os.environ.get(name))]
    return ", oneDNN at most ".join([torch.backends.cpu.get_cpu_capability(), *limits[:1]])


def device_facts(device: torch.device) -> Mapping[str, Any]:
    """Return what numbers depend on of a device, as a record has it."""
    import torch

    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cpu":
        facts["instructions"] = instructions()
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return facts
