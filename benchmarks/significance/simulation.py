"""Made-up runs whose truth is known, to check tests and intervals against it and to measure how long they take.

An image is right inside its group when a standard normal competence exceeds a threshold, and its margin is normal
around a mean of its group. Both are sums of independent parts: of the image (how hard it is for everybody), of method
and image (all runs of a method share its likes), of method and pair (so that images of a pair resemble each other), of
the training run (its seed makes it better or worse as a whole), and of run and image. All methods are alike in the
population: no test may find a difference more often than its level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.significance.runs import ScoredRun


@dataclass(frozen=True)
class Population:
    """Sizes and variance shares of the made-up test set.

    images, pairs: (seen, unseen). accuracy: S = U of the average run. gap: distance of the groups' margins in standard
    deviations; G = Phi(gap / sqrt 2). shared, by_method, by_pair, by_seed: shares of variance of the image, of method
    and image, of method and pair, of the run; the rest is of run and image.
    """

    images: tuple[int, int] = (300, 300)
    pairs: tuple[int, int] = (30, 30)
    accuracy: float = 0.5
    gap: float = 1.5
    shared: float = 0.5
    by_method: float = 0.0
    by_pair: float = 0.0
    by_seed: float = 0.0

    def sample(self, rng: np.random.Generator, methods: int = 2, seeds: int = 1) -> list[list[ScoredRun]]:
        """Draw test images and, for each method, a run per seed on them."""
        pairs, images = sum(self.pairs), sum(self.images)
        is_seen = np.arange(images) < self.images[0]
        within = np.concatenate([np.arange(count) % own for count, own in zip(self.images, self.pairs, strict=True)])
        pair = within + np.where(is_seen, 0, self.pairs[0])
        labels = Labels(np.arange(pairs), np.zeros(pairs), pair, np.zeros(images))
        own = 1 - self.shared - self.by_method - self.by_pair - self.by_seed
        image_part = np.sqrt(self.shared) * rng.standard_normal((2, images))
        runs: list[list[ScoredRun]] = []
        for _ in range(methods):
            method_part = np.sqrt(self.by_method) * rng.standard_normal((2, images))
            method_part += np.sqrt(self.by_pair) * rng.standard_normal((2, pairs))[:, pair]
            runs.append([])
            for seed in range(seeds):
                run_part = np.sqrt(self.by_seed) * rng.standard_normal((2, 1))
                latent = image_part + method_part + run_part + np.sqrt(own) * rng.standard_normal((2, images))
                margin = latent[1] + self.gap * np.where(is_seen, 0.5, -0.5)
                right = latent[0] < norm.ppf(self.accuracy)
                runs[-1].append(ScoredRun(_record(is_seen, pair, right, margin, self.pairs), labels, 0.0, seed))
        return runs


def _record(
    is_seen: np.ndarray, pair: np.ndarray, right: np.ndarray, margin: np.ndarray, pairs: tuple[int, int]
) -> ImageScores:
    """The record of images with these margins [N] and credits bool [N]; a wrong champion is the next pair's column."""
    seen_winner = np.where(is_seen, (pair + ~right) % pairs[0], pair % pairs[0])
    unseen_winner = pairs[0] + (pair - pairs[0] + (~is_seen & ~right)) % pairs[1]
    best_seen, best_unseen = margin.astype(np.float32), np.zeros(len(pair), dtype=np.float32)
    best = np.where(is_seen, best_seen, best_unseen)
    return ImageScores(
        is_seen, best_seen, best_unseen, right, np.ones(len(pair)), seen_winner, unseen_winner, pair,
        np.where(right, best, best - 1), best_seen, best_unseen,
    )  # fmt: skip
