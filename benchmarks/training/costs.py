"""What a run took: time, throughput, memory, parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.runs.result import Cost
from benchmarks.training.batches import PhaseBatches
from benchmarks.training.execution import Execution
from benchmarks.training.memory import peak_memory
from benchmarks.training.steps import Stepper
from datasets.base import Phase
from methods.base import Method


@dataclass(frozen=True)
class Spent:
    """What is known of a run that has been evaluated.

    epochs: their records
    stepper: None where nothing was trained
    feature_seconds: making frozen features
    elsewhere: whether weights were trained elsewhere, of which nobody knows what they took
    """

    method: Method
    epochs: Sequence[Mapping[str, Any]]
    batches: Mapping[Phase, PhaseBatches]
    execution: Execution
    stepper: Stepper | None
    feature_seconds: float
    elsewhere: bool = False

    def cost(self, test_images: int, test_seconds: float) -> Cost:
        """Return what the record says. test_images: that were scored in `test_seconds`."""
        train_seconds = sum(record["train_seconds"] for record in self.epochs)
        images = len(self.batches["train"]) * len(self.epochs)
        return Cost(
            trained_parameters=sum(p.numel() for p in self.method.trained().values()),
            train_seconds=math.nan if self.elsewhere else train_seconds,
            train_images_per_second=images / train_seconds if train_seconds > 0 else None,
            test_seconds=test_seconds,
            test_images_per_second=test_images / test_seconds if test_seconds > 0 else None,
            peak_memory_bytes=peak_memory(self.execution.device),
            micro_batch=None if self.stepper is None else self.stepper.micro_batch,
            eval_batch=self.execution.eval_batch,
            feature_cache=[phase for phase, batches in self.batches.items() if batches.cached],
            feature_seconds=self.feature_seconds,
            compiled=self.stepper is not None and self.stepper.compiled,
        )
