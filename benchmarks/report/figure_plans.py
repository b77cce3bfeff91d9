"""The figures that a group of comparable runs is to get, as plans: file, title, caption, and how each is drawn.

Nothing is drawn here; `pictures.py` does it and says what could not be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report import names
from benchmarks.report.groups import Group, Row
from benchmarks.report.scored_runs import Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.report.images import Library

Labelled = list[tuple[str, list[Scored]]]
"""The per-image records of rows that have any, by the rows' labels."""


@dataclass(frozen=True)
class Plan:
    """A figure to be: its file's stem, its title, its caption (or how that is made), and how it is made.

    `make` may raise a `UserError`: the figure is then left out with that reason. wide: broader than a column.
    """

    stem: str
    title: str
    caption: str | Callable[[], str]
    make: Callable[[], Figure | tuple[Figure, str]]
    wide: bool = False


def without_auc(group: Group) -> str:
    """Say which rows the figures of the AUC leave out, and why; "" for none."""
    from benchmarks.report.figures import auc_values

    rows = [row for row in group.rows if row.done and not len(auc_values(row))]
    if not rows:
        return ""
    return (
        f"AUC, cost against AUC, ablations: without {', '.join(row.label for row in rows)}, whose AUC is undefined, "
        "because test has no seen or no unseen images."
    )


def of_curves(group: Group, scored: Labelled) -> Iterator[Plan]:
    """The seen-unseen curves, from per-image records."""
    if not scored:
        return
    from benchmarks.report import bands, figures, style, uncertainty

    looks = style.styles(group.full)
    several = any(len(runs) > 1 for _, runs in scored)
    mean = "Lines and points are means over seeds. " if several else ""
    yield Plan(
        "seen-unseen",
        "Seen-unseen curves",
        f"Accuracy on seen pairs against accuracy on unseen pairs under every bias. {mean}Shaded: pointwise 95 % band "
        f"over test images (bootstrap by reweighting, {bands.RESAMPLES:,} resamples; seeds are not resampled). "
        "Filled marker: best harmonic mean, its bias chosen on the test labels. Hollow marker: the bias chosen on "
        "validation. The AUC is the area under a curve.",
        lambda: figures.seen_unseen(uncertainty.curve_lines(scored, looks)),
    )


def at_bias(scored: Labelled) -> Iterator[Plan]:
    """The figures of predictions at the bias chosen on validation, from per-image records."""
    if not scored:
        return
    from benchmarks.report import matrices

    pooled = ", mean over seeds" if any(len(runs) > 1 for _, runs in scored) else ""

    def caption(kind: str) -> str:
        return (
            f"How often the {kind} is right, in percent of the test images that have it (their number in "
            f"brackets), at the bias chosen on validation{pooled}; the hardest last"
            f"{matrices.shown_words(kind, scored[0][1][0])}."
        )

    for kind in ("state", "object"):
        yield Plan(
            f"{kind}s",
            f"Accuracy by {kind}",
            partial(caption, kind),
            partial(matrices.primitive_accuracy, scored, kind),
        )
    label, runs = max(scored, key=lambda item: sum(run.merit for run in item[1]) / len(item[1]))
    seeds = f"seeds {', '.join(str(run.run.spec.seed) for run in runs)} together" if len(runs) > 1 else "one seed"
    yield Plan(
        "confusion",
        "Confusion of states",
        lambda: (
            f"Which state {label}, the method with the largest {runs[0].merit_name} here, predicts for the test images "
            f"of each state, in percent of the row, at the bias chosen on validation, {seeds}"
            f"{matrices.states_left_out(runs)}. The scale is that of square roots, so that rare confusions show."
        ),
        lambda: matrices.state_confusion(runs),
    )


def of_results(group: Group) -> Iterator[Plan]:
    """The figures that results alone suffice for; per-image records add intervals."""
    from benchmarks.report import figures, style, uncertainty

    rows = [row for row in group.full if len(figures.auc_values(row))]
    if not rows:
        return
    looks = style.styles(group.full)
    measured = cache(lambda: uncertainty.auc_intervals(rows))  # for both figures; when the first is made
    ticks = "; tick: a seed" if any(len(row.done) > 1 for row in rows) else ""

    def auc_caption() -> str:
        intervals, alone = measured()
        bar = f"; bar: {uncertainty.described()}" if intervals else ""
        bar += f", over test images alone for {', '.join(alone)}, with one run" if alone else ""
        without = [row.label for row in rows if row.label not in intervals]
        bar += f"; no interval without per-image records: {', '.join(without)}" if without else ""
        return (
            f"AUC on test; marker: mean{' over seeds' if ticks else ''}{bar}{ticks}. Intervals of two methods may "
            "overlap although their paired difference is clear: the tables test differences."
        )

    timed = figures.timed(rows)

    def cost_caption() -> str:
        devices = sorted({str(run.environment.get("device", "?")) for row in timed for run in row.done})
        return (
            f"AUC{' with its interval' if measured()[0] else ''} against training time without validation, on "
            f"{', '.join(devices)}; 0: nothing is trained. The larger a point, the more numbers are trained "
            "(logarithm)."
        )

    yield Plan("auc", "AUC with intervals", auc_caption, lambda: figures.auc_of_runs(rows, looks, measured()[0]))
    if timed:
        yield Plan("cost", "Cost against AUC", cost_caption, lambda: figures.cost(timed, looks, measured()[0]))


def of_training(group: Group) -> Iterator[Plan]:
    """The validation curves over epochs, where some run has more than one."""
    from benchmarks.report import convergence, style

    found = [curves for row in group.full if (curves := convergence.curves_of(row)) is not None]
    if not any(curves.epochs > 1 for curves in found):
        return
    looks = style.styles(group.full)
    several = "; mean over seeds, band: one standard deviation" * any(len(curves.seeds) > 1 for curves in found)
    yield Plan(
        "convergence",
        "Convergence",
        f"Validation AUC after each epoch{several}; ring: the best epoch of that mean. A curve that still rises at its "
        "end says that the method was stopped, not what it can do.",
        lambda: convergence.convergence(found, looks),
    )


def of_ablations(group: Group, full: Row, stem: str) -> Iterator[Plan]:
    """What each switch of a method changes in its AUC, where some switch and the full model share a seed.

    full: the row of the full model. stem: of the figure's files.
    """
    from benchmarks.report import figures, uncertainty

    if not len(figures.auc_values(full)):
        return
    switches = [switch for switch in group.switches(full) if switch.done]
    found = uncertainty.changes(full, switches) if switches else []
    if not found:
        return
    ticks = "; ticks: single seeds" if any(len(change.per_seed) > 1 for change in found) else ""
    known = any(change.interval is not None for change in found)
    line = f"; line: 95 % interval of the paired difference, {uncertainty.described().split(' interval ')[1]}"
    yield Plan(
        stem,
        f"Ablations of {full.label}",
        f"What each switch changes in the AUC of {full.label}, on the seeds that both have{line if known else ''}"
        f"{ticks}.",
        lambda: figures.ablation_bars(full.method, found),
    )


def of_images(scored: Labelled, library: Library) -> Iterator[Plan]:
    """The figures that show images, which need the data set and as a rule trained weights."""
    if not scored:
        return
    from benchmarks.report import attention_maps, gallery

    stems = names.unique([f"attention-{label}" for label, _ in scored])
    for (label, runs), stem in zip(scored, stems, strict=True):
        if runs[0].run.spec.method == attention_maps.METHOD and not np.isnan(runs[0].bias):
            yield Plan(
                stem,
                f"Attention of {label}",
                f"What the local and the global stage of {label} look at.",
                partial(attention_maps.attention, runs[0], library),
            )
    yield Plan(
        "gallery",
        "Successes and failures",
        f"Test images, their true pair (bold) and the {gallery.BEST} best pairs of two methods at the bias chosen on "
        "validation.",
        lambda: gallery.gallery(scored, library),
        wide=True,
    )
