"""What a finished run kept of its test images, as figures and tests need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.evaluation.curve import Curve, exact_curve
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import mean_or_nan, pair_credit
from benchmarks.report.scored_runs import phase_arrays, scores_and_labels, validation_bias
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.significance.paired import predictions
from datasets.base import Phase


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


def read_scored(run: RunRecord, phase: Phase = "test") -> Scored:
    """Return a finished run's per-image record; a missing or damaged file is a `UserError`."""
    stored = RunFolder(run.path).read_arrays()
    arrays = phase_arrays(stored, phase)
    scores, labels = scores_and_labels(arrays)
    names = {
        # A record from before names were kept shows numbers.
        kind: tuple(stored.get(f"names.{kind}s", [f"{kind} {index}" for index in range(column.max() + 1)]))
        for kind, column in (("state", labels.candidate_states), ("object", labels.candidate_objects))
    }
    return Scored(run, scores, labels, names["state"], names["object"], tuple(arrays.get("images", ())))
