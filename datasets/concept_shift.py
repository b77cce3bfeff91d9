"""Second images that share a primitive with the first: which samples get one, and which (CAILA's concept shift).

A shifted sample keeps its state and takes another object that is seen with it in training, or the other way round; the
second image shows the new primitive, whatever the other one is. Each sample's draw has a stream of its own, named by
(seed, epoch, image), so it depends neither on the batch nor on how many workers there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.streams import stream

Primitive = Literal["state", "object"]


@dataclass(frozen=True)
class ShiftRule:
    """How often samples get a second image.

    probability: of a sample being shifted, in each epoch anew
    object_share: of a shift being one of the object and not of the state
    without_alternative: what becomes of a sample whose kept primitive is seen with nothing else: "replace_image" keeps
        its labels and gives it another image of its primitive (possibly itself), as released; "skip" leaves it alone
    """

    probability: float = 0.1
    object_share: float = 0.5
    without_alternative: Literal["skip", "replace_image"] = "skip"


@dataclass(frozen=True)
class Shift:
    """What is put in the place of one primitive of a sample.

    shifted: the primitive that is replaced
    image: row of the split of the second image
    state, object: labels of the sample afterwards
    """

    shifted: Primitive
    image: int
    state: int
    object: int


class ConceptShift:
    """Draws the shifts of the images of a split with labels `states`, `objects`, int64 [N]."""

    def __init__(self, rule: ShiftRule, states: NDArray[np.int64], objects: NDArray[np.int64]) -> None:
        self.rule, self.states, self.objects = rule, states, objects

    @cached_property
    def _seen(self) -> NDArray[np.int64]:
        return np.unique(np.stack([self.states, self.objects], axis=1), axis=0)

    def draw(self, image: int, seed: int, epoch: int) -> Shift | None:
        """Return the shift of an image (row of the split) in an epoch; None where there is none."""
        random = stream("concept shift", seed, epoch, image)
        if random.random() >= self.rule.probability:
            return None
        own = (int(self.states[image]), int(self.objects[image]))
        # The column of a pair that is replaced: 1 is the object.
        replaced = 1 if random.random() < self.rule.object_share else 0
        beside = self._seen[self._seen[:, 1 - replaced] == own[1 - replaced], replaced]
        others = beside[beside != own[replaced]]
        if not len(others) and self.rule.without_alternative == "skip":
            return None
        new = int(random.choice(others)) if len(others) else own[replaced]
        images = np.flatnonzero((self.objects if replaced else self.states) == new)
        chosen = int(random.choice(images))
        return Shift("object", chosen, own[0], new) if replaced else Shift("state", chosen, new, own[1])
