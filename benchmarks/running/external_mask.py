"""Feasibility over a user's open-world scores: where it comes from, which threshold, and the scores under it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.matrix import Order
from benchmarks.evaluation.matrix_files import MatrixFile
from benchmarks.evaluation.matrix_signs import Signs
from benchmarks.runs.open_world_settings import Masking, OpenWorld, OpenWorldSettings
from datasets.base import CompositionDataset, Split, World
from errors import UserError

if TYPE_CHECKING:  # it imports torch, and scores without a threshold need none
    from benchmarks.evaluation.open_world import ThresholdedWorld


@dataclass(frozen=True)
class Mask:
    """What a user says of it.

    feasibility: a source as `--set feasibility=` has it, but clip.
    threshold: a number, or "search".
    masking: see `OpenWorld`.
    """

    feasibility: str
    threshold: str = "search"
    masking: Masking = "clean"

    def on(self, dataset: CompositionDataset, world: World, *, validated: bool) -> Masked:
        """Return what removes pairs of a data set; a source or threshold that cannot be is a `UserError`.

        validated: whether there are validation scores, which a search needs.
        """
        from benchmarks.evaluation.feasibility import check_source, feasibility, open_world
        from benchmarks.evaluation.open_world import ThresholdedWorld

        check_source(self.feasibility)
        if world != "open":
            raise UserError(
                f"The feasibility {self.feasibility} has nothing to remove.",
                "These scores are of the closed world.",
                "Add --world open, or leave it out.",
            )
        threshold = self._number()
        if threshold is None and not validated:
            raise UserError(
                "The threshold of feasibility cannot be searched.",
                "Validation chooses it, and there is no --val.",
                "Pass validation's scores, or --threshold with a number.",
            )

        def of_backbone() -> str:
            raise UserError(
                "Feasibility by CLIP needs a backbone.",
                f"Scores from a file have none, and {dataset.name} has no table here.",
                "Take shipped, glove:<file of word vectors> or table:<file of scores>.",
            )

        found = feasibility(dataset, self.feasibility, of_backbone, of_backbone)  # type: ignore[arg-type]  # it only raises
        settings = open_world(
            OpenWorldSettings(
                feasibility=self.feasibility,
                threshold="search" if threshold is None else threshold,
                masking=self.masking,
                selection_world="open",
            ),
            {"threshold": {"origin": "command line"}},
            "clean",
            dataset,
            lambda: found,
        )
        assert settings is not None  # "none" is no mask
        dataset = replace(dataset, feasibility=found.scores)
        return Masked(dataset, settings, ThresholdedWorld(settings, dataset.candidates("val", "open")))

    def _number(self) -> float | None:
        """Return the threshold, None for "search"."""
        if self.threshold == "search":
            return None
        try:
            number = float(self.threshold)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"'{self.threshold}' is no threshold.",
                "It is a number or 'search'.",
                "Pass --threshold with one of these.",
            )
        return number


@dataclass(frozen=True, eq=False)
class Masked:
    """A data set with feasibility, and its open world under a threshold."""

    dataset: CompositionDataset
    settings: OpenWorld
    world: ThresholdedWorld

    def score(self, matrix: MatrixFile, order: Order, split: Split, labels: Labels) -> tuple[ImageScores, Signs]:
        """Return the record under the threshold in force; the scores of validation choose it where it is searched."""
        from benchmarks.evaluation.matrix_thresholds import threshold_matrix
        from benchmarks.evaluation.thresholds import choose_threshold

        candidates, masking = self.world.candidates, self.settings.masking
        if split.name != "val":
            record, signs = threshold_matrix(matrix, order, candidates, split, [self.world.threshold])
            return record.at(0, masking), signs
        record, signs = threshold_matrix(matrix, order, candidates, split, self.world.thresholds)
        self.world.choice = choose_threshold(record, labels, masking)
        return record.at(self.world.choice.index, masking), signs
