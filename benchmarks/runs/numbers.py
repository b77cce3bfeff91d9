"""The numbers that a result holds, as evaluation makes them and a reader gets them back.

Plain dataclasses: making one checks nothing and costs nothing, reading one from a result checks every field
(`result.py`). Accuracies are fractions in [0, 1]. A number that is undefined is NaN.

A docstring's lines "name: meaning" are the rows of results/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from benchmarks.runs.number_types import Array, Number


@dataclass(frozen=True)
class BiasAccuracies:
    """Accuracies at one bias; NaN where there are no such images.

    bias: what is added to the scores of unseen pairs
    pair, state, object: over all images; at bias 0 papers call the last two attribute and object accuracy
    seen_pair, seen_state, seen_object: over the images of seen pairs
    unseen_pair, unseen_state, unseen_object: over the images of unseen pairs
    hm: harmonic mean of `seen_pair` and `unseen_pair`
    """

    bias: Number
    pair: Number
    state: Number
    object: Number
    seen_pair: Number
    unseen_pair: Number
    hm: Number
    seen_state: Number
    unseen_state: Number
    seen_object: Number
    unseen_object: Number


@dataclass(frozen=True)
class Metrics:
    """What a table shows of one evaluation, of the exact curve.

    images, seen_images, unseen_images: how many there are, in all and of either group of pairs
    best_seen: S, the accuracy on seen images when unseen pairs are forbidden
    best_unseen: U, the accuracy on unseen images when seen pairs are forbidden
    gate: G, how well one bias tells the groups apart
    auc: area under the curve, S U G
    auc_standard_error: in closed form, for the sampling of images alone
    best_hm: largest harmonic mean of the two accuracies
    best_hm_seen, best_hm_unseen: the accuracies there
    best_hm_interval: biases that reach it, [low, high]
    best_hm_bias: the one inside that counts as chosen
    unseen_cap: share of unseen images whose pair is a candidate at all, the ceiling of U
    tied_images: images with more than one candidate at the top of their own group
    at_zero: accuracies at bias 0
    at_bias: accuracies at the bias chosen on validation; null for validation itself
    undefined: the reason for each NaN, by field ("at_zero.hm" for a nested one)
    """

    images: int
    seen_images: int
    unseen_images: int
    best_seen: Number
    best_unseen: Number
    gate: Number
    auc: Number
    auc_standard_error: Number
    best_hm: Number
    best_hm_seen: Number
    best_hm_unseen: Number
    best_hm_interval: tuple[Number, Number]
    best_hm_bias: Number
    unseen_cap: Number
    tied_images: int
    at_zero: BiasAccuracies
    at_bias: BiasAccuracies | None = None
    undefined: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> float | None:
        """Return a number by its name, dotted as in "at_zero.state"; None where it is undefined.

        A name that is not in `METRIC_NAMES` is a ValueError.
        """
        if name not in METRIC_NAMES:
            raise ValueError(f"there is no metric '{name}'; there are {', '.join(METRIC_NAMES)}")
        first, _, rest = name.partition(".")
        value = getattr(self, first)
        return defined(getattr(value, rest, None) if rest else value)


@dataclass(frozen=True)
class LegacyHeadline:
    """The headline numbers of the published 20-point sweep, NaN where the official evaluator reports NaN.

    auc: area under its curve
    best_hm: largest harmonic mean at a sampled bias
    best_seen: largest accuracy on seen images
    best_unseen: largest accuracy on unseen images
    """

    auc: Number
    best_hm: Number
    best_seen: Number
    best_unseen: Number


@dataclass(frozen=True)
class LegacyAccuracies:
    """Accuracies at one bias as the official code rounds them (single precision).

    bias: what is added to the scores of unseen pairs
    pair, state, object: over all images
    seen_pair: over the images of seen pairs
    unseen_pair: over the images of unseen pairs
    """

    bias: Number
    pair: Number
    state: Number
    object: Number
    seen_pair: Number
    unseen_pair: Number


@dataclass(frozen=True, eq=False)
class LegacyMetrics(LegacyHeadline):
    """All numbers of the official evaluator; a shortened record holds the headline alone.

    best_hm_seen, best_hm_unseen: the accuracies at the first maximum of HM
    best_hm_bias: the bias there
    biases: those that were sampled, without the huge one [K]
    seen: accuracy on seen images at each, the point at the huge bias last [K + 1]
    unseen: accuracy on unseen images, likewise [K + 1]
    at_zero: at bias 0, what the official code calls `closed_ub_*`; its `attr_acc` and `obj_acc` are state and object
    at_huge: at bias +1000, what it calls `closed_*`
    """

    best_hm_seen: Number
    best_hm_unseen: Number
    best_hm_bias: Number
    biases: Array
    seen: Array
    unseen: Array
    at_zero: LegacyAccuracies
    at_huge: LegacyAccuracies


@dataclass(frozen=True)
class SliceAccuracies:
    """Accuracies of the images with one tag value in one group; NaN if there are none.

    tag: name of the tag
    value: its value
    group: of seen or of unseen pairs
    images: how many there are
    bias: added to the scores of unseen pairs for `pair`, `state` and `object`
    own_pair, own_state, own_object: inside the images' own group, the other group forbidden
    pair, state, object: at the bias
    """

    tag: str
    value: str
    group: Literal["seen", "unseen"]
    images: int
    bias: Number
    own_pair: Number
    own_state: Number
    own_object: Number
    pair: Number
    state: Number
    object: Number


@dataclass(frozen=True)
class ErrorKinds:
    """What becomes of the images of unseen pairs at one bias, as shares of them.

    bias: what is added to the scores of unseen pairs
    images: how many there are
    right: of these, the pair is right; with the three below it adds to 1
    state_wrong, object_wrong: that alone is wrong
    both_wrong: both are
    taken_by_seen: a seen pair is predicted, and wrong: the gate's fault, not the primitives'
    taken_by_unseen: an unseen pair is predicted, and wrong; with the one above it adds to 1 - `right`
    """

    bias: Number
    images: int
    right: Number
    state_wrong: Number
    object_wrong: Number
    both_wrong: Number
    taken_by_seen: Number
    taken_by_unseen: Number


@dataclass(frozen=True)
class MacroAccuracies:
    """Means over pairs of the pair's own accuracy at one bias; NaN without such pairs.

    bias: what is added to the scores of unseen pairs
    seen_pairs, unseen_pairs: how many pairs have images
    seen, unseen: means over these
    hm: harmonic mean of the two
    """

    bias: Number
    seen_pairs: int
    unseen_pairs: int
    seen: Number
    unseen: Number
    hm: Number


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence against accuracy in bins of equally many images.

    bias: what is added to the scores of unseen pairs, inside the softmax
    error: expected calibration error, the mean of |accuracy - confidence| weighted by images
    signed: the same without the absolute value, negative where the method is overconfident
    counts: images of each bin [bins]
    confidences: mean softmax probability of the predicted pair [bins]
    accuracies: share of right pairs [bins]
    """

    bias: Number
    error: Number
    signed: Number
    counts: Array
    confidences: Array
    accuracies: Array


def defined(value: float | None) -> float | None:
    """Return a number, None in place of NaN."""
    return None if value is None or math.isnan(value) else value


_AT_BIAS = [f"{at}.{item.name}" for at in ("at_zero", "at_bias") for item in fields(BiasAccuracies)]
METRIC_NAMES = (*(item.name for item in fields(Metrics) if item.type in ("int", "Number")), *_AT_BIAS)
"""What `Metrics.get` knows: its numbers, and those at a bias by dotted names."""
