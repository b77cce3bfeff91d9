"""How much memory a run will take, before it runs: a training step and an evaluation batch without their numbers.

The method's weights are replaced by torch's fake tensors, which have shapes and types and no values, and everything the
method does is followed: what is alive at its fullest moment is the estimate. So it knows of batch, tokens, widths,
layers, pairs, precision and recomputation by itself, for a method of somebody else as well, and takes a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.running.fake_tensors import bytes_of, fake_batch, fake_weights, fullest
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.training.execution import Execution
from datasets.base import Candidates
from errors import UserError
from methods.base import Method, Prepared
from registry import METHODS

if TYPE_CHECKING:
    from benchmarks.running.plan import PlannedRun
    from benchmarks.running.workbench import Workbench

OPTIMIZER_NUMBERS = 2
"""Numbers that the optimizers keep for each trained one: the two moments of Adam and its kin."""

SAMPLES = (2048, 4096)
"""Candidates with which an evaluation is followed where there are more than `FOLLOWED`: the rest goes by the growth
between the two. An open world has hundreds of thousands, which would take minutes."""
FOLLOWED, COPIES = 32_768, 3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes.

    weights: of method and backbone.
    gradients: of what is trained.
    optimizer: what it keeps of what is trained.
    training: what else is alive at the fullest moment of a step.
    evaluation: what else is alive at the fullest moment of an evaluation batch.
    """

    weights: int
    gradients: int
    optimizer: int
    training: int
    evaluation: int

    @property
    def total(self) -> int:
        """The fullest moment of the run. The process, the data set and decoded images come on top."""
        trained = self.weights + self.gradients + self.optimizer
        return max(trained + self.training, self.weights + self.optimizer + self.evaluation)


def estimate(
    method: Method, config: TrainingConfig, execution: Execution, candidates: Mapping[str, Candidates]
) -> MemoryEstimate:
    """Return the estimate of a run. `method` is used up: its weights lose their values.

    candidates: those of "train" and "test".

    What a method does with values (not with indices) cannot be followed; it raises whatever torch says of that.
    """
    weights = bytes_of(method.parameters()) + bytes_of(method.buffers())
    trained = bytes_of(method.trained().values()) if config.epochs > 0 else 0
    method.backbone.in_passes = execution.device.type == "cpu"
    execution = replace(execution, device=torch.device("cpu"))
    mode = fake_weights(method)

    def step() -> None:
        method.training_loss(batch, candidates["train"]).total.backward()

    training = 0
    if method.info.trains and config.epochs > 0:
        batch = fake_batch(method, mode, config.micro_batch or config.batch_size)
        kept = config.augmentation == "none" or config.views is not None
        if kept and method.info.frozen_image_features:
            with torch.no_grad(), execution.autocast():
                batch = method.encode(batch)  # once per run, see `PhaseBatches`
        method.train()
        training = max(0, fullest(step, method, execution, batch)[0] - trained)
    method.eval()
    images = fake_batch(method, mode, execution.eval_batch)

    def follow(pairs: Candidates) -> tuple[int, int]:
        def score() -> Prepared:
            prepared = method.prepare(pairs)
            chunk = slice(0, min(execution.pair_chunk, len(pairs)))
            method.score(method.encode(images), prepared, chunk).float()
            return prepared

        with torch.no_grad():
            return fullest(score, method, execution, images)

    evaluation = evaluation_bytes(candidates["test"], follow)
    return MemoryEstimate(weights, trained, OPTIMIZER_NUMBERS * trained, training, evaluation)


def evaluation_bytes(candidates: Candidates, follow: Callable[[Candidates], tuple[int, int]]) -> int:
    """Return the most bytes that an evaluation batch keeps alive.

    follow: returns them for some candidates, and the bytes that stay prepared for further batches.

    What is prepared grows with the candidates. At the end its passes are joined and normalized, which the samples are
    too few to show: where they lie, in whole and once more, is `COPIES` of it (twice in CSP, four times in CAILA).
    """
    if len(candidates) <= FOLLOWED:
        return follow(candidates)[0]
    few, more = (spread_out(candidates, number) for number in SAMPLES)
    (low, kept_of_few), (high, kept) = follow(few), follow(more)
    times = (len(candidates) - len(more)) / max(1, len(more) - len(few))
    prepared = kept + times * max(0, kept - kept_of_few)
    return int(max(high + times * max(0, high - low), COPIES * prepared))


def spread_out(candidates: Candidates, number: int) -> Candidates:
    """Return about so many candidates from all over, in their order; each state and object is among them."""
    rows = np.concatenate(
        [
            np.unique(candidates.states, return_index=True)[1],
            np.unique(candidates.objects, return_index=True)[1],
            np.linspace(0, len(candidates) - 1, number).astype(np.int64),
        ]
    )
    rows = np.unique(rows)
    return replace(
        candidates,
        pairs=candidates.pairs[rows],
        seen=candidates.seen[rows],
        feasibility=None if candidates.feasibility is None else candidates.feasibility[rows],
    )


def estimate_run(planned: PlannedRun, workbench: Workbench) -> MemoryEstimate | None:
    """Return the estimate of a planned run, or None where the method cannot be followed without values."""
    spec, choices = planned.spec, workbench.choices
    method_class = METHODS.get(spec.method)
    backbone = workbench.backbone(planned.backbone)
    backbone.recompute = choices.how.recompute
    dataset = workbench.dataset(planned.dataset)
    method = method_class(backbone, dataset.vocabulary, method_class.Config.model_validate(spec.method_config))
    candidates = {phase: dataset.candidates(phase, spec.world) for phase in ("train", "test")}
    try:
        return estimate(method, spec.training, Execution(workbench.device, spec.precision), candidates)
    except (RuntimeError, NotImplementedError, UserError):  # what a fake tensor was asked for that it does not have
        return None


def memory_table(planned: Sequence[PlannedRun], workbench: Workbench) -> list[tuple[str, ...]]:
    """Return for each kind of run that is to be done: method, data set and world, backbone, and GB as in `gigabytes`.

    Seeds and ablations of a method are one kind, which its full model stands for.
    """
    rows = {}
    for item in planned:
        spec = item.spec
        if item.action != "nothing" and spec.ablation is None and (kind := kind_of(spec)) not in rows:
            names = (spec.method, f"{spec.dataset}, {spec.world}", spec.backbone)
            rows[kind] = (*names, *gigabytes(estimate_run(item, workbench)))
    return list(rows.values())


def kind_of(spec: RunSpec) -> tuple[str, ...]:
    """Return what runs have in common whose estimates are about the same.

    By digests: two data sets, or weights, of one name are two kinds. An open world has far more candidates.
    """
    return (spec.method, spec.dataset_digest, spec.backbone_digest, spec.world)


def gigabytes(estimate: MemoryEstimate | None) -> tuple[str, ...]:
    """Return weights, training step, evaluation batch and total of an estimate for people.

    >>> gigabytes(MemoryEstimate(800_000_000, 50_000_000, 100_000_000, 560_000_000, 10))
    ('0.80', '0.71', '0.00', '~1.5')
    """
    if estimate is None:
        return ("", "", "", "unknown")
    step = estimate.gradients + estimate.optimizer + estimate.training
    parts = (f"{size / 1e9:.2f}" for size in (estimate.weights, step, estimate.evaluation))
    return (*parts, f"~{estimate.total / 1e9:.1f}")
