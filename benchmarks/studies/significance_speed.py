"""How long the paired bootstrap takes, by default at the size of MIT-States' test set.

    python -m benchmarks.studies.significance_speed

Seven made-up methods on 12,995 images, 10,000 resamples, all statistics of the main table with both intervals and the
differences to the first method. As a check, some resamples are evaluated again by building the resampled data set.
"""

from __future__ import annotations

import argparse
import time
from operator import attrgetter

import numpy as np

from benchmarks.evaluation.metrics import evaluate
from benchmarks.significance.bootstrap import bootstrap, draws
from benchmarks.significance.intervals import difference, estimate
from benchmarks.significance.reweighting import HEADLINE, Units
from benchmarks.significance.runs import ScoredRun
from benchmarks.significance.simulation import Population
from datasets.streams import stream


def largest_difference(run: ScoredRun, resamples: np.ndarray, units: Units, names: tuple[object, ...]) -> float:
    """Return the largest difference of resampled statistics float64 [s, B] to `evaluate` on the images themselves."""
    worst, done = 0.0, 0
    for weights in draws(units.is_seen, resamples.shape[1], *names):
        for column in weights.T:
            images = np.repeat(np.arange(len(run)), column[units.of_image].astype(np.int64))
            metrics = evaluate(run.scores.subset(images), run.labels.subset(images), bias=run.bias)
            wanted = np.array([attrgetter(name)(metrics) for name in HEADLINE])
            worst = max(worst, float(np.abs(resamples[:, done] - wanted).max()))
            done += 1
    return worst


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=7)
    parser.add_argument("--images", type=int, nargs=2, default=(6000, 6995), help="seen and unseen test images")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--check", type=int, default=20, help="resamples evaluated again by brute force")
    options = parser.parse_args()
    population = Population(tuple(options.images), (400, 400))
    runs = [runs[0] for runs in population.sample(stream("significance speed"), options.methods)]
    for units in (Units.images(runs[0].scores), Units.pairs(runs[0].scores, runs[0].labels)):
        start, used = time.perf_counter(), time.process_time()
        found = bootstrap(runs, HEADLINE, units, resamples=options.resamples)
        for one in found:
            estimate(one), difference(one - found[0])
        end, spent = time.perf_counter(), time.process_time()
        print(
            f"{options.resamples} resamples of {len(units.is_seen)} {units.name} ({len(runs[0])} images), "
            f"{options.methods} methods, {len(HEADLINE)} statistics, intervals and p-values: "
            f"{end - start:.1f} s ({spent - used:.1f} s of processor time)"
        )
        few = bootstrap(runs[:1], HEADLINE, units, resamples=options.check)[0]
        worst = largest_difference(runs[0], few.resamples, units, (0, units.name))
        print(f"largest difference to brute force on {options.check} resamples: {worst:.1e}")


if __name__ == "__main__":
    main()
