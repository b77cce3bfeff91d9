"""The figures of a group of comparable runs, drawn into files; what cannot be drawn is a sentence instead.

`figure_plans.py` says which figures there are and what stands below them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report import figure_plans, names
from benchmarks.report.failures import Failures, attempt
from benchmarks.report.figure_plans import Labelled, Plan
from benchmarks.report.groups import Group, Row
from benchmarks.report.machines import mixture_notes
from benchmarks.report.page import Picture
from benchmarks.report.scored_runs import Scored, read_scored
from benchmarks.runs.records import Problem
from errors import UserError

if TYPE_CHECKING:
    from benchmarks.report.across import Across
    from benchmarks.report.images import Library
    from benchmarks.report.scaling import Scaled


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


def draw(group: Group, folder: Path, library: Library, failures: Failures | None = None) -> Drawn:
    """Draw every figure of a group into `folder`.

    failures: takes what cannot be made, so that the other figures stand; None: the first error but a `UserError` ends
    the work.
    """
    drawn = Drawn()

    def scored(good: Callable[[Scored], bool], reason: str) -> Labelled:
        return _those(every, good, reason, drawn)

    every = attempt(failures, "Per-image records", lambda: _scored(group.full, library, drawn.problems)) or []
    curves = attempt(
        failures, "Seen-unseen curves",
        lambda: scored(lambda run: not np.isnan(run.curve.auc), "test has no seen or no unseen images"),
    ) or []  # fmt: skip
    chosen = attempt(
        failures, "Figures at a bias", lambda: scored(lambda run: not np.isnan(run.bias), "validation chose no bias")
    ) or []  # fmt: skip
    if lacking := figure_plans.without_auc(group):
        drawn.absent.append(lacking)
    of_ablations = (
        (f"Ablations of {row.label}", partial(figure_plans.of_ablations, group, row, stem))
        for row, stem in zip(group.full, names.unique([f"ablations-{row.method}" for row in group.full]), strict=True)
    )
    kinds: list[tuple[str, Callable[[], Iterator[Plan]]]] = [
        ("Figures of results", partial(figure_plans.of_results, group)),
        ("Convergence", partial(figure_plans.of_training, group)),
        *of_ablations,
        ("Seen-unseen curves", partial(figure_plans.of_curves, group, curves)),
        ("Figures at a bias", partial(figure_plans.at_bias, chosen)),
        ("Figures of images", partial(figure_plans.of_images, chosen, library)),
    ]
    for what, plans in kinds:
        for plan in attempt(failures, what, partial(_listed, plans)) or []:
            attempt(failures, plan.title, partial(_write, plan, folder, drawn))
    return drawn


def _listed(plans: Callable[[], Iterator[Plan]]) -> list[Plan]:
    return list(plans())


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


def draw_ranks(groups: Sequence[Group], folder: Path, failures: Failures | None = None) -> Drawn:
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
    for number, one in enumerate(attempt(failures, title, lambda: ranking.fields(groups)) or []):
        if one.problem:
            drawn.absent.append(one.problem)
        else:
            attempt(failures, f"{title} ({one.conditions})", partial(rank, one, number))
    return drawn


def draw_scaling(found: Sequence[Scaled], folder: Path, drawn: Drawn, failures: Failures | None = None) -> None:
    """Draw AUC and U against the share of seen pairs, for each data set that was run with several shares.

    drawn: takes the pictures. failures: as of `draw`.
    """
    from benchmarks.report.scaling import caption, scaling
    from benchmarks.report.scaling_table import TITLE

    for number, one in enumerate(found):
        stem = "scaling" if number == 0 else f"scaling-{number + 1}"
        plan = Plan(stem, TITLE, caption(one.family), partial(scaling, one))
        attempt(failures, f"{TITLE} ({one.family.name})", partial(_write, plan, folder, drawn))


def draw_across(found: Sequence[Across], folder: Path, failures: Failures | None = None) -> Drawn:
    """Draw the AUC of methods across backbones, for each family of groups; failures: as of `draw`."""
    from benchmarks.report.across_figure import across
    from benchmarks.report.across_table import figure_caption

    drawn = Drawn()
    for number, one in enumerate(found):
        stem = "auc" if number == 0 else f"auc-{number + 1}"
        plan = Plan(stem, "AUC across backbones", partial(figure_caption, one), partial(across, one))
        attempt(failures, f"{plan.title} ({one.family.name})", partial(_write, plan, folder, drawn))
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
