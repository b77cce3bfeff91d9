"""Golden cases, random problems and a slow, obvious evaluation for the tests of evaluation, scoring and legacy.

The naive functions know nothing of margins or champions: they bias a full matrix and look at its maxima.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores, Labels

_GOLDEN = json.loads((Path(__file__).parent / "golden" / "protocol_cases.json").read_text())
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in _GOLDEN["cases"]}
THRESHOLD_CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in _GOLDEN["threshold_cases"]}


@dataclass(frozen=True, eq=False)
class Problem:
    """A full score matrix [N, P] with all that the evaluators ask for; `candidates` bool [P]."""

    matrix: np.ndarray
    seen: np.ndarray
    candidates: np.ndarray
    true_columns: np.ndarray
    labels: Labels

    @property
    def masked(self) -> np.ndarray:
        """The matrix with -infinity where a column is no candidate."""
        return np.where(self.candidates, self.matrix, np.float32(-np.inf))

    @property
    def scores(self) -> ImageScores:
        return ImageScores.from_matrix(self.masked, self.seen, self.true_columns)


def golden_problem(inputs: dict[str, Any], scores: list[list[float]] | None = None) -> Problem:
    """Turn a golden case's input into arrays; `scores` replaces its score matrix."""
    pairs = [tuple(pair) for pair in inputs["pairs"]]
    truth = [tuple(pair) for pair in inputs["ground_truth"]]
    train = {tuple(pair) for pair in inputs["train_pairs"]}
    own = {tuple(pair) for pair in inputs["val_pairs" if inputs.get("phase") == "val" else "test_pairs"]}
    everything = "feasibility" in inputs or inputs["open_world"]
    states, objects = (
        np.array([[names.index(pair[part]) for pair in rows] for part, names in enumerate(vocabulary)])
        for vocabulary in [(inputs["attrs"], inputs["objs"])]
        for rows in (pairs, truth)
    )
    return Problem(
        matrix=np.array(inputs["scores"] if scores is None else scores, dtype=np.float32),
        seen=np.array([pair in train for pair in pairs]),
        candidates=np.array([everything or pair in train | own for pair in pairs]),
        true_columns=np.array([pairs.index(pair) for pair in truth]),
        labels=Labels(states[0], states[1], objects[0], objects[1]),
    )


def random_problem(seed: int) -> Problem:
    """A small problem, by turns with integer scores (ties everywhere), masked entries, absent pairs, empty groups."""
    rng = np.random.default_rng(seed)
    images, states, objects = int(rng.integers(1, 40)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    pairs = np.stack(np.divmod(np.arange(states * objects), objects), axis=1)
    seen = rng.random(len(pairs)) < rng.choice([0.0, 0.5, 0.5, 0.5, 1.0])
    true_columns = rng.integers(0, len(pairs), images)
    matrix = rng.normal(size=(images, len(pairs)))
    matrix[np.arange(images), true_columns] += 1.0
    matrix += 0.7 * seen
    if seed % 3 == 0:
        matrix = np.round(matrix)
    if seed % 4 == 1:
        matrix[rng.random(matrix.shape) < 0.15] = -np.inf
    # A pair that is no candidate has a state that no candidate has.
    absent = (rng.random(images) < 0.2 * (seed % 5 == 2)) & ~seen[true_columns]
    labels = Labels(pairs[:, 0], pairs[:, 1], np.where(absent, states, pairs[true_columns, 0]), pairs[true_columns, 1])
    true_columns = np.where(absent, -1, true_columns)
    return Problem(matrix.astype(np.float32), seen, np.ones(len(pairs), dtype=bool), true_columns, labels)


def naive_biased(problem: Problem, bias: float) -> np.ndarray:
    """The matrix in double precision with the bias on the unseen columns."""
    return problem.masked.astype(np.float64) + np.where(problem.seen, 0.0, bias)


def naive_credit(problem: Problem, bias: float) -> np.ndarray:
    """Expected pair accuracy of each image at a bias.

    A maximum shared by both groups goes to either by a fair coin, one shared inside a group to each candidate alike.
    """
    biased, credit = naive_biased(problem, bias), np.zeros(len(problem.matrix))
    for image, (row, column) in enumerate(zip(biased, problem.true_columns, strict=True)):
        if column < 0 or row[column] == -np.inf or row[column] < row.max():
            continue
        at_top = row == row.max()
        rivals_beyond = at_top & (problem.seen != problem.seen[column])
        credit[image] = (0.5 if rivals_beyond.any() else 1.0) / (at_top & ~rivals_beyond).sum()
    return credit


def naive_accuracies(problem: Problem, bias: float) -> tuple[float, float]:
    """(seen, unseen) pair accuracy at a bias; NaN for an empty group."""
    credit, is_seen = naive_credit(problem, bias), naive_is_seen(problem)
    return tuple(float(credit[group].mean()) if group.any() else np.nan for group in (is_seen, ~is_seen))


def naive_is_seen(problem: Problem) -> np.ndarray:
    return np.array([column >= 0 and bool(problem.seen[column]) for column in problem.true_columns])


def naive_biases(problem: Problem) -> np.ndarray:
    """One bias inside each interval between the biases at which any image, right or wrong, changes its prediction."""
    seen, unseen = problem.masked[:, problem.seen], problem.masked[:, ~problem.seen]
    with np.errstate(invalid="ignore"):
        gaps = np.concatenate(
            [(row[:, None] - other[None, :]).ravel() for row, other in zip(_best(seen), _best(unseen), strict=True)]
        )
    gaps = np.unique(gaps[np.isfinite(gaps)])
    if len(gaps) == 0:
        return np.zeros(1)
    return np.concatenate([[gaps[0] - 1], (gaps[1:] + gaps[:-1]) / 2, [gaps[-1] + 1]])


def _best(group: np.ndarray) -> np.ndarray:
    """Each row's largest score as float64 [N, 1]; [N, 0] for no columns."""
    return np.sort(group, axis=1)[:, -1:].astype(np.float64)
