"""Which figures a group of comparable runs gets, with their captions; what cannot be drawn is a sentence instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from benchmarks.report import names
from benchmarks.report.failures import Section
from benchmarks.report.groups import Group, Row
from benchmarks.report.machines import mixture_notes
from benchmarks.report.page import Picture
from benchmarks.report.scored_runs import Scored, read_scored
from benchmarks.runs.records import Problem
from errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.report.images import Library

T = TypeVar("T")

Labelled = list[tuple[str, list[Scored]]]
"""The per-image records of rows that have any, by the rows' labels."""


@dataclass
class Drawn:
    """What was drawn: pictures for the page, the files they were written to.

    problems: runs that were left out. absent: why figures are not there, in sentences. lacking: letters that are boxes.
    """

    pictures: list[Picture] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)


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


def draw(group: Group, folder: Path, library: Library, failures: Section | None = None) -> Drawn:
    """Draw every figure of a group into `folder`.

    failures: takes what cannot be made, so that the other figures stand; None: the first error but a `UserError` ends
    the work.
    """
    drawn = Drawn()

    def scored(good: Callable[[Scored], bool], reason: str) -> Labelled:
        return _those(every, good, reason, drawn)

    every = _attempt(failures, "Per-image records", lambda: _scored(group.full, library, drawn.problems)) or []
    curves = _attempt(
        failures, "Seen-unseen curves",
        lambda: scored(lambda run: not np.isnan(run.curve.auc), "test has no seen or no unseen images"),
    ) or []  # fmt: skip
    chosen = _attempt(
        failures, "Figures at a bias", lambda: scored(lambda run: not np.isnan(run.bias), "validation chose no bias")
    ) or []  # fmt: skip
    if lacking := _without_auc(group):
        drawn.absent.append(lacking)
    of_ablations = (
        (f"Ablations of {row.label}", partial(_ablations, group, row, stem))
        for row, stem in zip(group.full, names.unique([f"ablations-{row.method}" for row in group.full]), strict=True)
    )
    kinds: list[tuple[str, Callable[[], Iterator[Plan]]]] = [
        ("Figures of results", partial(_of_results, group)),
        *of_ablations,
        ("Seen-unseen curves", partial(_of_curves, group, curves)),
        ("Figures at a bias", partial(_at_bias, chosen)),
        ("Figures of images", partial(_of_images, chosen, library)),
    ]
    for what, plans in kinds:
        for plan in _attempt(failures, what, lambda plans=plans: list(plans())) or []:  # type: ignore[misc]
            _attempt(failures, plan.title, partial(_write, plan, folder, drawn))
    return drawn


def _attempt(failures: Section | None, what: str, make: Callable[[], T]) -> T | None:
    return make() if failures is None else failures.attempt(what, make)


def _without_auc(group: Group) -> str:
    """Say which rows the figures of the AUC leave out, and why; "" for none."""
    from benchmarks.report.figures import auc_values

    rows = [row for row in group.rows if row.done and not len(auc_values(row))]
    if not rows:
        return ""
    return (
        f"AUC, cost against AUC, ablations: without {', '.join(row.label for row in rows)}, whose AUC is undefined, "
        "because test has no seen or no unseen images."
    )


def _those(scored: Labelled, good: Callable[[Scored], bool], reason: str, drawn: Drawn) -> Labelled:
    """Return the rows with the runs that a kind of figures can use; say once for a row why others cannot be used."""
    kept: Labelled = []
    for label, runs in scored:
        own = [run for run in runs if good(run)]
        if own:
            kept.append((label, own))
        if len(own) < len(runs):
            drawn.absent.append(f"{label}: {len(runs) - len(own)} of {len(runs)} runs left out, because {reason}.")
    return kept


def draw_ranks(groups: Sequence[Group], folder: Path, failures: Section | None = None) -> Drawn:
    """Draw the critical-difference diagram of methods over data sets; with too few of either, say so.

    failures: as of `draw`.
    """
    from benchmarks.report import ranking
    from benchmarks.significance import friedman, nemenyi

    drawn = Drawn()

    mixed = mixture_notes(run for group in groups for row in group.full for run in row.runs)

    def rank(one: ranking.Field, number: int) -> None:
        test = nemenyi(one.values)
        caption = " ".join([ranking.caption(one, friedman(one.values), test), *mixed])
        stem = "ranks" if number == 0 else f"ranks-{number + 1}"
        plan = Plan(stem, "Ranks over data sets", caption, partial(ranking.critical_difference, one, test))
        _write(plan, folder, drawn)

    title = "Ranks over data sets"
    for number, one in enumerate(_attempt(failures, title, lambda: ranking.fields(groups)) or []):
        if one.problem:
            drawn.absent.append(one.problem)
        else:
            _attempt(failures, f"{title} ({one.conditions})", partial(rank, one, number))
    return drawn


def _write(plan: Plan, folder: Path, drawn: Drawn) -> None:
    from benchmarks.report.style import pyplot, save

    try:
        caption = plan.caption if isinstance(plan.caption, str) else plan.caption()
        made = plan.make()
    except UserError as error:
        drawn.absent.append(f"{plan.title}: left out. {error}")
        return
    except BaseException:
        pyplot().close("all")  # one that was begun would stay in memory
        raise
    figure, more = made if isinstance(made, tuple) else (made, "")
    paths = save(figure, folder / plan.stem, lacking=drawn.lacking)
    drawn.files += paths
    svg = next(path for path in paths if path.suffix == ".svg")
    drawn.pictures.append(Picture(f"{caption} {more}".strip(), svg, plan.title, plan.wide))


def _of_curves(group: Group, scored: Labelled) -> Iterator[Plan]:
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


def _at_bias(scored: Labelled) -> Iterator[Plan]:
    """The figures of predictions at the bias chosen on validation, from per-image records."""
    if not scored:
        return
    from benchmarks.report import matrices

    pooled = ", mean over seeds" if any(len(runs) > 1 for _, runs in scored) else ""
    for kind in ("state", "object"):
        yield Plan(
            f"{kind}s",
            f"Accuracy by {kind}",
            lambda kind=kind: (  # type: ignore[misc]
                f"How often the {kind} is right, in percent of the test images that have it (their number in "
                f"brackets), at the bias chosen on validation{pooled}; the hardest last"
                f"{matrices.shown_words(kind, scored[0][1][0])}."
            ),
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


def _of_results(group: Group) -> Iterator[Plan]:
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

    def cost_caption() -> str:
        devices = sorted({str(run.environment.get("device", "?")) for row in rows for run in row.done})
        return (
            f"AUC{' with its interval' if measured()[0] else ''} against training time without validation, on "
            f"{', '.join(devices)}; 0: nothing is trained. The larger a point, the more numbers are trained "
            "(logarithm)."
        )

    yield Plan("auc", "AUC with intervals", auc_caption, lambda: figures.auc_of_runs(rows, looks, measured()[0]))
    yield Plan("cost", "Cost against AUC", cost_caption, lambda: figures.cost(rows, looks, measured()[0]))


def _ablations(group: Group, full: Row, stem: str) -> Iterator[Plan]:
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


def _of_images(scored: Labelled, library: Library) -> Iterator[Plan]:
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


def _scored(rows: Sequence[Row], library: Library, problems: list[Problem]) -> Labelled:
    """Read the per-image records of the rows' finished runs; rows without any are left out.

    So is a run of other test images than most are of: figures compare methods image by image.
    """
    read: list[tuple[str, Scored]] = []
    for row in rows:
        for run in row.done:
            try:
                read.append((row.label, library.named(read_scored(run))))
            except (UserError, KeyError, ValueError) as error:
                problems.append(Problem(run.path, f"Its figures are left out: {error}"))
    if not read:
        return []
    usual = Counter(_images(scored) for _, scored in read).most_common(1)[0][0]
    found: dict[str, list[Scored]] = {}
    for label, scored in read:
        if _images(scored) == usual:
            found.setdefault(label, []).append(scored)
        else:
            problems.append(
                Problem(scored.run.path, "Its figures are left out: most runs here have other test images.")
            )
    return list(found.items())


def _images(scored: Scored) -> bytes:
    """What two records of the same test images agree in: group, state and object of each."""
    return np.stack([scored.scores.is_seen, scored.labels.states, scored.labels.objects]).tobytes()
