"""The one training loop: epochs, validation, selection of an epoch, and exact resume.

Every random draw comes from a stream named by (seed, use, epoch): the initial weights, the order of images, the
augmented views, dropout. A run that was killed and started again therefore takes the same steps as one that was not.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluation.metrics import Metrics
from benchmarks.runs.result import Result
from benchmarks.training import sharing, stopping
from benchmarks.training.judging import Judge
from benchmarks.training.optimizers import make_optimizer
from benchmarks.training.resuming import SavedTraining
from benchmarks.training.steps import Stepper
from datasets.transforms import derived_seed
from errors import counted


class Trainer(Judge):
    """Trains one method and is the first to judge it; on a signal it saves and stops (`stopping.py`).

    judges: this one, and the further runs of the same training that joined it (`join`). Each judges the same weights
    after each epoch; one that fails leaves its `failure`, and the others go on.
    """

    @cached_property
    def judges(self) -> list[Judge]:
        """This one first."""
        return [self]

    def join(self, judge: Judge) -> None:
        """Have the weights judged by another run too; a method that begins with other weights is a `UserError`."""
        sharing.join(judge.method, self.method)
        self.judges.append(judge)

    def run(self) -> Result:
        """Train from wherever the folder stands, evaluate the selected epoch and return the result to be recorded.

        `Stopped` where a signal asked for that: by then the state is saved, and another trainer goes on from it.
        """
        self.train()
        return self.conclude()

    def train(self) -> None:
        """Train from wherever the folders stand, if there is anything to train; each judge then has its best epoch."""
        if self.trains:
            self.group.attach(self.method, self.config.micro_batch or self.config.batch_size)
            self._train()
            self.group.barrier()  # until the weights are written

    @property
    def where(self) -> dict[str, int]:
        """How far the run is: finished `epochs`, and `images` of the next one that have been trained on."""
        return {"epochs": self.progress.next_epoch, "images": self.progress.images}

    @property
    def active(self) -> list[Judge]:
        """The judges that nothing failed for."""
        return [judge for judge in self.judges if judge.failure is None]

    def _train(self) -> None:
        optimizer, scheduler = make_optimizer(self.method, self.config)
        scaler = torch.amp.GradScaler(self.execution.device.type, enabled=self.execution.precision == "fp16")
        stepper = Stepper(
            self.method, self.config, self.execution, self.candidates["train"], optimizer, scaler, self._notify_all
        )
        parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        with self.group.leader_first():  # which mends what is damaged
            places, generators = self._saved_training().resume(parts, self._notify_all)
        for judge, place in zip(self.judges, places, strict=True):
            judge.progress, judge.stepper = place, stepper
        progress = self.progress
        if progress.micro_batch is not None:
            stepper.micro_batch = progress.micro_batch
        for epoch in range(progress.next_epoch, self.config.epochs):
            try:
                losses = self._epoch(epoch, stepper, generators)
                self.group.check_equal(self.method.checkpoint())
                judged = self._judged()
                self._stop_together()
            except BaseException as error:
                if isinstance(stop := stopping.cause(error), stopping.Stopped):
                    self._checkpoint(parts, stepper.generators.state())
                    stop.where = f", epoch {epoch + 1} of {self.config.epochs}"
                    raise stop from None
                raise
            generators = None
            rate = optimizer.param_groups[0]["lr"]  # of this epoch's steps
            with warnings.catch_warnings():
                # An epoch that was stopped in its validation has no step left before the scheduler's.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                scheduler.step()
            about = {
                "losses": losses,
                "lr": rate,
                **({} if progress.micro_batch is None else {"micro_batch": progress.micro_batch}),
                "train_seconds": progress.seconds,
            }
            for judge, metrics, loss, seconds in judged:
                judge.record_epoch(epoch, metrics, loss, {**about, "val_seconds": seconds})
            progress.next_epoch, progress.images, progress.sums, progress.seconds = epoch + 1, 0, {}, 0.0
            if not judged:
                break
            # A kill before this line repeats the epoch, with the same numbers. After it, the state holds the weights.
            self._checkpoint(parts)
            for judge, *_ in judged:
                if judge.progress.best_epoch == epoch:
                    judge.saved.write_best(self.method.checkpoint(), epoch)
            note = ", ".join(judge.rule.shown(metrics) for judge, metrics, *_ in judged)
            self.report("training", epoch + 1, self.config.epochs, note)

    def _judged(self) -> list[tuple[Judge, Metrics, float, float]]:
        """Return what every judge says of the weights as they are, and the seconds that it took.

        One that fails is left out from here on, unless there is no other or there are several processes.
        """
        judged = []
        for judge in self.active:
            start = time.perf_counter()
            try:
                if judge is not self:
                    judge.method.load_checkpoint(self.method.checkpoint())
                metrics, loss = judge.epoch_metrics()
            except Exception as error:
                stopped = isinstance(stopping.cause(error), stopping.Stopped)
                if stopped or len(self.judges) == 1 or self.group.size > 1:
                    raise
                judge.fail(error)
            else:
                judged.append((judge, metrics, loss, time.perf_counter() - start))
        return judged

    def _saved_training(self) -> SavedTraining:
        return SavedTraining([judge.saved for judge in self.active], self.method, self.execution)

    def _checkpoint(self, parts: Mapping[str, Any], generators: Mapping[str, Tensor] | None = None) -> None:
        """Write the state for every judge that goes on. generators: see `SavedTraining.checkpoint`."""
        own = [judge.progress for judge in self.active]
        progress = [replace(self.progress, best_epoch=one.best_epoch, best_value=one.best_value) for one in own]
        self._saved_training().checkpoint(parts, progress, generators)

    def _notify_all(self, message: str) -> None:
        """Note something that happened in training in the record of every run."""
        for judge in self.active:
            judge.folder.note(message)
        self.surroundings.notify(message)

    def _epoch(self, epoch: int, stepper: Stepper, generators: Mapping[str, Tensor] | None) -> dict[str, float]:
        """Take an epoch's optimizer steps, or those that are left of it; return each loss term's mean over images.

        generators: their states where the epoch was stopped, None to begin it.
        """
        for judge in dict.fromkeys([self, *self.active]):
            judge.method.train()
            judge.method.on_epoch_start(epoch)
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
