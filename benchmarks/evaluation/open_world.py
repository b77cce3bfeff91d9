"""A run's open world: its threshold, chosen on validation or given, and what the record says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import mean_or_nan
from benchmarks.evaluation.open_scoring import score_thresholds
from benchmarks.evaluation.thresholds import ThresholdChoice, ThresholdScores, choose_threshold, feasibility_grid, kept
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.result import Kept, OpenWorldResult, UnseenCap
from datasets.base import Candidates, CompositionDataset, Pair, Phase
from datasets.feasibility import table_digest
from methods.base import Batch, Method


class ThresholdedWorld:
    """Scores images against the open world's candidates under a threshold. choice: what validation said last.

    join: makes the record of all images from that of this process's own, see `Group.join`.
    """

    def __init__(
        self,
        settings: OpenWorld,
        candidates: Candidates,
        join: Callable[[ThresholdScores], ThresholdScores] = lambda record: record,
    ) -> None:
        searched = settings.threshold == "search"
        self.settings, self.join = settings, join
        self.candidates = candidates
        self.thresholds = feasibility_grid(candidates) if searched else np.array([settings.threshold], dtype=np.float64)
        self.choice: ThresholdChoice | None = None

    @property
    def threshold(self) -> float:
        """The threshold in force: the given one, or the one that validation chose last; ValueError before it did."""
        if self.settings.threshold != "search":
            return self.settings.threshold
        if self.choice is None:
            raise ValueError("the threshold is chosen on validation, which has not been scored yet")
        return self.choice.threshold

    @property
    def kept(self) -> np.ndarray:
        """Which candidates the threshold in force keeps, bool [P]."""
        return kept(self.candidates, self.threshold)

    def validate(self, method: Method, batches: Iterable[Batch], labels: Labels, pair_chunk: int) -> ImageScores:
        """Score the validation images under all thresholds, choose one and return their scores under it."""
        record = self.join(score_thresholds(method, batches, self.candidates, self.thresholds, pair_chunk=pair_chunk))
        self.choice = choose_threshold(record, labels, self.settings.masking)
        return record.at(self.choice.index, self.settings.masking)

    def score(self, method: Method, batches: Iterable[Batch], pair_chunk: int) -> ImageScores:
        """Score images under the threshold in force; pairs below it are never scored."""
        record = self.join(score_thresholds(method, batches, self.candidates, [self.threshold], pair_chunk=pair_chunk))
        return record.at(0, self.settings.masking)

    def describe(self, dataset: CompositionDataset) -> OpenWorldResult:
        """Return what a result says of the open world."""
        candidates, keep = self.candidates, self.kept
        shares: dict[str, tuple[int, int]] = {"pairs": _share(keep[~candidates.seen])}
        unseen_cap: dict[str, float] = {}
        lists: dict[Phase, Sequence[Pair]] = {"val": dataset.val_pairs, "test": dataset.test_pairs}
        for phase, pairs in lists.items():
            listed = candidates.index_of(*dataset.vocabulary.indices(pairs).T)
            split = dataset.splits[phase]
            images = candidates.index_of(split.states, split.objects)
            shares[f"{phase}_pairs"] = _share(keep[listed[~candidates.seen[listed]]])
            unseen_cap[phase] = mean_or_nan(keep[images[~candidates.seen[images]]])
        return OpenWorldResult(
            feasibility=self.settings.feasibility,
            feasibility_digest=None if dataset.feasibility is None else table_digest(dataset.feasibility),
            masking=self.settings.masking,
            selection_world=self.settings.selection_world,
            threshold=self.threshold,
            searched=self.settings.threshold == "search",
            chosen_by=self._chosen_by(),
            grid=self.thresholds.tolist(),
            val_aucs=[] if self.choice is None else self.choice.aucs.tolist(),
            kept=Kept(**shares),
            unseen_cap=UnseenCap(**unseen_cap),
        )

    def _chosen_by(self) -> str:
        if self.choice is not None and self.choice.by and self.settings.threshold == "search":
            return self.choice.by
        return "exact AUC" if self.settings.masking == "clean" else "AUC of the published sweep"


def _share(flags: np.ndarray) -> tuple[int, int]:
    return int(flags.sum()), len(flags)
