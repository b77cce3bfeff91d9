"""What stands above and below a table: data, backbone, profile, selection, seeds, what an interval means, and gaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.report.budgets import epochs_text
from benchmarks.report.evidence import Evidence, Question
from benchmarks.report.groups import Group, Row
from benchmarks.report.undefined import policy
from benchmarks.runs.records import RunRecord
from errors import counted

if TYPE_CHECKING:
    from benchmarks.significance import Difference


def caption(runs: Sequence[RunRecord], *, spread: bool = True) -> str:
    """Say what runs of one group have in common. spread: whether the table shows standard deviations."""
    spec = runs[0].spec
    policies = {policy(run) for run in runs if run.spec.training.epochs > 0}
    seeds = sorted({run.spec.seed for run in runs})
    several = "± is the standard deviation over seeds" if len(seeds) > 1 else "one seed, so no spread is shown"
    precision = "precision not known" if spec.external is not None else spec.precision
    rule = ", ".join(sorted(policies)) or ("nothing" if spec.external is None else "a rule that is not known")
    return (
        f"{spec.dataset}, {spec.world} world{_masking(runs)}, backbone {spec.backbone}, profile {spec.profile}, "
        f"{precision}, protocol {spec.protocol_version}; {epochs_text(runs)}epoch selected by "
        f"{rule}; seeds {', '.join(map(str, seeds))}{f'; {several}' * spread}."
    )


def _masking(runs: Sequence[RunRecord]) -> str:
    """Say in brackets what removes pairs from an open world, where anything does."""
    worlds = [run.spec.open_world for run in runs if run.spec.open_world is not None]
    if not worlds:
        return ""
    thresholds = {"searched" if world.threshold == "search" else f"{world.threshold:g}" for world in worlds}
    places = sorted({world.selection_world for world in worlds})
    return (
        f" (feasibility: {worlds[0].feasibility}, threshold {', '.join(sorted(thresholds))}, masking "
        f"{worlds[0].masking}, epoch chosen in the {' or '.join(places)} world)"
    )


def test_split(runs: Sequence[RunRecord]) -> str:
    """Say what was measured on."""
    test = next((run.result.metrics.test for run in runs if run.result is not None), None)
    if test is None:
        return "Test split, percent, exact evaluator."
    return (
        f"Test split ({test.seen_images:,} images of seen and {test.unseen_images:,} of unseen pairs), "
        "percent, exact evaluator."
    )


def intervals(found: Evidence) -> str:
    """Say what the intervals of AUC and HM mean; "" if there are none."""
    if found.comparison is None:
        return ""
    return f"Intervals of AUC and HM: {_bootstrap(found.question, found.over_images_alone, found.comparison.methods)}."


ONE_RUN = "there is one run of each"
"""Why intervals may be over test images alone."""


def tests(question: Question, found: Mapping[str, Difference], why_alone: str = ONE_RUN) -> str:
    """Say what the intervals of differences mean and how they were tested; "" for none.

    found: by row. why_alone: why no difference is over seeds, where none is.
    """
    if not found:
        return ""
    alone = [label for label, difference in found.items() if difference.decided_by == "images"]
    family = counted(sum(not math.isnan(one.p_value) for one in found.values()), "comparison")
    return (
        f"Intervals: {_bootstrap(question, alone, found, why_alone)}, the same for both sides. p: two-sided, of no "
        f"difference in AUC; p Holm: adjusted for the {family} of this table; *: p Holm at most "
        f"{1 - question.level:.2g}."
    )


def _bootstrap(question: Question, alone: Sequence[str], every: Mapping[str, object], why_alone: str = ONE_RUN) -> str:
    """Name level, resamples and source of an interval. alone: of the labels in `every`, those without seeds."""
    if len(alone) == len(every):
        source = f"test images alone, because {why_alone}"
    else:
        source = "seeds and test images"
        source += f" (test images alone for {', '.join(alone)}, with one run)" if alone else ""
    return f"{100 * question.level:g} %, bootstrap of {question.resamples:,} resamples over {source}"


def gaps(group: Group, rows: Sequence[Row], *, same_seeds: bool = True) -> list[str]:
    """Return notes on what is not there: images that were left out (the same for all runs), results, seeds.

    same_seeds: whether a row misses the seeds that other rows have.
    """
    notes = []
    runs = [run for row in rows for run in row.runs]
    if brought := [row.label for row in rows if row.runs[0].spec.external is not None]:
        notes.append(
            f"Scores of {', '.join(brought)} came from a file: the backbone is what was stated, training, precision "
            "and the choice of the epoch are not known."
        )
    names = next((found for run in runs if run.result is not None and (found := run.result.left_out_images)), None)
    if names is not None:
        left_out = counted(len(names), "image that the splits list was", "images that the splits list were")
        notes.append(f"{left_out} missing and left out; the records name them.")
    for run in runs:
        if run.status == "failed" and run.error is not None:
            notes.append(f"{run.run_id} failed: {run.error['message']}")
        elif run.status != "done":
            notes.append(f"{run.run_id} is not finished ({counted(len(run.epochs), 'epoch')} so far).")
    for row in rows if same_seeds else ():
        if missing := sorted(wanted_seeds(row, rows) - {run.spec.seed for run in row.runs}):
            notes.append(f"{row.label} was not run with seed{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}.")
    copies = {run.run_id for run in group.copies} & {run.run_id for run in runs}
    return notes + [f"{run_id} lies in several folders; one was taken." for run_id in sorted(copies)]


def wanted_seeds(row: Row, rows: Sequence[Row]) -> set[int]:
    """Return the seeds that a row should have: those that any row has which trains; its own if it trains nothing."""
    others = [other for other in rows if other.trains] if row.trains else [row]
    return {run.spec.seed for other in others for run in other.runs}


def seeds(row: Row, wanted: set[int]) -> str:
    """Return how many seeds a row has, "2/3" if some of the wanted ones are missing."""
    return f"{len(row.done)}" if wanted <= set(row.seeds) else f"{len(row.done)}/{len(wanted)}"
