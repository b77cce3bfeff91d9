"""What a comparison starts from: the per-image record of one trained model on one test set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores, Labels
from errors import UserError


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """One run on N test images.

    bias: the one chosen on validation, NaN if validation has none. seed: its training seed. trained: False for a method
    without training, which is the same with every seed.
    """

    scores: ImageScores
    labels: Labels
    bias: float = np.nan
    seed: int = 0
    trained: bool = True

    def __post_init__(self) -> None:
        if len(self.labels.states) != len(self.scores) or len(self.labels.objects) != len(self.scores):
            raise ValueError(f"labels of {len(self.labels.states)} images were given for {len(self.scores)} images")

    def __len__(self) -> int:
        return len(self.scores)


def check_same_images(named: Iterable[tuple[str, ScoredRun]]) -> None:
    """Refuse runs that were not judged on the same test images with the same labels, as a `UserError` naming two.

    A paired comparison of different images gives numbers without meaning. The candidates may differ.
    """
    named = list(named)
    first_name, first = named[0]
    for name, run in named[1:]:
        if len(run) != len(first):
            there = f"One has {len(first)} test images, the other {len(run)}."
        else:
            differing = (run.labels.states != first.labels.states) | (run.labels.objects != first.labels.objects)
            differing |= run.scores.is_seen != first.scores.is_seen
            if not differing.any():
                continue
            there = f"{differing.sum()} of their {len(run)} test images have other labels."
        raise UserError(
            f"{first_name} and {name} cannot be compared image by image.",
            there,
            "Compare runs on one data set, split and world.",
        )
