"""Phases of a data set without seen or without unseen images: said before training and where a number is missing.

Pure numpy. The AUC, best HM and the bias chosen on validation need images of both groups, S and U those of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errors import UserError

if TYPE_CHECKING:
    from datasets.base import CompositionDataset, Phase

GAP = "–"
"""What stands where there is no number."""

BY_UNSEEN = "the accuracy of validation's unseen images"
BY_NOTHING = "its place, the smallest one"
"""What chooses a threshold of the open world where validation defines no AUC, in words."""


@dataclass(frozen=True)
class Sizes:
    """How many images of a phase are of seen and of unseen pairs."""

    seen: int
    unseen: int

    @classmethod
    def of(cls, dataset: CompositionDataset, phase: Phase) -> Sizes:
        """Count a phase's images."""
        split = dataset.splits[phase]
        seen = int(dataset.seen[split.states, split.objects].sum())
        return cls(seen, len(split) - seen)

    def lacks(self, what: str) -> str:
        """Return in words which images are not there, "" if both groups are.

        >>> Sizes(3, 0).lacks("validation")
        'validation has no unseen images'
        """
        if self.seen and self.unseen:
            return ""
        if not self.seen and not self.unseen:
            return f"{what} has no images"
        return f"{what} has no {'unseen' if self.seen else 'seen'} images"


def check_not_empty(dataset: CompositionDataset) -> None:
    """Refuse a data set without any training or test image, as a `UserError`."""
    for phase in ("train", "test"):
        if len(dataset.splits[phase]) == 0:
            raise UserError(
                f"The data set {dataset.name} cannot be used.",
                f"It has no {phase} images.",
                f"Give {phase} images of its pairs; docs/add_a_dataset.md says what a data set must have.",
            )


def shown(value: float | None, pattern: str = "{:.4f}") -> str:
    """Return a number as text, or a gap where it is undefined.

    >>> shown(0.25), shown(float("nan")), shown(None)
    ('0.2500', '–', '–')
    """
    return GAP if value is None or math.isnan(value) else pattern.format(value)
