"""What finished runs kept of their test images: with names and curve for figures, bare for the tests of significance.

runs = scored_runs({"CSP": csp_records, "Troika": troika_records})
compare(runs, baseline="CSP")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.evaluation.curve import Curve, exact_curve
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import mean_or_nan, pair_credit
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.significance.paired import predictions
from benchmarks.significance.runs import ScoredRun, check_same_images
from datasets.base import Phase
from errors import UserError


def phase_arrays(stored: Mapping[str, np.ndarray], phase: Phase) -> dict[str, np.ndarray]:
    """Return what a run keeps of one phase, by name."""
    return {name.removeprefix(f"{phase}."): values for name, values in stored.items() if name.startswith(f"{phase}.")}


def scores_and_labels(own: Mapping[str, np.ndarray]) -> tuple[ImageScores, Labels]:
    """Return the per-image record of a phase; KeyError or ValueError if an array is missing or does not fit."""
    pairs = own["candidate_pairs"]
    return ImageScores.from_arrays(own), Labels(pairs[:, 0], pairs[:, 1], own["states"], own["objects"])


def validation_bias(record: RunRecord) -> float:
    """Return the bias that a finished run chose on validation; NaN where there was none to choose."""
    return float(record.finished.selection.bias)


@dataclass(frozen=True, eq=False)
class Scored:
    """A run with the per-image record of a phase. states, objects: the vocabulary; images: names, () in old records."""

    run: RunRecord
    scores: ImageScores
    labels: Labels
    states: Sequence[str]
    objects: Sequence[str]
    images: Sequence[str]

    @cached_property
    def curve(self) -> Curve:
        """The exact seen-unseen curve."""
        return exact_curve(self.scores)

    @property
    def bias(self) -> float:
        """The bias that was chosen on validation."""
        return validation_bias(self.run)

    @cached_property
    def merit(self) -> float:
        """What runs are put in order by: the AUC, or where a group has no images the accuracy at the chosen bias."""
        if not np.isnan(self.curve.auc):
            return self.curve.auc
        return mean_or_nan(pair_credit(self.scores, self.bias))

    @property
    def merit_name(self) -> str:
        """What `merit` is, in words."""
        return "accuracy" if np.isnan(self.curve.auc) else "AUC"

    def predictions(self, bias: float) -> np.ndarray:
        """Return the predicted column of each image at a bias, int64 [N]; -1 where there is no candidate at all."""
        return predictions(self.scores, bias)

    def predicted_states(self, bias: float) -> np.ndarray:
        """Return the state index of each image's prediction, int64 [N]; -1 without a prediction."""
        return np.append(self.labels.candidate_states, -1)[self.predictions(bias)]


def read_scored(run: RunRecord) -> Scored:
    """Return a finished run's per-image record of the test phase; a missing or damaged file is a `UserError`."""
    stored = RunFolder(run.path).read_arrays()
    arrays = phase_arrays(stored, "test")
    scores, labels = scores_and_labels(arrays)
    names = {
        # A record from before names were kept shows numbers.
        kind: tuple(stored.get(f"names.{kind}s", [f"{kind} {index}" for index in range(column.max() + 1)]))
        for kind, column in (("state", labels.candidate_states), ("object", labels.candidate_objects))
    }
    return Scored(run, scores, labels, names["state"], names["object"], tuple(arrays.get("images", ())))


def scored_run(record: RunRecord) -> ScoredRun:
    """Read a run's per-image record of the test phase; an unfinished run or an incomplete file is a `UserError`."""
    if record.result is None:
        raise UserError(
            f"The run {record.run_id} cannot be compared.",
            f"It is {record.status}, not done.",
            "Finish it with bench.py run, or leave it out.",
        )
    try:
        own = phase_arrays(RunFolder(record.path).read_arrays(), "test")
        scores, labels = scores_and_labels(own)
        parameters = record.result.cost.trained_parameters
        trained = parameters is None or parameters > 0  # of scores from a file nobody knows; a seed may change them
        return ScoredRun(scores, labels, validation_bias(record), record.spec.seed, trained=trained)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"The per-image scores of {record.run_id} cannot be used.",
            f"Reading its test images gives {type(error).__name__}: {error}.",
            "Restore the folder, or remove it and run it again.",
        ) from error


def scored_runs(records: Mapping[str, Sequence[RunRecord]]) -> dict[str, list[ScoredRun]]:
    """Read the runs of several methods for a comparison on the same images.

    `UserError` if the runs are of different data sets, data releases or worlds, or of other images or labels.
    """
    every = [record for own in records.values() for record in own]
    for record in every[1:]:
        for name in ("dataset", "dataset_digest", "world", "protocol_version"):
            ours, theirs = getattr(every[0].spec, name), getattr(record.spec, name)
            if ours != theirs:
                raise UserError(
                    f"{every[0].run_id} and {record.run_id} cannot be compared.",
                    f"Their {name.replace('_', ' ')} differs: {str(ours)[:20]} and {str(theirs)[:20]}.",
                    "Compare runs on one data set and in one world.",
                )
    runs = {name: [scored_run(record) for record in own] for name, own in records.items()}
    if every:
        check_same_images((f"{name}, seed {run.seed},", run) for name, own in runs.items() for run in own)
    return runs
