"""What a seed is worth: variance components, seeds that a claim needs, winners that one seed would name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.report.cells import number
from benchmarks.report.evidence import Question
from benchmarks.report.groups import Row
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.table_model import GAP, Cell, Column, Table
from benchmarks.significance import (
    Components,
    ScoredRun,
    Units,
    bootstrap,
    components,
    difference_components,
    seeds_needed,
    winner_shares,
    winner_shares_elsewhere,
)
from registry import METHODS

CLAIM = 0.01
"""One point of AUC."""

POWER = 0.8


class Seeds:
    """The full models of a group by their seeds; rows with one run or without training have no part in it.

    leader: the label of the row with the largest mean AUC.
    """

    def __init__(self, rows: Sequence[Row], question: Question) -> None:
        self.rows = [row for row in rows if row.trains and len(row.done) > 1]
        self.question = question
        self.runs: Mapping[str, Sequence[ScoredRun]] = {
            label: sorted(own, key=lambda run: run.seed)
            for label, own in scored_runs({row.label: row.done for row in self.rows}).items()
        }
        self.means = {
            row.label: float(np.mean([run.finished.metrics.test.auc for run in row.done])) for row in self.rows
        }
        self.leader = max(self.means, key=lambda label: self.means[label], default="")

    def rounding(self, row: Row) -> float | None:
        """Return the variance that rounding gives a run's AUC, where it was measured."""
        found = self.question.rounding.get(row.method, {}).get("auc")
        return None if found is None else found**2

    def components(self) -> dict[str, Components]:
        """Return each row's variance components by its label."""
        return {row.label: components(self.runs[row.label], self.rounding(row)) for row in self.rows}

    def differences(self) -> dict[str, Components]:
        """Return the components of each row's difference from the leader, on the seeds that both have."""
        found = {}
        theirs = {run.seed: run for run in self.runs.get(self.leader, ())}
        lead = next((row for row in self.rows if row.label == self.leader), None)
        for row in self.rows:
            pairs = [(run, theirs[run.seed]) for run in self.runs[row.label] if run.seed in theirs]
            if lead is None or row is lead or len(pairs) < 2:
                continue
            known = [value for one in (row, lead) if (value := self.rounding(one)) is not None]
            ours, others = zip(*pairs, strict=True)
            found[row.label] = difference_components(ours, others, sum(known) if known else None)
        return found

    def winners(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return how often one seed of each names which winner: on these images, and on others of the kind."""
        here = winner_shares({
            row.label: [run.finished.metrics.test.auc for run in row.done] for row in self.rows
        })  # fmt: skip
        every = [run for own in self.runs.values() for run in own]
        resamples = max(self.question.resamples, 200)
        drawn = iter(bootstrap(every, ("auc",), Units.images(every[0].scores), resamples=resamples))
        there = winner_shares_elsewhere({label: [next(drawn) for _ in own] for label, own in self.runs.items()})
        return here, there


def _points(variance: float | None) -> Cell:
    return number(None if variance is None else float(np.sqrt(variance)))


def components_table(seeds: Seeds) -> Table:
    """Return the standard deviations of a run's AUC by source, in points."""
    names = ("seed", "interaction", "rounding", "images", "a run", "mean of all", "± over seeds")
    columns = [Column("method"), Column("seeds"), *(Column(name, digits=2, larger_is_better=None) for name in names)]
    lines = [
        [
            Cell(text=label),
            Cell(text=str(one.seeds)),
            _points(one.seed),
            _points(one.interaction),
            _points(one.rounding),
            _points(one.images),
            _points(one.of_a_run),
            _points(one.of_a_mean(one.seeds)),
            _points(one.observed),
        ]
        for label, one in seeds.components().items()
    ]
    text = (
        'Standard deviations of the test AUC by source, in points (random effects, docs/statistics.md, "What a seed is '
        'worth"). seed: of the training seed, whatever the images; interaction: what other images of the kind would '
        "change for one seed and not for another; rounding: the same seed trained again "
        f"({GAP}: not measured, then it is a part of seed); images: what they would change for all seeds alike; a run: "
        "one seed on other images; mean of all: of these seeds on other images; ± over seeds: what the tables show. "
        "From so few seeds the parts are known roughly."
    )
    return Table("What a run's AUC varies with", text, columns, lines)


def claims_table(seeds: Seeds) -> Table:
    """Return how many seeds a claim of one point against the leader needs, for each method."""
    columns = [
        Column("method"),
        Column("seeds"),
        Column("AUC", signed=True, larger_is_better=None),
        Column("seed", digits=2, larger_is_better=None),
        Column("images", digits=2, larger_is_better=None),
        Column("these images"),
        Column("other images"),
    ]
    lines = []
    for label, one in seeds.differences().items():
        known = not np.isnan(one.of_a_run)
        counts = [seeds_needed(one, CLAIM, power=POWER, other_images=flag) if known else 0 for flag in (False, True)]
        lines.append(
            [
                Cell(text=label),
                Cell(text=str(one.seeds)),
                Cell(seeds.means[label] - seeds.means[seeds.leader]),
                _points(one.of_a_run - one.images),
                _points(one.images),
                *(Cell(text="none suffices" if count is None else str(count or GAP)) for count in counts),
            ]
        )
    text = (
        f"Of the difference in AUC from {seeds.leader}, paired by seed and image: standard deviations in points (seed: "
        "with interaction and rounding), and the seeds of each method that show a difference of one point with "
        f"{100 * POWER:g} % power in a two-sided test at 5 %. these images: as a statement about this test set; other "
        "images: about images of the kind, where more seeds help only as far as the images allow."
    )
    return Table("Seeds that a claim of one point needs", text, columns, lines)


def winners_text(seeds: Seeds) -> str:
    """Say how often a single seed of each method would have named another winner."""
    if len(seeds.rows) < 2:
        return ""
    here, there = seeds.winners()

    def others(shares: Mapping[str, float]) -> str:
        named = sorted((-value, label) for label, value in shares.items() if label != seeds.leader and value >= 0.0005)
        said = ", ".join(f"{label} {-100 * value:.1f} %" for value, label in named)
        return f"{100 * max(0.0, 1 - shares[seeds.leader]):.1f} %{f' ({said})' if said else ''}"

    return (
        f"With one seed of each method another winner than {seeds.leader} would have been named in {others(here)} of "
        f"the choices of seeds on these images, and in {others(there)} on other images of the kind (bootstrap)."
    )


def rounding_text(rounding: Mapping[str, Mapping[str, float]], methods: Sequence[str]) -> str:
    """Say what rounding alone gives a run, where it was measured, and for which of the methods it was not."""
    if not rounding:
        return (
            "What rounding alone is worth was not measured with these records; `python -m benchmarks.studies.rounding` "
            "does. Until then intervals rest on what the seeds show."
        )
    titles = METHODS.titles()
    parts = [
        f"{titles.get(method, method)} {100 * own['auc']:.2f} ({own['runs']:.0f} runs)"
        for method, own in rounding.items()
    ]
    missing = [titles.get(method, method) for method in methods if method not in rounding]
    said = f" Not measured for {', '.join(missing)}: their intervals rest on what the seeds show." if missing else ""
    return (
        "The same seed trained again with nothing changed but rounding (threads, instruction sets, one unit in the "
        f"last place of an initial number), standard deviation of the test AUC in points: {', '.join(parts)}. "
        "Intervals, d_z and tests that rest on seeds are not narrower than that (docs/statistics.md)." + said
    )
