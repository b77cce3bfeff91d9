"""The one training loop: epochs, validation, selection, checkpoint, exact resume, and the final evaluation.

Every random draw comes from a stream named by (seed, use, epoch): the initial weights, the order of images, the
augmented views, dropout. A run that was killed and started again therefore takes the same steps as one that was not.
"""

from __future__ import annotations

import json
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.evaluation.empty_groups import Sizes, shown
from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.metrics import Labels, Metrics, evaluate
from benchmarks.evaluation.open_world import ThresholdedWorld
from benchmarks.evaluation.scoring import score_images
from benchmarks.evaluation.selection import Rule, counts_more
from benchmarks.runs.checkpoints import (
    BEST,
    Damaged,
    Progress,
    forget_state,
    holds_best,
    read_best,
    readable_states,
    write_best,
    write_state,
)
from benchmarks.runs.records import RunFolder
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.training import stopping
from benchmarks.training.batches import PhaseBatches
from benchmarks.training.execution import Execution, Report
from benchmarks.training.frozen_features import FeatureStore
from benchmarks.training.memory import in_smaller_parts, peak_memory
from benchmarks.training.optimizers import make_optimizer
from benchmarks.training.outcome import headline, judged, score_arrays
from benchmarks.training.steps import Notify, Stepper
from datasets.base import Candidates, CompositionDataset, Phase
from datasets.transforms import derived_seed
from errors import UserError, counted
from methods.base import Batch, Method


def silent(what: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


class Trainer:
    """Trains and evaluates one method in one run folder. `method` is on the device and freshly built.

    An open world with a threshold needs a data set with feasibility scores. world: None where no pair is removed.
    notify: told what is also noted in the record. Where a signal asks for it (`stopping.py`), `run` saves and stops.
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        method: Method,
        dataset: CompositionDataset,
        execution: Execution,
        report: Report = silent,
        store: FeatureStore | None = None,
        notify: Notify = lambda message: None,
    ) -> None:
        self.spec, self.folder, self.method = spec, folder, method
        self.dataset, self.execution, self.report, self.notify = dataset, execution, report, notify
        self.progress = Progress()
        self.stepper: Stepper | None = None
        self.config: TrainingConfig = spec.training
        self.validation = Sizes.of(dataset, "val")
        self.rule = Rule.of(self.config.selection, self.validation)
        self.group = execution.group
        self.store = FeatureStore() if store is None else store
        self.store_seconds = self.store.seconds
        self.candidates: dict[Phase, Candidates] = {
            phase: dataset.candidates(phase, spec.world) for phase in ("train", "val", "test")
        }
        self.batches: dict[Phase, PhaseBatches] = {
            phase: self._phase_batches(phase, self.candidates[phase]) for phase in ("train", "val", "test")
        }
        self.world = None
        if spec.open_world is not None:
            self.world = ThresholdedWorld(spec.open_world, self.candidates["val"], self.group.join)
        # What validation selects the epoch by: another world than the reported one where the run says so.
        self.selection_candidates, self.selection_batches = self.candidates["val"], self.batches["val"]
        if spec.open_world is not None and spec.open_world.selection_world != spec.world:
            self.selection_candidates = dataset.candidates("val", spec.open_world.selection_world)
            self.selection_batches = self._phase_batches("val", self.selection_candidates)

    def _phase_batches(self, phase: Phase, candidates: Candidates) -> PhaseBatches:
        return PhaseBatches(
            self.method,
            self.dataset,
            phase,
            candidates,
            self.execution,
            augmentation=self.config.augmentation if phase == "train" else "none",
            seed=self.spec.seed,
            views=self.config.views,
            store=self.store,
            report=self.report,
            notify=self._notify,
        )

    def run(self) -> dict[str, Any]:
        """Train from wherever the folder stands, evaluate the selected epoch and return the result to be recorded.

        `Stopped` where a signal asked for that: by then the state is saved, and another trainer goes on from it.
        """
        if not self.trains:
            return self._final()
        self.group.attach(self.method, self.config.micro_batch or self.config.batch_size)
        self._train()
        self.group.barrier()  # until the weights are written
        try:
            weights, epoch = read_best(self.folder.path, self.execution.device)
            if epoch != self.progress.best_epoch:
                raise Damaged(f"{BEST} is of epoch {epoch + 1}, not of epoch {self.progress.best_epoch + 1}")
        except Damaged as damage:
            if self.group.leads:
                forget_state(self.folder.path)
            raise UserError(
                f"The best weights of {self.spec.run_id} were lost while it trained.",
                f"{damage}.",
                "Start the run again, which trains it anew; if this comes back, look after the disk.",
            ) from damage
        self.method.load_checkpoint(weights)
        return self._final()

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method.info.trains and self.config.epochs > 0

    @property
    def where(self) -> dict[str, int]:
        """How far the run is: finished `epochs`, and `images` of the next one that have been trained on."""
        return {"epochs": self.progress.next_epoch, "images": self.progress.images}

    # Training ---------------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        optimizer, scheduler = make_optimizer(self.method, self.config)
        scaler = torch.amp.GradScaler(self.execution.device.type, enabled=self.execution.precision == "fp16")
        stepper = Stepper(
            self.method, self.config, self.execution, self.candidates["train"], optimizer, scaler, self._notify
        )
        parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        self.stepper = stepper
        with self.group.leader_first():  # which mends what is damaged
            generators = self._resume(parts, stepper)
        progress = self.progress
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
                    self._checkpoint(parts, stepper.generators.state())
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
            self._checkpoint(parts)
            if progress.best_epoch == epoch:
                self._write_best(self.method.checkpoint(), epoch)
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
        """Raise `Stopped` if that was asked for, of several processes in all if it was in one."""
        if self.group.size > 1 and self.group.sums([stopping.requested() is not None])[0]:
            stopping.request(signal.SIGTERM)  # where it has not come yet; another signal stays the one that asked
        stopping.check()

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches until a stop is asked for; several processes stop together, where they meet next."""
        return batches if self.group.size > 1 else stopping.watched(batches)

    def _notify(self, message: str) -> None:
        self.folder.note(message)
        self.notify(message)

    # Checkpoint and resume --------------------------------------------------------------------------------------------

    def _checkpoint(self, parts: Mapping[str, Any], generators: Mapping[str, Tensor] | None = None) -> None:
        if not self.group.leads:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"method": self.method.checkpoint(), "progress": asdict(self.progress), "generators": generators}
        write_state(self.folder.path, state)

    def _write_best(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        if self.group.leads:
            write_best(self.folder.path, weights, self.spec.run_id, epoch)

    def _resume(self, parts: Mapping[str, Any], stepper: Stepper) -> Mapping[str, Tensor] | None:
        """Go on from the latest whole state, or begin; return the generators' states where an epoch was stopped.

        The best weights must be whole too: where they are not, a state that holds them is taken, or none.
        """
        folder, device = self.folder.path, self.execution.device
        damages: list[str] = []
        states = readable_states(folder, device, damages)
        state = next(states, None)
        if state is not None and holds_best(state):
            self._write_best(state["method"], state["progress"]["best_epoch"])
        elif state is not None and state["progress"]["best_epoch"] >= 0:
            try:
                read_best(folder, device)
            except Damaged as damage:
                damages.append(str(damage))
                state = next(filter(holds_best, states), None)
                if state is not None:
                    self._write_best(state["method"], state["progress"]["best_epoch"])
        self.progress = Progress() if state is None else Progress(**state["progress"])
        if damages:
            place = f"goes on after epoch {self.progress.next_epoch}" if state is not None else "begins anew"
            self._notify(f"{'; '.join(damages)}. Training {place}; the numbers will be the same.")
        self.folder.resume_at(self.progress.next_epoch)
        if state is None:
            if self.group.leads:
                forget_state(folder)
            return None
        self.method.load_checkpoint(state["method"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
        if self.progress.micro_batch is not None:
            stepper.micro_batch = self.progress.micro_batch
        return state["generators"]

    # Evaluation -------------------------------------------------------------------------------------------------------

    def score(self, phase: Phase) -> tuple[ImageScores, Labels]:
        """Score a phase's images against its candidates; in a world with thresholds, "val" chooses one."""
        candidates, chunk = self.candidates[phase], self.execution.pair_chunk
        labels = self._labels(phase, candidates)

        def score() -> ImageScores:
            batches = self._watched(self.batches[phase].ordered())
            with self.execution.autocast():
                if self.world is None:
                    return self.group.join(score_images(self.method, batches, candidates, pair_chunk=chunk))
                if phase == "val":
                    return self.world.validate(self.method, batches, labels, chunk)
                return self.world.score(self.method, batches, chunk)

        return in_smaller_parts(score, self._halve_eval_batch), labels

    def _halve_eval_batch(self) -> None:
        size = self.execution.eval_batch
        if size == 1:
            raise UserError(
                f"Memory does not suffice to evaluate {self.method.info.name} on {self.execution.device}.",
                "It ran out with one image at once; what was trained is kept.",
                "Run the same command on a device with more memory, or with a smaller backbone.",
            )
        if self.group.size > 1:
            raise UserError(
                f"Memory ran out with {counted(size, 'image')} at once in evaluation.",
                f"{self.group.size} processes make this run, and they cannot change that by themselves.",
                "The same command without --devices goes on from what was trained, with fewer images at once.",
            )
        self.execution = replace(self.execution, eval_batch=(size + 1) // 2)
        for batches in {*self.batches.values(), self.selection_batches}:
            batches.execution = self.execution
        same = "Scores are the same up to rounding."
        if not self.method.info.batch_independent:
            same = f"In {self.method.info.name} the images of a batch influence each other, so the scores change."
        self._notify(
            f"Memory ran out with {counted(size, 'image')} at once in evaluation: from here on there are "
            f"{self.execution.eval_batch}. {same}"
        )

    def _labels(self, phase: Phase, candidates: Candidates) -> Labels:
        split = self.dataset.splits[phase]
        return Labels(candidates.states, candidates.objects, split.states, split.objects)

    def selection_metrics(self) -> Metrics:
        """Return the validation metrics that decide about the epoch, in the world that the run selects by."""
        if self.selection_batches is self.batches["val"]:
            return self.evaluate("val")[1]

        def score() -> ImageScores:
            batches = self._watched(self.selection_batches.ordered())
            with self.execution.autocast():
                return score_images(
                    self.method, batches, self.selection_candidates, pair_chunk=self.execution.pair_chunk
                )

        scores = in_smaller_parts(score, self._halve_eval_batch)
        return evaluate(self.group.join(scores), self._labels("val", self.selection_candidates))

    def _epoch_numbers(self, metrics: Metrics, loss: float) -> dict[str, float]:
        numbers = headline(metrics)
        if not math.isnan(loss):
            numbers["loss"] = loss
        if self.world is not None and self.selection_batches is self.batches["val"]:
            numbers["threshold"] = self.world.threshold
        return numbers

    def evaluate(self, phase: Phase, bias: float | None = None) -> tuple[tuple[ImageScores, Labels], Metrics]:
        """Score a phase and return the record with its metrics."""
        scored = self.score(phase)
        return scored, evaluate(*scored, bias=bias)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean over validation batches of the method's validation loss, as the released codes average it."""
        self.method.eval()  # the next epoch begins by setting the mode it wants

        def losses() -> list[float]:
            with self.execution.autocast():
                prepared = self.method.prepare(self.selection_candidates)
                return [
                    self.method.validation_losses(self.method.encode(batch), prepared).total.item()
                    for batch in self._watched(self.selection_batches.ordered())
                ]

        own = in_smaller_parts(losses, self._halve_eval_batch)
        found = [loss for part in self.group.gather(json.dumps(own).encode()) for loss in json.loads(part)]
        return sum(found) / len(found)

    def _final(self) -> dict[str, Any]:
        self.method.on_final_evaluation()
        self.report("evaluating", 0, 2, "")
        (val_scores, _), val = self.evaluate("val")
        self.report("evaluating", 1, 2, "")
        start = time.perf_counter()
        test_scores, test_labels = self.score("test")
        test_seconds = time.perf_counter() - start
        bias = val.best_hm_bias
        no_bias = self.validation.lacks("validation")
        test = evaluate(test_scores, test_labels, bias=bias, no_bias=no_bias)
        scores: dict[Phase, ImageScores] = {"val": val_scores, "test": test_scores}
        about = (self.dataset, self.candidates, self.world)
        self.folder.write_arrays(score_arrays(*about, scores))
        self.report("evaluating", 2, 2, f"test AUC {shown(test.auc, '{:.3f}')}")
        return {
            "run_id": self.spec.run_id,
            "selection": {
                "policy": self.config.selection if self.trains else "nothing to select",
                "epoch": self.progress.best_epoch if self.trains else None,
                "value": self.progress.best_value if self.trains else None,
                "bias": bias,
                **(self.rule.recorded(self.progress.best_value) if self.trains else {}),
                **({"no_bias": no_bias} if no_bias else {}),
            },
            **judged(*about, {"val": val, "test": test}, scores, test_labels, bias),
            "cost": self._cost(len(test_scores), test_seconds),
        }

    def _cost(self, test_images: int, test_seconds: float) -> dict[str, Any]:
        epochs = self.folder.epochs()
        train_seconds = sum(record["train_seconds"] for record in epochs)
        images = len(self.batches["train"]) * len(epochs)
        return {
            "trained_parameters": sum(p.numel() for p in self.method.trained().values()),
            "train_seconds": train_seconds,
            "train_images_per_second": images / train_seconds if train_seconds > 0 else None,
            "test_seconds": test_seconds,
            "test_images_per_second": test_images / test_seconds if test_seconds > 0 else None,
            "peak_memory_bytes": peak_memory(self.execution.device),
            "micro_batch": None if self.stepper is None else self.stepper.micro_batch,
            "eval_batch": self.execution.eval_batch,
            "feature_cache": [phase for phase, batches in self.batches.items() if batches.cached],
            "feature_seconds": self.store.seconds - self.store_seconds,
            "compiled": self.stepper is not None and self.stepper.compiled,
        }
