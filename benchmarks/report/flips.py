"""Which test images flip: one of two sides gets them right more often than the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.scored_runs import phase_arrays
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.significance import ScoredRun
from benchmarks.significance.paired import predictions, right_at_own_bias


@dataclass(frozen=True)
class Flip:
    """A test image that one side gets right more often than the other, each at its own validation bias.

    by_a, by_b: in how many of the `runs` compared only A, only B is right. truth, a, b: pairs; of a side with several
    runs the prediction it makes most often.
    """

    image: str
    truth: str
    a: str
    b: str
    by_a: int
    by_b: int
    runs: int


def image_flips(
    ours: list[tuple[RunRecord, ScoredRun]], theirs: list[tuple[RunRecord, ScoredRun]]
) -> list[Flip] | None:
    """Return the images that flip, those that do so in most pairs of runs first; None where that cannot be said."""
    if any(np.isnan(run.bias) for _, run in (*ours, *theirs)):
        return None
    for record, _ in (*ours, *theirs):  # an older one may have kept no names
        arrays = RunFolder(record.path).read_arrays()
        own = phase_arrays(arrays, "test")
        if "images" in own and "names.states" in arrays:
            break
    else:
        return None
    by_seed = {record.spec.seed: run for record, run in theirs}
    pairs = [(run, by_seed[record.spec.seed]) for record, run in ours if record.spec.seed in by_seed]
    pairs = pairs or [(run, other) for _, run in ours for _, other in theirs]
    right = np.array([[right_at_own_bias(x), right_at_own_bias(y)] for x, y in pairs])  # [runs, 2, N]
    by_a, by_b = (right[:, 0] & ~right[:, 1]).sum(axis=0), (right[:, 1] & ~right[:, 0]).sum(axis=0)
    states, objects = arrays["names.states"], arrays["names.objects"]

    def named(state: int, obj: int) -> str:
        return f"{states[state]} {objects[obj]}"

    def usual(runs: Sequence[ScoredRun], row: int) -> str:
        columns = Counter(int(predictions(run.scores, run.bias)[row]) for run in runs)
        best = min(columns, key=lambda column: (-columns[column], column))
        labels = runs[0].labels
        return named(labels.candidate_states[best], labels.candidate_objects[best])

    mine, its = [run for run, _ in pairs], [run for _, run in pairs]
    rows = sorted(np.flatnonzero(by_a != by_b).tolist(), key=lambda row: (-abs(int(by_a[row]) - int(by_b[row])), row))
    return [
        Flip(
            str(own["images"][row]),
            named(own["states"][row], own["objects"][row]),
            usual(mine, row),
            usual(its, row),
            int(by_a[row]),
            int(by_b[row]),
            len(pairs),
        )
        for row in rows
    ]
