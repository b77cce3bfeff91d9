"""Successes and failures of two methods side by side: images, truth, and each method's best pairs.

Which images are shown is drawn from a named stream among those that both methods get right, only one, or neither, so
nobody chooses the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.images import Library
from benchmarks.report.scored_runs import Scored
from benchmarks.report.style import SMALLEST, new, words
from datasets.streams import stream
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_A_KIND = 3  # images
BEST = 3  # pairs shown of each method
RIGHT, WRONG = "#00664A", "0.25"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two methods: its label, its record, and the best columns of the images shown, [n, 1 or BEST]."""

    label: str
    scored: Scored
    best: np.ndarray


def two_methods(groups: Sequence[tuple[str, Sequence[Scored]]]) -> tuple[tuple[str, Scored], tuple[str, Scored]]:
    """Return the two rows of the largest mean `Scored.merit`, each with its run of the smallest seed that both have.

    `UserError` if there are not two with a bias from validation and a seed in common.
    """
    ranked = sorted(groups, key=lambda item: -float(np.mean([run.merit for run in item[1]])))
    usable = [(label, {run.run.spec.seed: run for run in runs if not np.isnan(run.bias)}) for label, runs in ranked]
    for place, (label, runs) in enumerate(usable):
        for other, theirs in usable[place + 1 :]:
            if common := sorted(runs.keys() & theirs.keys()):
                return (label, runs[common[0]]), (other, theirs[common[0]])
    raise UserError(
        "Two methods were to be shown side by side.",
        f"{len(groups)} have per-image records, and no two share a seed.",
        "Run another method.",
    )


def choose(right: np.ndarray, other_right: np.ndarray, *names: object) -> list[list[int]]:
    """Return the images shown: `OF_A_KIND` (or all there are) of both right, only the first, only the second, neither.

    right, other_right: bool [N]. names: of the stream; the draw of a kind does not depend on the other kinds.
    """
    kinds = (right & other_right, right & ~other_right, ~right & other_right, ~right & ~other_right)
    chosen = []
    for kind, mask in zip(("both", "first", "second", "neither"), kinds, strict=True):
        there = np.flatnonzero(mask)
        rng = stream("figures", "gallery", *names, kind)
        chosen.append(sorted(rng.choice(there, min(OF_A_KIND, len(there)), replace=False).tolist()))
    return chosen


def predicted_right(scored: Scored) -> np.ndarray:
    """Return which images' pair is predicted at the bias chosen on validation, bool [N]."""
    return (scored.predictions(scored.bias) == scored.scores.true_column) & (scored.scores.true_column >= 0)


def gallery(groups: Sequence[tuple[str, Sequence[Scored]]], library: Library) -> tuple[Figure, str]:
    """Return the figure and what its caption says of this draw; `UserError` without data set, images or two methods."""
    (first, one), (second, other) = two_methods(groups)
    dataset = library.dataset(one.run)
    names = (one.run.spec.dataset, one.run.spec.method, other.run.spec.method)
    chosen = choose(predicted_right(one), predicted_right(other), *names)
    rows = [row for kind in chosen for row in kind]
    sides, remarks = [], []
    for label, scored in ((first, one), (second, other)):
        best, remark = _best(scored, rows, library)
        sides.append(Side(label, scored, best))
        remarks += [f"{label}: {remark}"] if remark else []
    pictures = [np.asarray(dataset.load_image("test", row)) for row in rows]
    titles = ("Both right", f"Only {words(first)} right", f"Only {words(second)} right", "Neither right")
    figure = _draw(chosen, titles, pictures, sides, dataset.vocabulary.states, dataset.vocabulary.objects)
    shown = ", ".join(f"{len(kind)} of {count}" for kind, count in zip(chosen, _counts(one, other), strict=True))
    said = (
        f"{first} and {second}, the two methods of the largest {one.merit_name}, seed {one.run.spec.seed}. Images are "
        f"drawn at random from those that both get right, only the first, only the second, neither: {shown} (stream "
        f"'figures/gallery/{'/'.join(names)}/...'), not chosen by anybody."
    )
    return figure, " ".join([said, *remarks])


def _counts(one: Scored, other: Scored) -> list[int]:
    a, b = predicted_right(one), predicted_right(other)
    return [int(mask.sum()) for mask in (a & b, a & ~b, ~a & b, ~a & ~b)]


def _best(scored: Scored, rows: Sequence[int], library: Library) -> tuple[np.ndarray, str]:
    """The best columns of each image [n, BEST]; what the record has [n, 1] where it cannot be scored again, and why."""
    from benchmarks.report.rescoring import load

    recorded = scored.predictions(scored.bias)[list(rows)]
    try:
        best = load(scored.run, library.dataset(scored.run)).top(rows, scored.bias, BEST)
    except UserError as error:
        return recorded[:, None], f"only the predicted pair, from the record. {error.there}"
    differ = int((best[:, 0] != recorded).sum())
    return best, f"on this machine {differ} of the images get another first pair than in the record." if differ else ""


def _draw(
    chosen: Sequence[Sequence[int]],
    titles: Sequence[str],
    pictures: Sequence[np.ndarray],
    sides: Sequence[Side],
    states: Sequence[str],
    objects: Sequence[str],
) -> Figure:
    kinds = [(title, rows) for title, rows in zip(titles, chosen, strict=True) if rows]
    lines = 1 + sum(1 + side.best.shape[1] for side in sides)
    figure, grid = new(
        len(kinds) * (0.125 * lines + 0.3), 7.0, nrows=len(kinds), ncols=2 * OF_A_KIND, squeeze=False,
        width_ratios=[1.0, 1.35] * OF_A_KIND,
    )  # fmt: skip
    number = 0
    for (title, rows), line in zip(kinds, grid, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].set_title(title, loc="left", fontsize=8, fontweight="bold")
        for place in range(len(rows)):
            line[2 * place].imshow(pictures[number], interpolation="none")
            line[2 * place].set_anchor("NW")
            _describe(line[2 * place + 1], number, rows[place], sides, states, objects)
            number += 1
    return figure


def _describe(
    axes: Axes, number: int, row: int, sides: Sequence[Side], states: Sequence[str], objects: Sequence[str]
) -> None:
    labels, scores = sides[0].scored.labels, sides[0].scored.scores
    truth = words(f"{states[labels.states[row]]} {objects[labels.objects[row]]}")
    texts = [(f"{truth}{'' if scores.is_seen[row] else ' (unseen)'}", "black", "bold")]
    for side in sides:
        texts.append((words(side.label), "black", "normal"))
        own = side.scored.labels
        for rank, column in enumerate(side.best[number], start=1):
            right = column == side.scored.scores.true_column[row]
            pair = words(f"{states[own.candidate_states[column]]} {objects[own.candidate_objects[column]]}")
            texts.append((f" {rank} {pair}{' ✓' if right else ''}", RIGHT if right else WRONG, "normal"))
    for place, (text, colour, weight) in enumerate(texts):
        axes.text(
            0, 1 - (place + 0.5) / len(texts), text, transform=axes.transAxes, fontsize=SMALLEST, color=colour,
            fontweight=weight, va="center", clip_on=False,
        )  # fmt: skip
