"""Which epoch counts: the rule that was asked for, or the nearest one that the validation images define.

A group of images (of seen or of unseen pairs) may be empty, and then AUC, best HM and the accuracy of that group are
undefined on every epoch. What is there decides instead, and the record says what that was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.evaluation.empty_groups import BY_NOTHING, BY_UNSEEN, GAP, Sizes
from benchmarks.evaluation.metrics import Metrics
from datasets.base import CompositionDataset

SELECTIONS: Mapping[str, Callable[[Metrics, float, int], float]] = {
    "val_auc": lambda metrics, loss, epoch: metrics.auc,
    "val_hm": lambda metrics, loss, epoch: metrics.best_hm,
    "val_unseen": lambda metrics, loss, epoch: metrics.best_unseen,
    "val_loss": lambda metrics, loss, epoch: -loss,
    "last_batch_loss": lambda metrics, loss, epoch: -loss,
    "last": lambda metrics, loss, epoch: float(epoch),
}
"""Which epoch counts, by (validation metrics, validation loss, epoch): the largest value, the earliest on ties. None of
them sees test data. The loss is computed for `LOSSES` alone and NaN otherwise."""

LOSSES = ("val_loss", "last_batch_loss")
"""Rules that read a validation loss: its mean over batches, or what VP-CMJL's released loop takes for it, the loss of
the last batch divided by the number of batches."""

VAL_SEEN = "val_seen"
"""Stands in for what needs unseen images: the accuracy of seen images among the seen pairs. It cannot be asked for."""

NAMES: Mapping[str, str] = {
    "val_auc": "the validation AUC",
    "val_hm": "the best harmonic mean on validation",
    "val_unseen": "the accuracy of validation's unseen images",
    VAL_SEEN: "the accuracy of validation's seen images",
    "val_loss": "the validation loss",
    "last_batch_loss": "the loss of the last validation batch",
    "last": "its place, the last one",
}


@dataclass(frozen=True)
class Rule:
    """How the epoch is chosen.

    wanted: the setting `selection`. used: a name of `NAMES`. reason: why `used` is not `wanted`, "" where it is.
    """

    wanted: str
    used: str
    reason: str = ""

    @classmethod
    def of(cls, wanted: str, validation: Sizes) -> Rule:
        """Return the rule for validation images of these numbers."""
        needs_unseen, needs_seen = wanted in ("val_auc", "val_hm", "val_unseen"), wanted in ("val_auc", "val_hm")
        if not (validation.seen or validation.unseen):
            used = "last"
        elif (needs_unseen and not validation.unseen) or (needs_seen and not validation.seen):
            used = VAL_SEEN if validation.seen else "val_unseen"
        else:
            used = wanted
        return cls(wanted, used, "" if used == wanted else validation.lacks("validation"))

    def value(self, metrics: Metrics, loss: float, epoch: int) -> float:
        """Return what an epoch is worth, the larger the better; NaN where that is not finite."""
        found = metrics.best_seen if self.used == VAL_SEEN else SELECTIONS[self.used](metrics, loss, epoch)
        return found if math.isfinite(found) else math.nan

    def shown(self, metrics: Metrics) -> str:
        """Return in a few words how good an epoch is: its AUC, or an accuracy where that is undefined."""
        for name, value in (("AUC", metrics.auc), ("S", metrics.best_seen), ("U", metrics.best_unseen)):
            if not math.isnan(value):
                return f"val {name} {value:.3f}"
        return ""

    def recorded(self, value: float) -> dict[str, str]:
        """Return what a result says of it beside the policy: nothing where the epoch was chosen as asked for.

        value: of the epoch that was chosen.
        """
        if math.isnan(value):  # of no epoch was it finite
            return {"chosen_by": "last", "reason": f"{NAMES[self.used]} was not finite in any epoch"}
        return {} if self.used == self.wanted else {"chosen_by": self.used, "reason": self.reason}


def last_batch(images: int, size: int) -> tuple[int, int]:
    """Return the first image of the last batch of images in batches of `size`, and the number of batches.

    >>> last_batch(10, 4), last_batch(8, 4)
    ((8, 3), (4, 2))
    """
    batches = math.ceil(images / size)
    return (batches - 1) * size, batches


def averaged(parts: Sequence[tuple[int, float]], batches: int | None = None) -> float:
    """Return the mean loss of batches; or, of the last of so many, its loss divided by their number.

    parts: of each batch, or of what the last one was cut into, how many images it has and their mean loss.
    """
    if batches is None:
        return sum(loss for _, loss in parts) / len(parts)
    return sum(count * loss for count, loss in parts) / sum(count for count, _ in parts) / batches


def counts_more(value: float, best: float) -> bool:
    """Return whether an epoch's value takes the place of the best one before it.

    A value that is not finite gives way to anything that comes later, so that it never keeps an early epoch.
    """
    return not math.isfinite(best) or value > best


def empty_group_notes(dataset: CompositionDataset, policies: Iterable[str], searches: bool) -> list[str]:
    """Return what a user should know before training of groups that are empty, a sentence each.

    policies: by which the epochs are to be chosen. searches: whether a threshold of the open world is to be.
    """
    notes = []
    validation, test = Sizes.of(dataset, "val"), Sizes.of(dataset, "test")
    if lack := validation.lacks("validation"):
        rules = [rule for name in dict.fromkeys(policies) if (rule := Rule.of(name, validation)).reason]
        chosen = "".join(f" The epoch is chosen by {NAMES[rule.used]} ({rule.wanted} was asked for)." for rule in rules)
        if searches:
            how = BY_UNSEEN if validation.unseen else BY_NOTHING
            chosen += f" The threshold of the open world is chosen by {how}."
        notes.append(
            f"{dataset.name}: {lack}, so AUC and HM are undefined there and no bias is chosen on it (HM@val is "
            f"{GAP}).{chosen}"
        )
    if lack := test.lacks("test"):
        left = "S" if test.seen else "U"
        notes.append(f"{dataset.name}: {lack}, so AUC and HM are undefined ({GAP}); of S and U there is {left} alone.")
    return notes
