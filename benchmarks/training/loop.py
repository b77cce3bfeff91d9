"""The one training loop: epochs, validation, selection of an epoch, and exact resume.

Every random draw comes from a stream named by (seed, use, epoch): the initial weights, the order of images, the
augmented views, dropout. A run that was killed and started again therefore takes the same steps as one that was not.
"""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.evaluation.selection import counts_more
from benchmarks.runs.result import Result
from benchmarks.training import stopping
from benchmarks.training.judging import Judge
from benchmarks.training.optimizers import make_optimizer
from benchmarks.training.resuming import SavedTraining
from benchmarks.training.steps import Stepper
from datasets.transforms import derived_seed
from errors import counted


class Trainer(Judge):
    """Trains and evaluates one method in one run folder; on a signal it saves and stops (`stopping.py`)."""

    def run(self) -> Result:
        """Train from wherever the folder stands, evaluate the selected epoch and return the result to be recorded.

        `Stopped` where a signal asked for that: by then the state is saved, and another trainer goes on from it.
        """
        if self.trains:
            self.group.attach(self.method, self.config.micro_batch or self.config.batch_size)
            self._train()
            self.group.barrier()  # until the weights are written
            self.method.load_checkpoint(self._saved.best(self.progress.best_epoch))
        return self._final()

    @property
    def where(self) -> dict[str, int]:
        """How far the run is: finished `epochs`, and `images` of the next one that have been trained on."""
        return {"epochs": self.progress.next_epoch, "images": self.progress.images}

    @cached_property
    def _saved(self) -> SavedTraining:
        return SavedTraining(self.spec.run_id, self.folder, self.method, self.execution)

    def _train(self) -> None:
        optimizer, scheduler = make_optimizer(self.method, self.config)
        scaler = torch.amp.GradScaler(self.execution.device.type, enabled=self.execution.precision == "fp16")
        stepper = Stepper(
            self.method, self.config, self.execution, self.candidates["train"], optimizer, scaler, self._notify
        )
        parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        self.stepper = stepper
        saved = self._saved
        with self.group.leader_first():  # which mends what is damaged
            self.progress, generators = saved.resume(parts, self._notify)
        progress = self.progress
        if progress.micro_batch is not None:
            stepper.micro_batch = progress.micro_batch
        for epoch in range(progress.next_epoch, self.config.epochs):
            try:
                losses = self._epoch(epoch, stepper, generators)
                self.group.check_equal(self.method.checkpoint())
                trained = time.perf_counter()
                metrics = self.selection_metrics()
                loss = self.validation_loss() if self.rule.used == "val_loss" else math.nan
                self._stop_together()
            except BaseException as error:
                if isinstance(stop := stopping.cause(error), stopping.Stopped):
                    saved.checkpoint(parts, progress, stepper.generators.state())
                    stop.where = f", epoch {epoch + 1} of {self.config.epochs}"
                    raise stop from None
                raise
            generators = None
            with warnings.catch_warnings():
                # An epoch that was stopped in its validation has no step left before the scheduler's.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                scheduler.step()
            value = self.rule.value(metrics, loss, epoch)
            if progress.best_epoch < 0 or counts_more(value, progress.best_value):
                progress.best_epoch, progress.best_value = epoch, value
            self.folder.append_epoch(
                {
                    "epoch": epoch,
                    "losses": losses,
                    "lr": optimizer.param_groups[0]["lr"],
                    "val": self._epoch_numbers(metrics, loss),
                    "best_epoch": progress.best_epoch,
                    **({} if progress.micro_batch is None else {"micro_batch": progress.micro_batch}),
                    "train_seconds": progress.seconds,
                    "val_seconds": time.perf_counter() - trained,
                }
            )
            progress.next_epoch, progress.images, progress.sums, progress.seconds = epoch + 1, 0, {}, 0.0
            # A kill before this line repeats the epoch, with the same numbers. After it, the state holds the weights.
            saved.checkpoint(parts, progress)
            if progress.best_epoch == epoch:
                saved.write_best(self.method.checkpoint(), epoch)
            self.report("training", epoch + 1, self.config.epochs, self.rule.shown(metrics))

    def _epoch(self, epoch: int, stepper: Stepper, generators: Mapping[str, Tensor] | None) -> dict[str, float]:
        """Take an epoch's optimizer steps, or those that are left of it; return each loss term's mean over images.

        generators: their states where the epoch was stopped, None to begin it.
        """
        self.method.train()
        self.method.on_epoch_start(epoch)
        stepper.watch = True
        if generators is None:
            # Dropout and whatever else a method draws.
            torch.manual_seed(derived_seed("training", self.spec.seed, epoch))
        else:
            stepper.generators.restore(generators)
        progress, images = self.progress, len(self.batches["train"])
        start, before = time.perf_counter(), progress.seconds
        size, micro_batch = self.config.batch_size, stepper.micro_batch
        for batch in self.batches["train"].epoch(epoch, size, progress.images, micro_batch):
            total = min(size, images - progress.images)
            sums = stepper.step(batch, f"epoch {epoch + 1} after {counted(progress.images, 'image')}", total)
            progress.sums = {name: progress.sums.get(name, 0.0) + value for name, value in sums.items()}
            progress.images += total
            progress.seconds = before + time.perf_counter() - start
            if stepper.micro_batch != (self.config.micro_batch or size):
                progress.micro_batch = stepper.micro_batch
            loss = sums["total"] / total
            self.report(f"epoch {epoch + 1} of {self.config.epochs}", progress.images, images, f"loss {loss:.3f}")
            self._stop_together()
        return {name: value / images for name, value in progress.sums.items()}

    def _stop_together(self) -> None:
        """Raise `Stopped` in every process of the run once a stop was requested in any of them."""
        if self.group.size > 1 and self.group.sums([stopping.requested() is not None])[0]:
            stopping.request(signal.SIGTERM)  # where it has not come yet; another signal stays the one that asked
        stopping.check()
