"""Curves of a run for TensorBoard, below its folder, while it trains: `run --track tensorboard`.

    tensorboard --logdir results

They are drawn from what the training loop has computed and change nothing of a run; its record has no word of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from benchmarks.evaluation.metrics import Metrics
from benchmarks.runs import files
from benchmarks.training.loop import Trainer
from benchmarks.training.steps import Stepper
from errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def check(track: str | None) -> None:
    """Raise the `UserError` of curves that cannot be drawn in this process."""
    if track is not None and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            f"--track {track} needs the package tensorboard.",
            "It is not installed here.",
            'Install it from this checkout: pip install -e ".[tensorboard]".',
        )


class TrackedTrainer(Trainer):
    """A trainer that draws its curves: of runs that share a training, the first one's.

    Steps are counted from 1 over all epochs, across stops and resumes.

    train/loss, train/lr: of each optimizer step.
    val/<name>: the numbers of each epoch's record, at its last step.
    """

    _writer: SummaryWriter | None = None
    _images, _total = 0, 0.0  # of the epoch, when the latest step was drawn: images, and the sum of their losses

    def train(self) -> None:
        """Train, see `Trainer.train`; what was drawn is on disk however that ends."""
        try:
            super().train()
        finally:
            if self._writer is not None:
                self._writer.close()

    @property
    def _step(self) -> int:
        """How many optimizer steps were taken."""
        size, progress = self.config.batch_size, self.progress
        return progress.next_epoch * -(-len(self.batches["train"]) // size) + -(-progress.images // size)

    def _epoch(self, epoch: int, stepper: Stepper, generators: Mapping[str, Tensor] | None) -> dict[str, float]:
        self._images, self._total = self.progress.images, self.progress.sums.get("total", 0.0)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            with files.writing(self.folder.path / FOLDER):
                # Steps that a killed process drew and that are taken again are forgotten.
                self._writer = SummaryWriter(str(self.folder.path / FOLDER), purge_step=self._step + 1)
        return super()._epoch(epoch, stepper, generators)

    def _stop_together(self) -> None:  # what the loop calls after each step
        images, total = self.progress.images, self.progress.sums.get("total", 0.0)
        if self._writer is not None and self.stepper is not None and images > self._images:
            self._writer.add_scalar("train/loss", (total - self._total) / (images - self._images), self._step)
            self._writer.add_scalar("train/lr", self.stepper.optimizer.param_groups[0]["lr"], self._step)
            self._images, self._total = images, total
        super()._stop_together()

    def _epoch_numbers(self, metrics: Metrics, loss: float) -> dict[str, float]:  # what the epoch's record is to say
        numbers = super()._epoch_numbers(metrics, loss)
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(f"val/{name}", value, self._step)
            self._writer.flush()
        return numbers
