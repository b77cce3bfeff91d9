"""What methods that joined the reference later change in its ranking, a sentence for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.significance import Difference
from benchmarks.studies.reference import findings
from benchmarks.studies.reference.conclusions import (
    Finding,
    overturned_by_training,
    seeds_of,
    test_of,
    unfinished,
)
from benchmarks.studies.reference.material import Material, Results


@dataclass(frozen=True)
class Entry:
    """Where a method comes in, in one world.

    place: in the ranking by mean AUC, from 1, among `count` methods.
    led: label of the method that has the largest AUC, in these records, of those that were there before.
    difference: of its AUC from that one's on the seeds that both have, Holm over all entries.
    """

    label: str
    world: str
    place: int
    count: int
    auc: str
    led: str
    difference: Difference


def entries(worlds: Mapping[str, Results], former: Sequence[str]) -> list[Entry]:
    """Return where each method that is not among the former ones comes in, Holm over methods and worlds.

    A method without runs, or without a seed in common with the one that led, has no entry.
    """
    found: list[Entry] = []
    for world, results in worlds.items():
        if not results.found.question.resamples:
            continue  # nothing is tested
        order = findings.placed(results.group)
        led = next((row for _, row in order if row.method in former), None)
        for place, row in order:
            shared = set() if led is None else set(row.seeds) & set(led.seeds)
            if led is None or row.method in former or not shared:
                continue
            change = findings.change(led.of_seeds(shared).done, row.of_seeds(shared).done, results.found.question)
            found.append(Entry(row.label, world, place, len(order), findings.mean_auc(row), led.label, change))
    adjusted = findings.after_holm({(one.label, one.world): one.difference for one in found})
    return [replace(one, difference=adjusted[one.label, one.world]) for one in found]


def newcomers(closed: Results, open_: Results | None, before: Material) -> Finding | None:
    """Say in one sentence for each method that the two-epoch records lack what it changes; None where there is none."""
    former = [row.method for row in before.results("closed", "clean").group.full]
    worlds = {"closed": closed} | ({} if open_ is None else {"open": open_})
    found = entries(worlds, former)
    if not found:
        return None
    level = closed.found.question.level
    labels = list(dict.fromkeys(one.label for one in found))
    rows = [row for row in closed.group.full if row.label in labels]
    late = [label for label in unfinished(closed) if label in labels]
    return Finding(
        "What the methods that joined later change",
        " ".join(_sentence([one for one in found if one.label == label], level) for label in labels),
        test_of(closed.found.question, [one.difference for one in found]),
        seeds_of(rows),
        f"{'; '.join(overturned_by_training(late))}.",
    )


def _sentence(own: Sequence[Entry], level: float) -> str:
    parts = []
    for one in own:
        side = "above" if one.difference.value > 0 else "below"
        if np.isnan(one.difference.adjusted_p):
            side = "not tested against"
        elif one.difference.adjusted_p > 1 - level:
            side = "not told apart from"
        said = findings.difference_text(one.difference)
        parts.append(
            f"number {one.place} of {one.count} in the {one.world} world ({one.auc}), "
            f"{side} {one.led}, the best of the earlier methods ({said})"
        )
    return f"{own[0].label} comes in as {' and as '.join(parts)}."
