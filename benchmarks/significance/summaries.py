"""The records that `compare` fills: of a method, of each of its statistics, of its difference to a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.significance.closed_form import NormalEstimate
from benchmarks.significance.intervals import Estimate, Interval
from benchmarks.significance.paired import McNemar, SeedTest

Source = Literal["images", "pairs", "seeds and images", "seeds and pairs"]
"""What is taken to be drawn by chance: test images, pairs with all their images, and beside them training seeds."""


@dataclass(frozen=True, eq=False)
class Difference:
    """A method's statistic less the baseline's, a difference of means over seeds.

    sources: by source of chance, interval and p-value; those with seeds only if both methods have two runs or more (or
    no training). decided_by: the source whose `p_value` stands in the family; adjusted_p: after Holm over the family,
    NaN if the statistic is not in it. seeds: the paired test over the seeds that both have; None for fewer than two.
    closed_form: of the AUC alone, over images.
    """

    value: float
    sources: Mapping[Source, Estimate]
    decided_by: Source
    p_value: float
    adjusted_p: float
    seeds: SeedTest | None
    closed_form: NormalEstimate | None

    @property
    def interval(self) -> Interval:
        """The interval that belongs to `p_value`."""
        return self.sources[self.decided_by].percentile


@dataclass(frozen=True, eq=False)
class StatisticSummary:
    """A method's statistic: mean over seeds and its uncertainty; fractions in [0, 1].

    per_seed: in order of seed. standard_deviation: over seeds, NaN for one. seed_interval: t interval of the mean over
    seeds, test images as given. sources: by source of chance. difference: to the baseline; None for the baseline.
    """

    statistic: str
    value: float
    per_seed: tuple[float, ...]
    standard_deviation: float
    seed_interval: Interval
    sources: Mapping[Source, Estimate]
    closed_form: NormalEstimate | None
    difference: Difference | None = None


@dataclass(frozen=True, eq=False)
class MethodSummary:
    """A method: its seeds in order, its statistics by name, and McNemar's test against the baseline.

    seeds: of one run only where there is no training. mcnemar: by seed (of the runs paired by seed), then "seen",
    "unseen" and "all"; empty for the baseline; without the seeds whose runs have no bias from validation.
    """

    name: str
    seeds: tuple[int, ...]
    trained: bool
    statistics: Mapping[str, StatisticSummary]
    mcnemar: Mapping[int, Mapping[str, McNemar]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods on one test set, in the order given, and what the numbers rest on.

    tested: statistics in Holm's family, which holds `family` comparisons. images, pairs: numbers of seen and unseen.
    """

    methods: Mapping[str, MethodSummary]
    baseline: str | None
    tested: tuple[str, ...]
    family: int
    level: float
    resamples: int
    seed: int
    images: tuple[int, int]
    pairs: tuple[int, int]
