"""What a run is judged by: its scores of a phase, the numbers that select an epoch, and its final evaluation.

A training may have several judges: runs that differ in the world, or in how pairs are scored, and train the same
weights. Each has a folder, a method of its own settings and a best epoch of its own.
Where memory runs out in an evaluation, it goes on with half as many images at once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from benchmarks.evaluation.empty_groups import Sizes, shown
from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.metrics import Labels, Metrics, evaluate
from benchmarks.evaluation.open_world import ThresholdedWorld
from benchmarks.evaluation.scoring import score_images
from benchmarks.evaluation.selection import LOSSES, Rule, averaged, counts_more, last_batch
from benchmarks.evaluation.topk import KEPT
from benchmarks.runs.checkpoints import Progress
from benchmarks.runs.records import RunFolder
from benchmarks.runs.result import PhaseMetrics, Result
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.training import stopping
from benchmarks.training.batches import PhaseBatches, Surroundings, Views
from benchmarks.training.costs import Spent
from benchmarks.training.execution import Execution
from benchmarks.training.kept_scores import KeptScores, Validated
from benchmarks.training.memory import check_halving, in_smaller_parts
from benchmarks.training.outcome import headline, judged, score_arrays, selected
from benchmarks.training.resuming import SavedRun
from benchmarks.training.steps import Stepper
from datasets.base import PHASES, Candidates, CompositionDataset, Phase
from datasets.loaders import dead_worker
from errors import UserError, counted
from methods.base import Batch, Method


class Judge:
    """Evaluates the method of one run folder. `method` is on the device and freshly built.

    An open world with a threshold needs a data set with feasibility scores.

    world: chooses and applies the threshold; None where no pair is removed
    progress: of the training, if the method trains; it says which epoch counts
    failure: why its evaluation failed while other runs of the same training go on
    stepper: takes the optimizer steps; None before training begins
    surroundings: `notify` is told what is also noted in the record
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        method: Method,
        dataset: CompositionDataset,
        execution: Execution,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.spec, self.folder, self.method = spec, folder, method
        self.dataset, self.execution = dataset, execution
        self.surroundings = surroundings = surroundings or Surroundings()
        self.report, self.store = surroundings.report, surroundings.store
        self.progress, self.kept = Progress(), KeptScores()
        self.failure: Exception | None = None
        self.stepper: Stepper | None = None
        self.config: TrainingConfig = spec.training
        self.validation = Sizes.of(dataset, "val")
        self.rule = Rule.of(self.config.selection, self.validation)
        self.group = execution.group
        self.store_seconds = self.store.seconds
        self.candidates: dict[Phase, Candidates] = {phase: dataset.candidates(phase, spec.world) for phase in PHASES}
        self.batches = {phase: self._phase_batches(phase, pairs) for phase, pairs in self.candidates.items()}
        self.world = None
        if spec.open_world is not None:
            self.world = ThresholdedWorld(spec.open_world, self.candidates["val"], self.group.join)
        # What validation selects the epoch by: another world than the reported one where the run says so.
        self.selection_candidates, self.selection_batches = self.candidates["val"], self.batches["val"]
        if spec.open_world is not None and spec.open_world.selection_world != spec.world:
            self.selection_candidates = dataset.candidates("val", spec.open_world.selection_world)
            self.selection_batches = self._phase_batches("val", self.selection_candidates)

    def _phase_batches(self, phase: Phase, candidates: Candidates) -> PhaseBatches:
        views = Views(self.config.augmentation if phase == "train" else "none", self.spec.seed, self.config.views)
        around = replace(self.surroundings, notify=self._notify)
        return PhaseBatches(self.method, self.dataset, phase, candidates, self.execution, views, around)

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method.info.trains and self.config.epochs > 0

    @property
    def saved(self) -> SavedRun:
        """The best weights of the run, in its folder."""
        return SavedRun(self.spec.run_id, self.folder, self.execution)

    def fail(self, error: Exception) -> None:
        """Record why the run ends while others of its training go on."""
        self.failure = dead_worker(error) or error
        if self.group.leads:
            with suppress(UserError):  # the disk that failed the run may not take in why
                self.folder.fail(self.failure)

    def conclude(self) -> Result:
        """Evaluate the selected epoch and return the result to be recorded."""
        if self.trains:
            self.method.load_checkpoint(self.saved.best(self.progress.best_epoch))
        return self._final()

    def score(self, phase: Phase) -> tuple[ImageScores, Labels]:
        """Score a phase's images against its candidates; in a world with thresholds, "val" chooses one."""
        candidates, chunk = self.candidates[phase], self.execution.pair_chunk
        labels = self._labels(phase, candidates)

        def score() -> ImageScores:
            batches = self._watched(self.batches[phase].ordered())
            with self.execution.autocast():
                if self.world is None:
                    top = KEPT if phase == "test" else 0
                    return self.group.join(score_images(self.method, batches, candidates, pair_chunk=chunk, top=top))
                if phase == "val":
                    return self.world.validate(self.method, batches, labels, chunk)
                return self.world.score(self.method, batches, chunk)

        return in_smaller_parts(score, self._halve_eval_batch), labels

    def _halve_eval_batch(self) -> None:
        size = self.execution.eval_batch
        check_halving(size, self.method.info.name, self.execution.device, self.group.size)
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
            return self._validated()[1]

        def score() -> ImageScores:
            batches = self._watched(self.selection_batches.ordered())
            with self.execution.autocast():
                return score_images(
                    self.method, batches, self.selection_candidates, pair_chunk=self.execution.pair_chunk
                )

        scores = in_smaller_parts(score, self._halve_eval_batch)
        return evaluate(self.group.join(scores), self._labels("val", self.selection_candidates))

    def epoch_metrics(self) -> tuple[Metrics, float]:
        """Return what decides about an epoch: validation metrics, and the validation loss where the rule reads it."""
        metrics = self.selection_metrics()
        return metrics, self.validation_loss() if self.rule.used in LOSSES else math.nan

    def record_epoch(self, epoch: int, metrics: Metrics, loss: float, about: Mapping[str, Any]) -> None:
        """Judge an epoch by its `epoch_metrics` and append it to the record. about: what its training says of it."""
        value, progress = self.rule.value(metrics, loss, epoch), self.progress
        if progress.best_epoch < 0 or counts_more(value, progress.best_value):
            progress.best_epoch, progress.best_value = epoch, value
        order = ("epoch", "losses", "lr", "val", "best_epoch", "micro_batch", "train_seconds", "val_seconds")
        known = {"epoch": epoch, "val": self._epoch_numbers(metrics, loss), "best_epoch": progress.best_epoch, **about}
        self.folder.append_epoch({key: known[key] for key in order if key in known})

    def _epoch_numbers(self, metrics: Metrics, loss: float) -> dict[str, float]:
        numbers = headline(metrics, loss)
        if self.world is not None and self.selection_batches is self.batches["val"]:
            numbers["threshold"] = self.world.threshold
        return numbers

    def evaluate(self, phase: Phase, bias: float | None = None) -> tuple[tuple[ImageScores, Labels], Metrics]:
        """Score a phase and return the record with its metrics."""
        scored = self.score(phase)
        return scored, evaluate(*scored, bias=bias)

    def _validated(self) -> Validated:
        """Return `evaluate("val")`, kept from the epoch that left these weights if it is; a threshold is searched."""
        if self.world is not None:
            return self.evaluate("val")
        own = (self.method, self.spec.world, self.execution.eval_batch)
        return self.kept.get(*own, lambda: (self.evaluate("val"), self.execution.eval_batch))

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss that the rule reads (`LOSSES`): the mean over batches, as the released codes average it."""
        self.method.eval()  # the next epoch begins by setting the mode it wants
        images, size = self.selection_batches, self.config.selection_batch or self.config.batch_size
        start, batches = last_batch(len(images), size) if self.rule.used == "last_batch_loss" else (0, None)

        def losses() -> list[tuple[int, float]]:
            with self.execution.autocast():
                prepared = self.method.prepare(self.selection_candidates)
                encoded = map(self.method.encode, self._watched(images.ordered(start)))
                return [(len(batch), self.method.validation_losses(batch, prepared).total.item()) for batch in encoded]

        own = in_smaller_parts(losses, self._halve_eval_batch)
        found = [part for parts in self.group.gather(json.dumps(own).encode()) for part in json.loads(parts)]
        return averaged(found, batches)

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches until a stop is asked for; several processes stop together, where they meet next."""
        return batches if self.group.size > 1 else stopping.watched(batches)

    def _notify(self, message: str) -> None:
        self.folder.note(message)
        self.surroundings.notify(message)

    def _final(self) -> Result:
        self.method.on_final_evaluation()
        self.report("evaluating", 0, 2, "")
        (val_scores, _), val = self._validated()
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
        selection = selected(self.config.selection, self.rule, self.progress if self.trains else None, bias, no_bias)
        epochs, features = self.folder.epochs(), self.store.seconds - self.store_seconds
        elsewhere = self.spec.imported is not None
        spent = Spent(self.method, epochs, self.batches, self.execution, self.stepper, features, elsewhere)
        return Result(
            run_id=self.spec.run_id,
            selection=selection,
            metrics=PhaseMetrics(val=val, test=test),
            **judged(*about, scores, test_labels, bias),
            cost=spent.cost(len(test_scores), test_seconds),
        )
