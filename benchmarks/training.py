"""The one training loop: epochs, validation, selection, checkpoint, exact resume, and the final evaluation.

Every random draw comes from a stream named by (seed, use, epoch): the initial weights, the order of images, the
augmented views, dropout. A run that was killed and started again therefore takes the same steps as one that was not.
"""

from __future__ import annotations

import io
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks import breakdowns, files
from benchmarks.batches import Execution, FeatureStore, PhaseBatches
from benchmarks.evaluation import Labels, Metrics, evaluate
from benchmarks.image_scores import ImageScores
from benchmarks.legacy import legacy_from_image_scores
from benchmarks.open_world import ThresholdedWorld
from benchmarks.optimizers import make_optimizer
from benchmarks.records import RunFolder
from benchmarks.scoring import score_images
from benchmarks.spec import RunSpec, TrainingConfig
from datasets.base import Candidates, CompositionDataset, Phase
from datasets.transforms import derived_seed
from errors import UserError
from methods.base import Method

BEST, STATE = "best.safetensors", "state.pt"

Report = Callable[[str, int, int, str], None]
"""Progress: (what is being done, steps done, steps in all, a word on how it goes)."""


def silent(what: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


SELECTIONS: Mapping[str, Callable[[Metrics, float, int], float]] = {
    "val_auc": lambda metrics, loss, epoch: metrics.auc,
    "val_hm": lambda metrics, loss, epoch: metrics.best_hm,
    "val_unseen": lambda metrics, loss, epoch: metrics.best_unseen,
    "val_loss": lambda metrics, loss, epoch: -loss,
    "last": lambda metrics, loss, epoch: float(epoch),
}
"""Which epoch counts, by (validation metrics, validation loss, epoch): the largest value, the earliest on ties. None of
them sees test data. The loss is computed for "val_loss" alone and NaN otherwise."""


@dataclass
class Progress:
    """What resuming needs to know beside the tensors. best_epoch is -1 before the first epoch."""

    next_epoch: int = 0
    best_epoch: int = -1
    best_value: float = -math.inf


class Trainer:
    """Trains and evaluates one method in one run folder. `method` is on the device and freshly built.

    An open world with a threshold needs a data set with feasibility scores. world: None where no pair is removed.
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
    ) -> None:
        self.spec, self.folder, self.method = spec, folder, method
        self.dataset, self.execution, self.report = dataset, execution, report
        self.config: TrainingConfig = spec.training
        self.group = execution.group
        self.candidates: dict[Phase, Candidates] = {
            phase: dataset.candidates(phase, spec.world) for phase in ("train", "val", "test")
        }
        self.batches: dict[Phase, PhaseBatches] = {
            phase: self._phase_batches(phase, self.candidates[phase], store) for phase in ("train", "val", "test")
        }
        self.world = None
        if spec.open_world is not None:
            self.world = ThresholdedWorld(spec.open_world, self.candidates["val"], self.group.join)
        # What validation selects the epoch by: another world than the reported one where the run says so.
        self.selection_candidates, self.selection_batches = self.candidates["val"], self.batches["val"]
        if spec.open_world is not None and spec.open_world.selection_world != spec.world:
            self.selection_candidates = dataset.candidates("val", spec.open_world.selection_world)
            self.selection_batches = self._phase_batches("val", self.selection_candidates, store)

    def _phase_batches(self, phase: Phase, candidates: Candidates, store: FeatureStore | None) -> PhaseBatches:
        return PhaseBatches(
            self.method,
            self.dataset,
            phase,
            candidates,
            self.execution,
            augmentation=self.config.augmentation if phase == "train" else "none",
            seed=self.spec.seed,
            store=store,
        )

    def run(self) -> dict[str, Any]:
        """Train from wherever the folder stands, evaluate the selected epoch and return the result to be recorded."""
        progress = Progress()
        if self.trains:
            self.group.attach(self.method, self.config.micro_batch or self.config.batch_size)
            progress = self._train()
            self.group.barrier()  # until the weights are written
            self.method.load_checkpoint(load_file(self.folder.path / BEST, device=str(self.execution.device)))
        return self._final(progress)

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.method.info.trains and self.config.epochs > 0

    # Training ---------------------------------------------------------------------------------------------------------

    def _train(self) -> Progress:
        optimizer, scheduler = make_optimizer(self.method, self.config)
        scaler = torch.amp.GradScaler(self.execution.device.type, enabled=self.execution.precision == "fp16")
        progress = self._resume(optimizer, scheduler, scaler)
        for epoch in range(progress.next_epoch, self.config.epochs):
            start = time.perf_counter()
            losses = self._epoch(epoch, optimizer, scaler)
            scheduler.step()
            self.group.check_equal(self.method.checkpoint())
            trained = time.perf_counter()
            metrics = self.selection_metrics()
            loss = self.validation_loss() if self.config.selection == "val_loss" else math.nan
            value = SELECTIONS[self.config.selection](metrics, loss, epoch)
            progress.next_epoch = epoch + 1
            if progress.best_epoch < 0 or value > progress.best_value:
                progress.best_epoch, progress.best_value = epoch, value
                self._write(BEST, save(_contiguous(self.method.checkpoint()), {"run_id": self.spec.run_id}))
            self.folder.append_epoch(
                {
                    "epoch": epoch,
                    "losses": losses,
                    "lr": optimizer.param_groups[0]["lr"],
                    "val": self._epoch_numbers(metrics, loss),
                    "best_epoch": progress.best_epoch,
                    "train_seconds": trained - start,
                    "val_seconds": time.perf_counter() - trained,
                }
            )
            # Last of the epoch: a kill before this line repeats the epoch, with the same numbers.
            self._checkpoint(progress, optimizer, scheduler, scaler)
            self.report("training", epoch + 1, self.config.epochs, f"val AUC {metrics.auc:.3f}")
        return progress

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> dict[str, float]:
        """Take an epoch's optimizer steps; return each loss term's mean over images."""
        torch.manual_seed(derived_seed("training", self.spec.seed, epoch))  # dropout and whatever else a method draws
        self.method.train()
        self.method.on_epoch_start(epoch)
        config, images = self.config, len(self.batches["train"])
        micro = config.micro_batch or config.batch_size
        sums: dict[str, float] = {}
        done = 0
        optimizer.zero_grad(set_to_none=True)
        batches = self.batches["train"].epoch(epoch, micro)
        # Where several processes train, a batch is this one's share, and `total` counts the images of all.
        for batch, share in zip(batches, self.group.shares(images, micro), strict=True):
            # Mean over the images of the effective batch, also where the last one is smaller.
            group = min(config.batch_size, images - done // config.batch_size * config.batch_size)
            with self.group.sharing(share):
                with self.execution.autocast():
                    losses = self.method.training_loss(batch, self.candidates["train"])
                total = losses.total.item()
                if not math.isfinite(total):
                    raise diverged(self.method.info.name, epoch, done, total)
                scaler.scale(losses.total * (share.count / group)).backward()
            for name, term in {"total": losses.total, **losses.terms}.items():
                sums[name] = sums.get(name, 0.0) + term.item() * share.count
            done += share.total
            if done % config.batch_size == 0 or done == images:
                self.group.add_gradients(self.method.trained().values())
                if config.clip_norm is not None:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(self.method.trained().values(), config.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                self.method.after_step()
            self.report(f"epoch {epoch + 1} of {config.epochs}", done, images, f"loss {total:.3f}")
        totals = self.group.sums(sums.values())
        return {name: value / images for name, value in zip(sums, totals, strict=True)}

    # Checkpoint and resume --------------------------------------------------------------------------------------------

    def _checkpoint(self, progress: Progress, optimizer: Any, scheduler: Any, scaler: Any) -> None:
        buffer = io.BytesIO()
        state = {"method": self.method.checkpoint(), "optimizer": optimizer.state_dict()}
        state |= {"scheduler": scheduler.state_dict(), "scaler": scaler.state_dict(), "progress": asdict(progress)}
        torch.save(state, buffer)
        self._write(STATE, buffer.getvalue())

    def _resume(self, optimizer: Any, scheduler: Any, scaler: Any) -> Progress:
        """Continue from the folder's checkpoint, or from the beginning where there is none."""
        path = self.folder.path / STATE
        if not path.is_file():
            self.folder.resume_at(0)
            return Progress()
        try:
            state = torch.load(path, map_location=self.execution.device, weights_only=True)
            self.method.load_checkpoint(state["method"])
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
            scaler.load_state_dict(state["scaler"])
            progress = Progress(**state["progress"])
        except Exception as error:  # a damaged file fails in as many ways as torch has readers
            raise UserError(
                f"The checkpoint {path} cannot be read ({type(error).__name__}).",
                "Finished epochs are in epochs.jsonl, but training cannot go on from a damaged state.",
                "Start the run anew with --on-existing redo.",
            ) from error
        self.folder.resume_at(progress.next_epoch)
        return progress

    def _write(self, name: str, content: bytes) -> None:
        if self.group.leads:
            files.write_aside(self.folder.path / name, lambda file: file.write(content))

    # Evaluation -------------------------------------------------------------------------------------------------------

    def score(self, phase: Phase) -> tuple[ImageScores, Labels]:
        """Score a phase's images against its candidates; in a world with thresholds, "val" chooses one."""
        candidates, chunk = self.candidates[phase], self.execution.pair_chunk
        labels, batches = self._labels(phase, candidates), self.batches[phase].ordered()
        with self.execution.autocast():
            if self.world is None:
                scores = self.group.join(score_images(self.method, batches, candidates, pair_chunk=chunk))
            elif phase == "val":
                scores = self.world.validate(self.method, batches, labels, chunk)
            else:
                scores = self.world.score(self.method, batches, chunk)
        return scores, labels

    def _labels(self, phase: Phase, candidates: Candidates) -> Labels:
        split = self.dataset.splits[phase]
        return Labels(candidates.states, candidates.objects, split.states, split.objects)

    def selection_metrics(self) -> Metrics:
        """Return the validation metrics that decide about the epoch, in the world that the run selects by."""
        if self.selection_batches is self.batches["val"]:
            return self.evaluate("val")[1]
        with self.execution.autocast():
            scores = score_images(
                self.method,
                self.selection_batches.ordered(),
                self.selection_candidates,
                pair_chunk=self.execution.pair_chunk,
            )
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
        with self.execution.autocast():
            prepared = self.method.prepare(self.selection_candidates)
            losses = [
                self.method.validation_losses(self.method.encode(batch), prepared).total.item()
                for batch in self.selection_batches.ordered()
            ]
        every = [loss for part in self.group.gather(json.dumps(losses).encode()) for loss in json.loads(part)]
        return sum(every) / len(every)

    def _final(self, progress: Progress) -> dict[str, Any]:
        self.method.on_final_evaluation()
        self.report("evaluating", 0, 2, "")
        (val_scores, _), val = self.evaluate("val")
        self.report("evaluating", 1, 2, "")
        start = time.perf_counter()
        test_scores, test_labels = self.score("test")
        test_seconds = time.perf_counter() - start
        bias = val.best_hm_bias
        test = evaluate(test_scores, test_labels, bias=bias)
        self._write_scores({"val": val_scores, "test": test_scores})
        epochs = self.folder.epochs()
        train_seconds = sum(record["train_seconds"] for record in epochs)
        images = len(self.batches["train"]) * len(epochs)
        self.report("evaluating", 2, 2, f"test AUC {test.auc:.3f}")
        return {
            "run_id": self.spec.run_id,
            "selection": {
                "policy": self.config.selection if self.trains else "nothing to select",
                "epoch": progress.best_epoch if self.trains else None,
                "value": progress.best_value if self.trains else None,
                "bias": bias,
            },
            "metrics": {"val": asdict(val), "test": asdict(test)},
            **({} if self.world is None else {"open_world": self.world.describe(self.dataset)}),
            "legacy": {"test": _plain(asdict(legacy_from_image_scores(test_scores, test_labels)))},
            "slices": [
                asdict(row)
                for row in breakdowns.slice_accuracies(
                    test_scores, test_labels, self.dataset.splits["test"].slices, bias=bias
                )
            ],
            "errors": asdict(breakdowns.error_kinds(test_scores, test_labels, bias=bias)),
            "macro": asdict(breakdowns.macro_accuracies(test_scores, test_labels, bias=bias)),
            "calibration": _plain(asdict(breakdowns.calibration(test_scores, bias=bias))),
            "counts": {
                "train_images": len(self.batches["train"]),
                "val_images": len(val_scores),
                "test_images": len(test_scores),
                **{f"{phase}_candidates": len(candidates) for phase, candidates in self.candidates.items()},
            },
            **({"left_out_images": list(self.dataset.left_out)} if self.dataset.left_out else {}),
            "cost": {
                "trained_parameters": sum(p.numel() for p in self.method.trained().values()),
                "train_seconds": train_seconds,
                "train_images_per_second": images / train_seconds if train_seconds > 0 else None,
                "test_seconds": test_seconds,
                "test_images_per_second": len(test_scores) / test_seconds if test_seconds > 0 else None,
                "peak_memory_bytes": peak_memory(self.execution.device),
            },
        }

    def _write_scores(self, scores: Mapping[str, ImageScores]) -> None:
        """Keep per image what every metric, test and picture can be made from: scores, targets, slices, names."""
        vocabulary = self.dataset.vocabulary
        arrays: dict[str, np.ndarray] = {
            "names.states": np.asarray(vocabulary.states, dtype=np.str_),
            "names.objects": np.asarray(vocabulary.objects, dtype=np.str_),
        }
        for phase, record in scores.items():
            candidates, split = self.candidates[phase], self.dataset.splits[phase]
            content = record.to_arrays() | {"states": split.states, "objects": split.objects}
            content |= {"candidate_pairs": candidates.pairs, "candidate_seen": candidates.seen}
            content["images"] = np.asarray(split.images, dtype=np.str_)
            if self.world is not None:
                content["candidate_kept"] = self.world.kept
            content |= {f"tag.{name}": np.asarray(values, dtype=np.str_) for name, values in split.slices.items()}
            arrays |= {f"{phase}.{name}": values for name, values in content.items()}
        self.folder.write_arrays(arrays)


def headline(metrics: Metrics) -> dict[str, float]:
    """Return the numbers that an epoch's record keeps."""
    names = ("auc", "best_hm", "best_seen", "best_unseen", "gate")
    return {name: getattr(metrics, name) for name in names}


def diverged(method: str, epoch: int, images: int, value: float) -> UserError:
    """Return the error of a loss that is no number any more."""
    return UserError(
        f"The training loss of {method} became {value} in epoch {epoch + 1} after {images} images.",
        "Finished epochs and the checkpoint before this epoch are kept.",
        f"Lower the learning rate (--set {method}.lr=...) or train in fp32 (--precision fp32).",
    )


def peak_memory(device: torch.device) -> int:
    """Return the largest memory in bytes: of the accelerator, or on the CPU of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in record.items()}


def forget_state(folder: RunFolder) -> None:
    """Remove what only resuming needs, after the result is written."""
    (folder.path / STATE).unlink(missing_ok=True)
