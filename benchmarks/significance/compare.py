"""Everything a table says about methods on one test set: values, intervals, differences to a baseline, p-values.

One call makes the same resamples for all methods, so that values and differences of a table fit together
(docs/statistics.md says in words what each number answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.significance.bootstrap import RESAMPLES, Resampled, average, bootstrap, over_seeds
from benchmarks.significance.closed_form import auc_difference, auc_estimate
from benchmarks.significance.intervals import Estimate, difference, estimate
from benchmarks.significance.multiple import holm
from benchmarks.significance.paired import McNemar, compare_over_seeds, mcnemar_by_group, mean_over_seeds
from benchmarks.significance.reweighting import HEADLINE, Units
from benchmarks.significance.runs import ScoredRun, check_same_images
from benchmarks.significance.summaries import Comparison, Difference, MethodSummary, Source, StatisticSummary
from errors import UserError, did_you_mean

_SOURCES: tuple[tuple[Source, Source], ...] = (("images", "seeds and images"), ("pairs", "seeds and pairs"))


@dataclass(frozen=True)
class Resampling:
    """How often chance is drawn, and which of its sources decides.

    resamples: of the bootstrap.
    level: of intervals.
    seed: of the resampling.
    decided_by: the source of chance whose p-values count; where a method has too few seeds, the same without seeds.
    rounding: by method and statistic, the standard deviation of a run that rounding alone makes (`components.py`);
        what rests on seeds is not narrower than that, whatever the seeds that were run happened to give.
    """

    resamples: int = RESAMPLES
    level: float = 0.95
    seed: int = 0
    decided_by: Source = "seeds and images"
    rounding: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def floor(self, statistics: Sequence[str], *methods: str) -> np.ndarray | None:
        """Return the variance that rounding gives a run of a method, or the difference of two, float64 [s]; or None."""
        known = [self.rounding[method] for method in methods if method in self.rounding]
        if not known:
            return None
        return np.array([sum(own.get(name, 0.0) ** 2 for own in known) for name in statistics])


def compare(
    runs: Mapping[str, Sequence[ScoredRun]],
    baseline: str | None = None,
    statistics: Sequence[str] = HEADLINE,
    *,
    tested: Sequence[str] | None = None,
    resampling: Resampling = Resampling(),
) -> Comparison:
    """Compare methods, each with a run per seed, on the same test images.

    baseline: the method the others are compared with; None for values alone.
    statistics: names of `STATISTICS`.
    tested: those whose comparisons make Holm's family, by default all: everything the table marks.

    `UserError` for an unknown baseline or runs of other images, ValueError for a method without runs or with two of one
    seed, and for unknown statistics.
    """
    ordered = {name: sorted(own, key=lambda run: run.seed) for name, own in runs.items()}
    _check(ordered, baseline)
    # Without training one run says all; more would only pretend that seeds were looked at.
    ordered = {name: own if own[0].trained else own[:1] for name, own in ordered.items()}
    tested = tuple(statistics if tested is None else tested)
    if not set(tested) <= set(statistics):
        raise ValueError(f"{sorted(set(tested) - set(statistics))} are tested, but not among the statistics")
    every = [run for own in ordered.values() for run in own]
    units = (Units.images(every[0].scores), Units.pairs(every[0].scores, every[0].labels))
    resamples, seed = resampling.resamples, resampling.seed
    drawn = [iter(bootstrap(every, statistics, unit, resamples=resamples, seed=seed)) for unit in units]
    resampled = {
        name: _Resampled(name, own, [[next(parts) for _ in own] for parts in drawn]) for name, own in ordered.items()
    }
    methods = {}
    for name, own in ordered.items():
        differences: Mapping[str, Difference] = {}
        mcnemar: Mapping[int, Mapping[str, McNemar]] = {}
        if baseline is not None and name != baseline:
            pairs = _paired(own, ordered[baseline])
            differences = _differences(resampled[name], resampled[baseline], pairs, resampling)
            mcnemar = _mcnemar(own, ordered[baseline], pairs)
        summaries = _summaries(resampled[name], differences, resampling)
        methods[name] = MethodSummary(name, tuple(run.seed for run in own), own[0].trained, summaries, mcnemar)
    methods, family = _adjusted(methods, tested)
    counts = [(int(unit.is_seen.sum()), int((~unit.is_seen).sum())) for unit in units]
    return Comparison(methods, baseline, tested, family, resampling.level, resamples, seed, *counts)


def _check(runs: Mapping[str, Sequence[ScoredRun]], baseline: str | None) -> None:
    if baseline is not None and baseline not in runs:
        raise UserError(
            f"The baseline '{baseline}' is not among the methods compared.",
            f"There are {', '.join(runs) or 'none'}.",
            did_you_mean(baseline, runs) or "Choose one of these.",
        )
    for name, own in runs.items():
        seeds = [run.seed for run in own]
        if not own or len(set(seeds)) < len(seeds):
            raise ValueError(f"{name} has {len(own)} runs of the seeds {seeds}; one run per seed is needed")
    check_same_images((f"{name}, seed {run.seed},", run) for name, own in runs.items() for run in own)


@dataclass(frozen=True)
class _Resampled:
    """A method's runs with their resampled statistics. parts: by unit (images, pairs), then by run."""

    name: str
    runs: Sequence[ScoredRun]
    parts: Sequence[Sequence[Resampled]]


def _summaries(
    method: _Resampled, differences: Mapping[str, Difference], resampling: Resampling
) -> dict[str, StatisticSummary]:
    """The statistics of one method's runs."""
    runs, parts, level = method.runs, method.parts, resampling.level
    seeds = [run.seed for run in runs]
    least = resampling.floor(parts[0][0].statistics, method.name)
    drawn: dict[Source, Mapping[str, Estimate]] = {}
    for (plain, with_seeds), own in zip(_SOURCES, parts, strict=True):
        drawn[plain] = estimate(average(own), level)
        if _replicated(runs):
            drawn[with_seeds] = estimate(over_seeds(own, seeds, seed=resampling.seed, least=least), level)
    per_seed = np.stack([part.estimate for part in parts[0]])
    summaries = {}
    for place, statistic in enumerate(parts[0][0].statistics):
        values = per_seed[:, place]
        summaries[statistic] = StatisticSummary(
            statistic,
            float(values.mean()),
            tuple(values.tolist()),
            float(values.std(ddof=1)) if len(values) > 1 else np.nan,
            mean_over_seeds(values, level, 0.0 if least is None else float(np.sqrt(least[place]))),
            {source: estimates[statistic] for source, estimates in drawn.items()},
            auc_estimate(runs, level) if statistic == "auc" else None,
            differences.get(statistic),
        )
    return summaries


def _differences(
    method: _Resampled, baseline: _Resampled, pairs: Sequence[tuple[int, int]], resampling: Resampling
) -> dict[str, Difference]:
    """The statistics of a method less those of the baseline, not adjusted yet.

    pairs: places of runs that belong together.
    """
    runs, parts = method.runs, method.parts
    others, other_parts = baseline.runs, baseline.parts
    decided_by, level, seed = resampling.decided_by, resampling.level, resampling.seed
    ours, base = (resampling.floor(parts[0][0].statistics, one.name) for one in (method, baseline))
    least = resampling.floor(parts[0][0].statistics, method.name, baseline.name)
    drawn: dict[Source, Mapping[str, Estimate]] = {}
    for (plain, with_seeds), own, theirs in zip(_SOURCES, parts, other_parts, strict=True):
        drawn[plain] = difference(average(own) - average(theirs), level)
        if not _replicated(runs) or not _replicated(others):
            continue
        if {i for i, _ in pairs} == set(range(len(runs))) and {j for _, j in pairs} == set(range(len(others))):
            joint = [own[i] - theirs[j] for i, j in pairs]
            both = over_seeds(joint, [_pair_seed(runs[i], others[j]) for i, j in pairs], seed=seed, least=least)
        else:
            both = over_seeds(own, [run.seed for run in runs], seed=seed, least=ours)
            both = both - over_seeds(theirs, [run.seed for run in others], seed=seed, least=base)
        drawn[with_seeds] = difference(both, level)
    if decided_by not in drawn:
        decided_by = next(plain for plain, with_seeds in _SOURCES if with_seeds == decided_by)
    found = {}
    for place, statistic in enumerate(parts[0][0].statistics):
        seeds = None
        if len(pairs) > 1:
            mine, theirs = ([part.estimate[place] for part in own] for own in (parts[0], other_parts[0]))
            spread = 0.0 if least is None else float(np.sqrt(least[place]))
            seeds = compare_over_seeds([mine[i] for i, _ in pairs], [theirs[j] for _, j in pairs], level, spread)
        sources = {source: estimates[statistic] for source, estimates in drawn.items()}
        p_value = sources[decided_by].p_value
        found[statistic] = Difference(
            sources["images"].value,
            sources,
            decided_by,
            np.nan if p_value is None else p_value,
            np.nan,
            seeds,
            auc_difference(runs, others, level) if statistic == "auc" else None,
        )
    return found


def _mcnemar(
    runs: Sequence[ScoredRun], others: Sequence[ScoredRun], pairs: Sequence[tuple[int, int]]
) -> dict[int, Mapping[str, McNemar]]:
    return {
        _pair_seed(runs[i], others[j]): mcnemar_by_group(runs[i], others[j])
        for i, j in pairs
        if not np.isnan([runs[i].bias, others[j].bias]).any()
    }


def _replicated(runs: Sequence[ScoredRun]) -> bool:
    """Whether the runs tell how seeds vary: there are two, or there is nothing that a seed could change."""
    return len(runs) > 1 or not runs[0].trained


def _paired(runs: Sequence[ScoredRun], others: Sequence[ScoredRun]) -> list[tuple[int, int]]:
    """Places of the runs that belong together: of one seed, or the one run without training with each of the other."""
    if not runs[0].trained:
        return [(0, place) for place in range(len(others))]
    if not others[0].trained:
        return [(place, 0) for place in range(len(runs))]
    places = {run.seed: place for place, run in enumerate(others)}
    return [(place, places[run.seed]) for place, run in enumerate(runs) if run.seed in places]


def _pair_seed(run: ScoredRun, other: ScoredRun) -> int:
    return run.seed if run.trained else other.seed


def _adjusted(methods: Mapping[str, MethodSummary], tested: Sequence[str]) -> tuple[dict[str, MethodSummary], int]:
    """Put Holm's p-values of the whole family into the summaries, and count the family."""
    differences = {
        (name, statistic): difference
        for name, method in methods.items()
        for statistic in tested
        if (difference := method.statistics[statistic].difference) is not None
    }
    family = list(differences)
    p_values = np.array([differences[place].p_value for place in family])
    adjusted = dict(zip(family, holm(p_values).tolist(), strict=True))
    found = {}
    for name, method in methods.items():
        statistics = {
            statistic: replace(summary, difference=replace(difference, adjusted_p=adjusted[name, statistic]))
            if (difference := differences.get((name, statistic))) is not None
            else summary
            for statistic, summary in method.statistics.items()
        }
        found[name] = replace(method, statistics=statistics)
    return found, int((~np.isnan(p_values)).sum())
