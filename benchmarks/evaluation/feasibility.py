"""Where the feasibility scores of a run come from, and what of that belongs to the run's identity.

The tables that come with the suite and files of word vectors need no model (`datasets/feasibility.py`), nor does a
table of the user's own (`datasets/feasibility_table.py`); here are CLIP's text features of the words, the choice of the
source, and what scores say about unseen pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.evaluation.thresholds import feasibility_grid, feasibility_of, kept
from benchmarks.runs.open_world_settings import OpenWorld, OpenWorldSettings
from benchmarks.runs.settings import Provenance, Values
from benchmarks.runs.spec import Profile
from datasets.base import CompositionDataset, clean_label
from datasets.feasibility import Feasibility, Source, cached, from_glove, shipped, shipped_names
from datasets.feasibility_table import from_table
from errors import UserError

if TYPE_CHECKING:
    from methods.backbone.clip import Backbone

TEMPLATE = "a photo of {}"
EXAMPLES = 4  # pairs named at each end


def source_of(setting: str, dataset: CompositionDataset) -> Source | None:
    """Return the source that a setting means for a data set, None for "none" (see `OpenWorldSettings`).

    A table that is asked for and does not exist, or a setting that is none, is a `UserError`.
    """
    check_source(setting)
    if setting == "none":
        return None
    if setting == "auto":
        return "clip" if shipped(dataset) is None else "shipped"
    if setting == "shipped" and shipped(dataset) is None:
        raise UserError(
            f"No feasibility table for {dataset.name} comes with the suite.",
            f"There are tables for the official words and training pairs of {', '.join(shipped_names())}.",
            "Take glove:<file of word vectors> or table:<file of scores>; runs can take clip, too.",
        )
    if setting == "shipped":
        return "shipped"
    if setting == "clip":
        return "clip"
    return "table" if setting.startswith("table:") else "glove"


def check_source(setting: str) -> None:
    """Raise the `UserError` of a setting that means no source, whatever the data set."""
    if setting not in ("none", "auto", "shipped", "clip") and not setting.startswith(("glove:", "table:")):
        raise UserError(
            f"There is no source of feasibility scores '{setting}'.",
            "There are auto, shipped, clip, glove:<file of word vectors> and table:<file of scores>.",
            "Choose one of these.",
        )


def feasibility(
    dataset: CompositionDataset, setting: str, digest: Callable[[], str], load: Callable[[], Backbone]
) -> Feasibility:
    """Return the scores that a setting means for a data set; digest, load: of the backbone, for "clip" alone."""
    source = source_of(setting, dataset)
    if source == "glove":
        return from_glove(dataset, Path(setting.partition(":")[2]).expanduser())
    if source == "table":
        return from_table(dataset, Path(setting.partition(":")[2]).expanduser())
    if source == "clip":
        return from_clip(dataset, digest(), load)
    table = shipped(dataset)
    if source is None or table is None:
        raise UserError(f"'{setting}' gives no feasibility scores.", "It keeps every pair.", "Name a source.")
    return table


def from_clip(dataset: CompositionDataset, digest: str, load: Callable[[], Backbone]) -> Feasibility:
    """Return the scores from the text features of "a photo of <word>", cached per data set and backbone.

    digest: of the backbone's weights. load: called if the scores are not in the cache; the features are fp32.
    """

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        vocabulary, backbone = dataset.vocabulary, load()
        return clip_vectors(backbone, vocabulary.states), clip_vectors(backbone, vocabulary.objects)

    return cached(dataset, "clip", f"{TEMPLATE} {digest}", vectors)


def clip_vectors(backbone: Backbone, labels: Sequence[str]) -> np.ndarray:
    """Return the text feature of each cleaned label in the template, float32 [N, d], not normalised."""
    return backbone.encode_sentences([TEMPLATE.format(clean_label(label)) for label in labels]).cpu().numpy()


def open_world(
    settings: OpenWorldSettings,
    provenance: Provenance,
    profile: Profile,
    dataset: CompositionDataset,
    table: Callable[[], Feasibility],
) -> OpenWorld | None:
    """Return the open-world part of a run's identity; None where every pair is kept.

    table: called for the scores of a source whose digest belongs to the identity. Settings that contradict each other
    or the data set are a `UserError`.
    """
    source = source_of(settings.feasibility, dataset)
    if source is None:
        if provenance["threshold"]["origin"] in ("command line", "file"):
            raise UserError(
                f"The threshold {settings.threshold} has nothing to be compared with.",
                "It is one of feasibility scores, and feasibility is none.",
                "Leave one of the two out.",
            )
        return None
    if dataset.seen.all():
        raise UserError(
            f"{dataset.name} has no open world to put a threshold to.",
            "Every state x object has training images.",
            "Use --world closed, or --set feasibility=none.",
        )
    return OpenWorld(
        feasibility=source,
        feasibility_digest=None if source == "clip" else table().digest,
        threshold=settings.threshold,
        masking=settings.masking or profile,
        selection_world=settings.selection_world or ("closed" if profile == "official" else "open"),
    )


def refuse_open_world_settings(values: Mapping[str, Values]) -> None:
    """Raise a `UserError` for values by method that no run in the closed world reads."""
    for key in OpenWorldSettings.model_fields:
        if any(key in own for own in values.values()):
            raise UserError(
                f"The setting '{key}' belongs to the open world.",
                "All of these runs are in the closed world, where no pair is removed.",
                "Add --world open, or leave it out.",
            )


@dataclass(frozen=True)
class Kept:
    """What a threshold leaves.

    place: its index in the grid, None where it is none of the grid's
    unseen: how many of all unseen pairs
    val, test: how many of the unseen pairs in the phase's list
    """

    place: int | None
    threshold: float
    unseen: int
    val: int
    test: int


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores of the unseen pairs at a glance.

    quantiles: smallest, quartiles, largest. not_positive: grid thresholds of 0 or less. auroc: of a phase's own unseen
    pairs ("val", "test") against the pairs of no list, NaN if there are none of either; 1/2 is chance. highest, lowest:
    (state, object, score) of the first and last few pairs. kept: a row per threshold asked for.
    """

    quantiles: tuple[float, ...]
    not_positive: int
    auroc: dict[str, float]
    highest: Sequence[tuple[str, str, float]]
    lowest: Sequence[tuple[str, str, float]]
    kept: Sequence[Kept]


def summarise(dataset: CompositionDataset, table: np.ndarray, places: Sequence[int], *thresholds: float) -> Summary:
    """Return what scores say: at some places of the threshold grid, and at thresholds beside it.

    A data set without unseen pairs raises ValueError.
    """
    candidates = replace(dataset, feasibility=table).candidates("val", "open")
    grid = feasibility_grid(candidates)
    unseen = ~candidates.seen
    own = {phase: _listed(dataset, phase) & ~dataset.seen for phase in ("val", "test")}
    own = {phase: pairs[candidates.states, candidates.objects] for phase, pairs in own.items()}
    rest = unseen & ~own["val"] & ~own["test"]
    scores = feasibility_of(candidates)

    def row(place: int | None, threshold: float) -> Kept:
        keep = kept(candidates, threshold) & unseen
        return Kept(place, float(threshold), *(int((keep & group).sum()) for group in (unseen, *own.values())))

    order = np.flatnonzero(unseen)[np.argsort(scores[unseen], kind="stable")]

    def named(columns: np.ndarray) -> list[tuple[str, str, float]]:
        pairs = candidates.subset(columns).names()
        return [(*pair, float(score)) for pair, score in zip(pairs, scores[columns], strict=True)]

    return Summary(
        quantiles=tuple(float(value) for value in np.quantile(scores[unseen], [0, 0.25, 0.5, 0.75, 1])),
        not_positive=int((grid <= 0).sum()),
        auroc={phase: _auroc(scores[pairs], scores[rest]) for phase, pairs in own.items()},
        highest=named(order[: -1 - EXAMPLES : -1]),
        lowest=named(order[:EXAMPLES]),
        kept=[row(place, grid[place]) for place in places] + [row(None, threshold) for threshold in thresholds],
    )


def _listed(dataset: CompositionDataset, phase: str) -> np.ndarray:
    table = np.zeros_like(dataset.seen)
    pairs = dataset.vocabulary.indices(dataset.val_pairs if phase == "val" else dataset.test_pairs)
    table[pairs[:, 0], pairs[:, 1]] = True
    return table


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    from scipy.stats import mannwhitneyu

    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    return float(mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative)))
