"""Validation scores of the epochs, kept until the end: those of the selected epoch are not made twice.

They are found by what made them and not by the number of an epoch: the weights, the images at once, and what else the
method says decides about scores. A run that was resumed does not have those of earlier epochs, and makes them again,
with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.metrics import Labels, Metrics
from datasets.base import World
from methods.backbone.blocks import weights_digest
from methods.base import Method

Validated = tuple[tuple[ImageScores, Labels], Metrics]
"""What `Judge.evaluate` returns."""


@dataclass
class KeptScores:
    """Some dozen numbers for each validation image and epoch. found: how often scores were there already."""

    kept: dict[str, Validated] = field(default_factory=dict)
    found: int = 0

    def get(
        self, method: Method, world: World, eval_batch: int, make: Callable[[], tuple[Validated, int]]
    ) -> Validated:
        """Return the scores of a method as it is, from an earlier call or from `make`.

        make: returns with them how many images there were at once in the end, which may be fewer than `eval_batch`.
        """
        rules = method.scoring(world)
        if rules is None:
            return make()[0]
        state = f"{rules} {weights_digest(method.checkpoint())}"
        there = self.kept.get(f"{state} {eval_batch}")
        if there is not None:
            self.found += 1
            return there
        validated, eval_batch = make()
        return self.kept.setdefault(f"{state} {eval_batch}", validated)
