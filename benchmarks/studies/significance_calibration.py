"""Do the tests keep their level? Simulations in which nothing differs; docs/statistics.md holds the outcome.

    python -m benchmarks.studies.significance_calibration

Each number is the share of simulations, in percent, in which a test at 5 % finds a difference between equal methods, or
in which a 95 % interval misses the true value, with the standard error of that share. About 5 is right; less is
cautious, more is false alarm. A test that answers another question than the situation asks is meant to be off.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from benchmarks.significance.compare import Resampling, compare
from benchmarks.significance.intervals import Interval
from benchmarks.significance.ranks import friedman, nemenyi, pairwise_wilcoxon
from benchmarks.significance.simulation import Population
from benchmarks.significance.summaries import Comparison, MethodSummary
from benchmarks.studies.program import program
from datasets.streams import stream

ALPHA = 0.05
STATISTICS = ("auc", "best_hm", "gate", "at_bias.hm", "at_zero.state")

SITUATIONS: Mapping[str, tuple[Population, int]] = {
    "300 + 300 images": (Population(), 1),
    "60 + 60 images": (Population(images=(60, 60), pairs=(10, 10)), 1),
    "600 + 600 images, alike within 100 + 100 pairs": (Population((600, 600), (100, 100), by_pair=0.1), 1),
    "600 + 600 images, alike within 20 + 20 pairs": (Population((600, 600), (20, 20), by_pair=0.1), 1),
    "5 seeds, which vary like the images": (Population(by_method=0.3, by_seed=0.003), 5),
    "5 seeds, which vary most": (Population(by_method=0.3, by_seed=0.03), 5),
    "5 seeds, images favour no method": (Population(by_seed=0.003), 5),
    "3 seeds, which vary like the images": (Population(by_method=0.3, by_seed=0.003), 3),
    "3 seeds, which vary most": (Population(by_method=0.3, by_seed=0.03), 3),
    "3 seeds, images favour no method": (Population(by_seed=0.003), 3),
}
"""By name: the population and the number of runs of each of two equal methods, 300 + 300 images unless it says so.

"Images favour no method": apart from its seed a run differs from another by chance alone, image by image.
"""

RANKED = ((3, 5), (5, 5), (5, 7), (10, 7), (20, 7))
"""(data sets, methods) of the rank tests."""


@dataclass(frozen=True)
class Rate:
    """How often `test` was wrong at 5 % in `situation`."""

    situation: str
    test: str
    rate: float
    simulations: int

    @property
    def standard_error(self) -> float:
        """Of the rate, from the finite number of simulations."""
        return float(np.sqrt(self.rate * (1 - self.rate) / self.simulations))


def pairwise_rates(
    situation: str, simulations: int, resamples: int, statistics: Sequence[str] = STATISTICS, seed: int = 0
) -> list[Rate]:
    """Return how often each test between two equal methods rejects, and how often each interval misses."""
    population, seeds = SITUATIONS[situation]
    truth = true_values(population)
    outcomes: dict[str, list[bool]] = {}
    for number in range(simulations):
        rng = stream("calibration", seed, situation, number)
        first, second = population.sample(rng, 2, seeds)
        runs = {"first": first, "second": second}
        found = compare(runs, "first", statistics, resampling=Resampling(resamples, seed=number))
        for test, p_value in p_values(found.methods["second"]):
            outcomes.setdefault(test, []).append(p_value <= ALPHA)
        for name, interval, value in intervals(found.methods["first"], truth):
            outcomes.setdefault(name, []).append(not interval.low <= value <= interval.high)
    return [Rate(situation, test, float(np.mean(wrong)), simulations) for test, wrong in outcomes.items()]


def p_values(method: MethodSummary) -> Iterable[tuple[str, float]]:
    """Yield (test, p-value) of all comparisons with the baseline."""
    for name, summary in method.statistics.items():
        difference = summary.difference
        if difference is None:
            continue
        for source, estimate in difference.sources.items():
            yield f"{name}: bootstrap over {source}", float(estimate.p_value if estimate.p_value is not None else 1)
        if difference.closed_form is not None:
            yield f"{name}: closed form", float(difference.closed_form.p_value or 0)
        if difference.seeds is not None:
            yield f"{name}: t over seeds", difference.seeds.t_p_value
            yield f"{name}: sign flips over seeds", difference.seeds.flip_p_value
    for group, test in method.mcnemar[method.seeds[0]].items():
        yield f"McNemar, {group} images", test.p_value


def true_values(population: Population) -> dict[str, float]:
    """Return the statistics of an infinite test set, where they have a formula: both groups' margins are normal."""
    if population.by_seed > 0:
        return {}
    gate = float(norm.cdf(population.gap / np.sqrt(2)))
    hm = population.accuracy * float(norm.cdf(population.gap / 2))
    return {"auc": population.accuracy**2 * gate, "gate": gate, "best_hm": hm, "at_bias.hm": hm}


def intervals(method: MethodSummary, truth: Mapping[str, float]) -> Iterable[tuple[str, Interval, float]]:
    """Yield (name, interval, true value) of the method's own values."""
    for name, summary in method.statistics.items():
        if name not in truth:
            continue
        value = truth[name]
        for source, estimate in summary.sources.items():
            yield f"{name}: percentile interval over {source} misses", estimate.percentile, value
            if estimate.bca is not None:
                yield f"{name}: BCa interval over {source} misses", estimate.bca, value
        if summary.closed_form is not None:
            yield f"{name}: closed-form interval misses", summary.closed_form.interval, value


def family_rate(simulations: int, resamples: int, methods: int = 7, seed: int = 0) -> list[Rate]:
    """Return how often any of equal methods is found different from the baseline, with and without Holm."""
    situation = f"{methods - 1} comparisons"
    outcomes: dict[str, list[bool]] = {"AUC, any comparison": [], "AUC, any comparison after Holm": []}
    for number in range(simulations):
        sampled = Population().sample(stream("calibration", seed, situation, number), methods)
        runs = {str(place): own for place, own in enumerate(sampled)}
        found: Comparison = compare(runs, "0", ("auc",), resampling=Resampling(resamples, seed=number))
        differences = [method.statistics["auc"].difference for method in found.methods.values()]
        made = [difference for difference in differences if difference is not None]
        outcomes["AUC, any comparison"].append(min(one.p_value for one in made) <= ALPHA)
        outcomes["AUC, any comparison after Holm"].append(min(one.adjusted_p for one in made) <= ALPHA)
    return [Rate(situation, test, float(np.mean(wrong)), simulations) for test, wrong in outcomes.items()]


def rank_rates(datasets: int, methods: int, simulations: int, seed: int = 0) -> list[Rate]:
    """Return how often the rank tests find any difference between equal methods."""
    outcomes = np.zeros((simulations, 3), dtype=bool)
    for number in range(simulations):
        values = stream("calibration", seed, "ranks", datasets, methods, number).random((datasets, methods))
        after = nemenyi(values)
        apart = np.ptp(after.average_ranks) >= after.critical_difference
        wilcoxon = pairwise_wilcoxon(values).adjusted.min() <= ALPHA
        outcomes[number] = friedman(values).p_value <= ALPHA, apart, wilcoxon
    names = ("Friedman, Iman-Davenport", "Nemenyi, any pair", "Wilcoxon and Holm, any pair")
    situation = f"{methods} methods, {datasets} data sets"
    return [
        Rate(situation, name, float(rate), simulations) for name, rate in zip(names, outcomes.mean(axis=0), strict=True)
    ]


def table(rates: Sequence[Rate]) -> str:
    """Return a Markdown table, a row per test and a column per situation."""
    situations, tests = list(dict.fromkeys(r.situation for r in rates)), list(dict.fromkeys(r.test for r in rates))
    cells = {(rate.test, rate.situation): f"{100 * rate.rate:.1f} ± {100 * rate.standard_error:.1f}" for rate in rates}
    lines = [["wrong in percent", *situations], ["---"] * (len(situations) + 1)]
    lines += [[test, *(cells.get((test, situation), "") for situation in situations)] for test in tests]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@program
def main() -> None:
    """Simulate and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--parts", nargs="+", choices=("images", "5 seeds", "3 seeds", "families"), default=None)
    options = parser.parse_args()
    size = (options.simulations, options.resamples)
    situations: dict[str, list[str]] = {"images": [], "5 seeds": [], "3 seeds": []}
    for name, (_, runs) in SITUATIONS.items():
        situations["images" if runs == 1 else f"{runs} seeds"].append(name)
    for part in options.parts or (*situations, "families"):
        if part != "families":
            print(table([rate for name in situations[part] for rate in pairwise_rates(name, *size)]), "\n", flush=True)
            continue
        print(table(family_rate(*size)), "\n", flush=True)
        print(table([rate for ranked in RANKED for rate in rank_rates(*ranked, options.simulations)]), flush=True)


if __name__ == "__main__":
    main()
