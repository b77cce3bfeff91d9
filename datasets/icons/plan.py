"""Which images icon_states has: its pair lists, and every image with its name and clutter. Nothing is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets.base import Pair, Phase
from datasets.icons.paint import STATES
from datasets.icons.render import stream
from datasets.icons.words import CLUTTER, is_plausible, objects

TRAIN_PAIRS, VAL_UNSEEN, TEST_UNSEEN = 350, 65, 85
VAL_SEEN, TEST_SEEN = 90, 120  # seen pairs that also have validation or test images, none both
VAL_IMAGES, TEST_IMAGES = 6, 10  # images of a pair


VERSION = 1  # raise whenever a rendered pixel or a split changes


SEED = 0


@dataclass(frozen=True)
class Plan:
    """The pair lists. `val` and `test` hold seen and unseen pairs, sorted; `train` is in file order."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def unseen(self) -> frozenset[Pair]:
        """The pairs of val and test that have no training images."""
        return frozenset(self.val + self.test) - frozenset(self.train)


@dataclass(frozen=True)
class Drawing:
    """One image of the plan. `name` is its path below images/; `clutter` the second icon or ""."""

    name: str
    state: str
    obj: str
    phase: Phase
    clutter: str


def plan_pairs(seed: int = SEED) -> Plan:
    """Draw the pair lists: every state and object of validation and test occurs in training.

    Unseen pairs are taken only where both primitives keep enough training pairs (4 per object, 10 per state).
    """
    rng = stream("icon_states", VERSION, seed, "pairs")
    words = objects()
    plausible = [(state, obj) for state in STATES for obj in words if is_plausible(state, obj)]
    order = [plausible[i] for i in rng.permutation(len(plausible))]
    total = TRAIN_PAIRS + VAL_UNSEEN + TEST_UNSEEN
    chosen: list[Pair] = []
    count_state, count_object = dict.fromkeys(STATES, 0), dict.fromkeys(words, 0)
    for limit_object in (8, 9, 10, 99):  # objects fill evenly before any gets more
        for pair in order:
            if len(chosen) < total and pair not in chosen and count_object[pair[1]] < limit_object:
                chosen.append(pair)
                count_state[pair[0]] += 1
                count_object[pair[1]] += 1
    unseen: list[Pair] = []
    for state, obj in [chosen[i] for i in rng.permutation(total)]:
        if len(unseen) < VAL_UNSEEN + TEST_UNSEEN and count_state[state] > 10 and count_object[obj] > 4:
            unseen.append((state, obj))
            count_state[state] -= 1
            count_object[obj] -= 1
    train = sorted(set(chosen) - set(unseen))
    seen = [train[i] for i in rng.permutation(len(train))]
    val = sorted(unseen[:VAL_UNSEEN] + seen[:VAL_SEEN])
    test = sorted(unseen[VAL_UNSEEN:] + seen[VAL_SEEN : VAL_SEEN + TEST_SEEN])
    return Plan(tuple(train), tuple(val), tuple(test))


def plan_images(plan: Plan, seed: int = SEED) -> list[Drawing]:
    """List every image in a fixed order. Training pairs have 3 to 40 images, long-tailed, as real data sets have."""
    drawings = []
    phases: dict[Phase, Sequence[Pair]] = {"train": plan.train, "val": plan.val, "test": plan.test}
    for phase, pairs in phases.items():
        for state, obj in pairs:
            rng = stream("icon_states", VERSION, seed, phase, state, obj)
            tail = min(40, 3 + int(rng.geometric(1 / 11)))
            count = {"train": tail, "val": VAL_IMAGES, "test": TEST_IMAGES}[phase]
            for number in range(count):
                clutter = str(rng.choice(CLUTTER)) if rng.random() < 0.4 else ""
                drawings.append(Drawing(f"{state}_{obj}/{phase}-{number:03d}.png", state, obj, phase, clutter))
    return drawings
