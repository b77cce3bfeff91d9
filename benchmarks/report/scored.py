"""What a finished run kept of its test images, as figures and tests need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.curve import Curve, exact_curve
from benchmarks.image_scores import ImageScores, Labels
from benchmarks.records import RunFolder, RunRecord


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
        return float(self.run.result["selection"]["bias"])  # type: ignore[index]

    def predictions(self, bias: float) -> np.ndarray:
        """Return the predicted column of each image at a bias, int64 [N]; -1 where there is no candidate at all."""
        scores = self.scores
        unseen = (scores.margins < bias) | (scores.seen_winner < 0)
        return np.where(unseen & (scores.unseen_winner >= 0), scores.unseen_winner, scores.seen_winner)

    def predicted_states(self, bias: float) -> np.ndarray:
        """Return the state index of each image's prediction, int64 [N]; -1 without a prediction."""
        return np.append(self.labels.candidate_states, -1)[self.predictions(bias)]


def read_scored(run: RunRecord, phase: str = "test") -> Scored:
    """Return a finished run's per-image record; a missing or damaged file is a `UserError`."""
    stored = RunFolder(run.path).read_arrays()
    arrays = {name.removeprefix(f"{phase}."): value for name, value in stored.items() if name.startswith(f"{phase}.")}
    pairs = arrays["candidate_pairs"]
    labels = Labels(pairs[:, 0], pairs[:, 1], arrays["states"], arrays["objects"])
    names = {
        # A record from before names were kept shows numbers.
        kind: tuple(stored.get(f"names.{kind}s", [f"{kind} {index}" for index in range(pairs[:, place].max() + 1)]))
        for place, kind in enumerate(("state", "object"))
    }
    scores = ImageScores.from_arrays(arrays)
    return Scored(run, scores, labels, names["state"], names["object"], tuple(arrays.get("images", ())))
