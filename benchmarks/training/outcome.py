"""What a trained run is judged by: the result's numbers, and what is kept of each image to make them again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.evaluation import breakdowns
from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.legacy import legacy_from_image_scores
from benchmarks.evaluation.metrics import Labels, Metrics
from benchmarks.evaluation.selection import Rule
from benchmarks.runs.checkpoints import Progress
from benchmarks.runs.result import Counts, Legacy, Selection
from datasets.base import Candidates, CompositionDataset, Phase

if TYPE_CHECKING:  # it imports torch, and scores from a file need none
    from benchmarks.evaluation.open_world import ThresholdedWorld


def judged(
    dataset: CompositionDataset,
    candidates: Mapping[Phase, Candidates],
    world: ThresholdedWorld | None,
    scores: Mapping[Phase, ImageScores],
    test_labels: Labels,
    bias: float,
) -> dict[str, Any]:
    """Return the fields of a `Result` that the scores of test images and the data decide, by name.

    scores: of "test", and of "val" where there are any
    bias: chosen on validation, for what is broken down
    """
    test = scores["test"]
    return {
        **({} if world is None else {"open_world": world.describe(dataset)}),
        "legacy": Legacy(test=legacy_from_image_scores(test, test_labels)),
        "slices": breakdowns.slice_accuracies(test, test_labels, dataset.splits["test"].slices, bias=bias),
        "errors": breakdowns.error_kinds(test, test_labels, bias=bias),
        "macro": breakdowns.macro_accuracies(test, test_labels, bias=bias),
        "calibration": breakdowns.calibration(test, bias=bias),
        "counts": Counts(
            train_images=len(dataset.splits["train"].states),
            test_images=len(test),
            **({"val_images": len(scores["val"])} if "val" in scores else {}),
            **{f"{phase}_candidates": len(pairs) for phase, pairs in candidates.items()},
        ),
        **({"left_out_images": list(dataset.left_out)} if dataset.left_out else {}),
    }


def score_arrays(
    dataset: CompositionDataset,
    candidates: Mapping[Phase, Candidates],
    world: ThresholdedWorld | None,
    scores: Mapping[Phase, ImageScores],
) -> dict[str, np.ndarray]:
    """Return per image what every metric, test and picture can be made from: scores, targets, slices, names."""
    vocabulary = dataset.vocabulary
    arrays: dict[str, np.ndarray] = {
        "names.states": np.asarray(vocabulary.states, dtype=np.str_),
        "names.objects": np.asarray(vocabulary.objects, dtype=np.str_),
    }
    for phase, record in scores.items():
        pairs, split = candidates[phase], dataset.splits[phase]
        content = record.to_arrays() | {"states": split.states, "objects": split.objects}
        content |= {"candidate_pairs": pairs.pairs, "candidate_seen": pairs.seen}
        content["images"] = np.asarray(split.images, dtype=np.str_)
        if world is not None:
            content["candidate_kept"] = world.kept
        content |= {f"tag.{name}": np.asarray(values, dtype=np.str_) for name, values in split.slices.items()}
        arrays |= {f"{phase}.{name}": values for name, values in content.items()}
    return arrays


def selected(policy: str, rule: Rule, progress: Progress | None, bias: float, no_bias: str | None) -> Selection:
    """Return how the epoch and the bias were chosen.

    policy: the setting that names the rule
    progress: of the training, None where nothing is trained
    no_bias: why validation gives no bias, if so
    """
    about = {"bias": bias, **({"no_bias": no_bias} if no_bias else {})}
    if progress is None:
        return Selection(policy="nothing to select", epoch=None, value=None, **about)
    best = progress.best_value
    return Selection(policy=policy, epoch=progress.best_epoch, value=best, **about, **rule.recorded(best))


def headline(metrics: Metrics, loss: float) -> dict[str, float]:
    """Return the numbers that an epoch's record keeps; loss: of validation, NaN where it was not computed."""
    names = ("auc", "best_hm", "best_seen", "best_unseen", "gate")
    numbers = {name: getattr(metrics, name) for name in names}
    return numbers if math.isnan(loss) else {**numbers, "loss": loss}
