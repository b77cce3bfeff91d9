"""The checks of `gpu_check`: a device against the processor, a run against itself, killed, and compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cost.timing import random_batch
from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.records import RunRecord
from benchmarks.runs.suites import RunRequest
from benchmarks.training.execution import Report
from datasets.base import CompositionDataset
from datasets.transforms import derived_seed
from methods.backbone.clip import Backbone
from methods.base import Batch, Method
from registry import BACKBONES, METHODS

SCORES, GRADIENTS = 1e-4, 2e-3
"""Tolerances in fp32: largest difference as a share of the largest score, or of the largest gradient of all tensors."""


class Killed(BaseException):
    """Stands for a process that ends without another word."""


@dataclass(frozen=True)
class Problem:
    """What is checked with. images: in the batch that is compared with the processor."""

    dataset: CompositionDataset
    backbone: str
    device: torch.device
    images: int

    def method(self, name: str) -> Method:
        """Return a method on the processor, always with the same weights, without dropout."""
        backbone: Backbone = BACKBONES.get(self.backbone)()
        torch.manual_seed(derived_seed("init", 0))
        chosen = METHODS.get(name)
        built: Method = chosen(backbone, self.dataset.vocabulary, chosen.Config())
        return built.eval()

    def batch(self, method: Method) -> Batch:
        """Return images of training pairs where the method is."""
        return random_batch(method.backbone, self.dataset.candidates("train"), self.images, 0)


def computed(problem: Problem, method: Method) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores of a batch [B, C] and the gradient of every trained tensor, on the processor."""
    batch, candidates = problem.batch(method), problem.dataset.candidates("train")
    method.zero_grad(set_to_none=True)
    if method.info.trains:
        method.training_loss(batch, candidates).total.backward()
    gradients = {name: tensor.grad.cpu() for name, tensor in method.trained().items() if tensor.grad is not None}
    with torch.inference_mode():
        scores = method.score(method.encode(batch), method.prepare(candidates), slice(None))
    return scores.float().cpu(), gradients


def equal(problem: Problem, name: str) -> tuple[bool, str]:
    """Return whether scores and gradients in fp32 are those of the processor up to the tolerances, and by how much."""
    method = problem.method(name)
    expected, expected_gradients = computed(problem, method)
    found, gradients = computed(problem, method.to(problem.device))
    scores = ((found - expected).abs().max() / expected.abs().max()).item()
    said, right = f"scores differ by {scores:.1e} (at most {SCORES:.0e})", scores <= SCORES
    if expected_gradients:
        largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
        off = max((gradients[key] - value).abs().max().item() for key, value in expected_gradients.items()) / largest
        right = right and off <= GRADIENTS
        said += f", gradients by {off:.1e} (at most {GRADIENTS:.0e})"
    return right, said


def do(problem: Problem, name: str, results: Path, report: Report | None = None) -> RunRecord:
    """Do a short run on the device, or go on with the one that is there."""
    batch = max(1, len(problem.dataset.splits["train"]) // 2)
    overrides = ("epochs=2", f"batch_size={batch}", "augmentation=none")
    how = How(device=str(problem.device), workers=0, feature_cache=False)
    workbench = Workbench(Choices(results=results, overrides=overrides, precision="fp32", how=how))
    workbench.datasets["made"] = problem.dataset
    (planned,) = plan_runs([RunRequest(name, "made", problem.backbone, "closed", "clean", 0)], workbench)
    return execute(planned, workbench, report)


def kill_in_second_epoch(what: str, done: int, total: int, note: str) -> None:
    """End a run of two epochs in its second, as `Killed`; a `Report`."""
    if what == "epoch 2 of 2":
        raise Killed


def _told(record: RunRecord) -> tuple[object, ...]:
    """Return the numbers of a record, and the digest of its weights' file."""
    content = {key: value for key, value in record.finished.content().items() if key != "cost"}
    return repr(content), (record.path / "best.safetensors").read_bytes()


def repeats(problem: Problem, name: str, folder: Path) -> tuple[bool, str]:
    """Return whether two runs leave the same numbers and weights, bit for bit."""
    one, two = (_told(do(problem, name, folder / part)) for part in ("one", "two"))
    return one == two, "numbers and weights bit for bit" if one == two else "numbers or weights differ"


def resumes(problem: Problem, name: str, folder: Path) -> tuple[bool, str]:
    """Return whether a run that was killed in its second epoch ends as one that was not, bit for bit."""
    whole = _told(do(problem, name, folder / "whole"))
    try:
        do(problem, name, folder / "killed", kill_in_second_epoch)
    except Killed:
        pass
    else:
        return False, "nothing killed it"
    same = _told(do(problem, name, folder / "killed")) == whole
    return same, "numbers and weights bit for bit" if same else "numbers or weights differ"


def compiled(problem: Problem, name: str) -> tuple[bool, str]:
    """Return whether a compiled loss is that of the method as it is, in fp32, up to the tolerance of scores."""
    method, candidates = problem.method(name).to(problem.device), problem.dataset.candidates("train")
    batch = problem.batch(method)
    expected = method.training_loss(batch, candidates).total.item()
    try:
        found = torch.compile(method.training_loss)(batch, candidates).total.item()
    except Exception as error:  # whatever a compiler lacks; a run then goes on without it
        return True, f"not compiled here ({type(error).__name__}), so runs go on without it"
    off = abs(found - expected) / abs(expected)
    return off <= SCORES, f"loss differs by {off:.1e} (at most {SCORES:.0e})"
