"""A compositional split of somebody's own images: drawn from a seed, or checked when it is given.

The rules are those of the published splits: training, validation and test share no image; validation and test hold
images of seen pairs and of unseen ones, which have no training image; every state and every object of validation and
test occurs in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from datasets.base import PHASES, Pair, Phase
from datasets.streams import stream
from errors import UserError

DRAWS = 32  # orders tried when leaving pairs out; only tiny data sets need more than one


@dataclass(frozen=True)
class SplitOptions:
    """How a split is drawn.

    unseen: share of the pairs that training never sees, half of them validation's, half test's
    val, test: share of a seen pair's images that each gets; a pair with three images gives one to each phase
    """

    seed: int = 0
    unseen: float = 0.2
    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        for name in ("unseen", "val", "test"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"The share '{name}' cannot be {getattr(self, name)}.",
                    "It is a part of the pairs or images, above 0 and below 1.",
                    f"Choose another; the default is {getattr(SplitOptions, name)}.",
                )
        if self.val + self.test >= 1:
            raise UserError(
                f"The shares of val ({self.val}) and test ({self.test}) are too large.",
                "Nothing would be left for training.",
                "Choose shares whose sum is well below 1.",
            )


def draw_split(
    labels: Sequence[Pair], contents: Sequence[str], options: SplitOptions, where: str = "the data"
) -> list[Phase]:
    """Return the phase of each image.

    labels: the (state, object) of each image
    contents: the hash of its content; images of a pair with the same content are copies and stay together
    where: what the images come from, for an error

    The result depends on these and on the options alone, not on the order of the images or on their names. Raises
    UserError where there are too few pairs or images for a split.
    """
    copies: dict[Pair, list[str]] = {}
    for label, content in sorted(set(zip(labels, contents, strict=True))):
        copies.setdefault(label, []).append(content)
    pairs = sorted(copies)
    unseen = leave_out(pairs, max(2, round(options.unseen * len(pairs))), options.seed, where)
    phase: dict[tuple[Pair, str], Phase] = {}
    for place, pair in enumerate(unseen):  # in drawn order; test is given the odd one
        phase |= {(pair, content): PHASES[2 - place % 2] for content in copies[pair]}
    couples = 0
    for pair in pairs:
        if pair in unseen:
            continue
        order = stream("own split", options.seed, *pair).permutation(len(copies[pair]))
        n_val, n_test = _shares(len(order), options)
        if len(order) == 2:  # one image is for training, the other for either phase in turn
            n_val, n_test = couples % 2, 1 - couples % 2
            couples += 1
        for rank, index in enumerate(order):
            phase[pair, copies[pair][index]] = PHASES[1 if rank < n_val else 2 if rank < n_val + n_test else 0]
    phases = [phase[label, content] for label, content in zip(labels, contents, strict=True)]
    check_split(labels, phases, where)
    return phases


def leave_out(pairs: Sequence[Pair], wanted: int, seed: int, where: str) -> list[Pair]:
    """Return at most `wanted` pairs to leave out of training, in drawn order; their words stay in other pairs."""
    best: list[Pair] = []
    for attempt in range(DRAWS):
        states, objects = Counter(state for state, _ in pairs), Counter(obj for _, obj in pairs)
        chosen: list[Pair] = []
        for index in stream("own split", seed, "pairs", attempt).permutation(len(pairs)):
            state, obj = pairs[index]
            if len(chosen) < wanted and states[state] > 1 and objects[obj] > 1:
                chosen.append((state, obj))
                states[state] -= 1
                objects[obj] -= 1
        best = max(best, chosen, key=len)
        if len(best) == wanted:
            break
    if len(best) < 2:
        raise UserError(
            f"There are too few pairs in {where} for a compositional split.",
            f"Of its {len(pairs)} pairs {len(best) or 'none'} can be left out of training, since every state and every "
            "object must stay there in another pair; two are needed, one for val and one for test.",
            "Add pairs that combine the states and objects there are; two states, each with two objects, are enough.",
        )
    return best


def _shares(count: int, options: SplitOptions) -> tuple[int, int]:
    """Return how many of a seen pair's `count` distinct images go to val and to test; at least one stays."""
    if count < 3:
        return 0, 0
    n_val, n_test = max(1, round(options.val * count)), max(1, round(options.test * count))
    while n_val + n_test >= count:
        n_val, n_test = (n_val - 1, n_test) if n_val > n_test else (n_val, n_test - 1)
    return n_val, n_test


def check_split(labels: Sequence[Pair], phases: Sequence[Phase], where: str) -> None:
    """Raise a UserError where a split breaks the rules above; where: what the images come from."""
    pairs = {phase: {p for p, own in zip(labels, phases, strict=True) if own == phase} for phase in PHASES}
    for phase in PHASES:
        if not pairs[phase]:
            raise UserError(
                f"The split of {where} has no {phase} images.",
                f"It has images of {', '.join(p for p in PHASES if pairs[p])}.",
                "Give each of train, val and test some images.",
            )
    trained = [{pair[place] for pair in pairs["train"]} for place in (0, 1)]
    for phase in ("val", "test"):
        for place, kind in enumerate(("a state", "an object")):
            strange = sorted(pair for pair in pairs[phase] if pair[place] not in trained[place])
            if strange:
                word = strange[0][place]
                raise UserError(
                    f"The {phase} pair '{' '.join(strange[0])}' of {where} has {kind} never trained: '{word}'.",
                    f"{len(strange)} of its {len(pairs[phase])} {phase} pairs are like that, and what no training pair "
                    "shows cannot be composed.",
                    f"Give train a pair with '{word}', or take these images out.",
                )
        for group, kind in ((pairs[phase] & pairs["train"], "seen"), (pairs[phase] - pairs["train"], "unseen")):
            if not group:
                has = "no" if kind == "seen" else "every one of its pairs among the"
                raise UserError(
                    f"The {phase} split of {where} has no {kind} pair.",
                    f"A seen pair has training images, an unseen pair has none; {phase} has {has} training pairs.",
                    f"Give {phase} images of "
                    + ("pairs that training has too." if kind == "seen" else "a pair that training never has."),
                )
