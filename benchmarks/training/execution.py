"""Where and how a run is computed, and who is told how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.evaluation.scoring import PAIR_CHUNK
from benchmarks.runs.spec import Precision
from benchmarks.training.distributed import ALONE, Group

Report = Callable[[str, int, int, str], None]
"""Progress: (what is being done, steps done, steps in all, a word on how it goes)."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """Where and how a run is computed; of these only the precision belongs to its identity.

    workers: decoding processes, 0 decodes in the training process
    eval_batch: images scored at once
    pair_chunk: candidates scored at once
    compiled: whether torch.compile makes the training step
    group: the processes that share the run, see `distributed.py`
    """

    device: torch.device
    precision: Precision = "fp32"
    workers: int = 0
    eval_batch: int = 256
    pair_chunk: int = PAIR_CHUNK
    compiled: bool = False
    group: Group = ALONE

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass: mixed precision, or nothing at fp32."""
        enabled = self.precision != "fp32"
        dtype = DTYPES[self.precision] if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)
