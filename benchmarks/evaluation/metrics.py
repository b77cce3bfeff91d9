"""Exact generalised evaluation: S, U, G, AUC and best HM of the curve, and the accuracies at single biases.

Pure numpy: records in, frozen records out, nothing printed. Accuracies are fractions in [0, 1]. What is undefined is
NaN with a reason, never 0 (docs/protocol.md, "Exact sweep"). Finer break-downs are in `breakdowns.py`, the published
20-point sweep in `legacy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from benchmarks.evaluation.curve import Curve, auc_placements, exact_curve, harmonic_mean, placement_error
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.runs.numbers import BiasAccuracies, Metrics


def seen_share(scores: ImageScores, bias: float) -> np.ndarray:
    """Return how surely the seen champion is predicted at a bias, float64 [N]: 1, 0, or 1/2 if bias = margin.

    NaN at a bias that is NaN, one that validation could not choose: every number at it is then undefined.
    """
    if np.isnan(bias):
        return np.full(len(scores), np.nan)
    return (bias < scores.margins) + 0.5 * (bias == scores.margins)


def pair_credit(scores: ImageScores, bias: float | None) -> np.ndarray:
    """Return how right each image's predicted pair is, float64 [N] in [0, 1], averaged over random tie-breaking.

    bias None: the pair is sought in the image's own group only, as if the other group were forbidden.
    """
    if bias is None:
        return scores.correct
    share = seen_share(scores, bias)
    return scores.correct * np.where(scores.is_seen, share, 1 - share)


def primitive_credit(scores: ImageScores, labels: Labels, bias: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return how right the state and the object of each image's predicted pair are, float64 [N] each in [0, 1].

    bias None: as in `pair_credit`. A tie inside a group gives its first column, the only one that the record keeps; a
    tie between the two champions counts each half.
    """
    share = scores.is_seen.astype(np.float64) if bias is None else seen_share(scores, bias)
    seen_state, seen_object = labels.agree(scores.seen_winner)
    unseen_state, unseen_object = labels.agree(scores.unseen_winner)
    return share * seen_state + (1 - share) * unseen_state, share * seen_object + (1 - share) * unseen_object


def mean_or_nan(values: np.ndarray) -> float:
    """Return the mean, NaN (without a warning) of nothing."""
    return float(values.mean()) if len(values) else np.nan


def accuracies_at_bias(scores: ImageScores, labels: Labels, bias: float) -> BiasAccuracies:
    """Return all accuracies when `bias` is added to the unseen scores."""
    pair = pair_credit(scores, bias)
    state, obj = primitive_credit(scores, labels, bias)
    seen, unseen = scores.is_seen, ~scores.is_seen
    return BiasAccuracies(
        bias=float(bias),
        pair=mean_or_nan(pair),
        state=mean_or_nan(state),
        object=mean_or_nan(obj),
        seen_pair=mean_or_nan(pair[seen]),
        unseen_pair=mean_or_nan(pair[unseen]),
        hm=hm_at_bias(scores, bias),
        seen_state=mean_or_nan(state[seen]),
        unseen_state=mean_or_nan(state[unseen]),
        seen_object=mean_or_nan(obj[seen]),
        unseen_object=mean_or_nan(obj[unseen]),
    )


def hm_at_bias(scores: ImageScores, bias: float) -> float:
    """Return the harmonic mean at a bias chosen elsewhere, as a rule on validation; NaN if a group is empty."""
    pair = pair_credit(scores, bias)
    return float(harmonic_mean(mean_or_nan(pair[scores.is_seen]), mean_or_nan(pair[~scores.is_seen])))


def evaluate(
    scores: ImageScores, labels: Labels, *, bias: float | None = None, no_bias: str = "validation has none"
) -> Metrics:
    """Return all metrics of the scores; `bias` is one chosen elsewhere, as a rule the validation optimum.

    A bias of NaN could not be chosen, and `no_bias` says why: what is at it is then NaN with this reason. ValueError
    if the labels belong to another number of images, to fewer candidates or to other pairs.
    """
    _check(scores, labels)
    curve = exact_curve(scores)
    point = curve.best_hm
    values = {
        "best_seen": float(curve.seen[0]),
        "best_unseen": float(curve.unseen[-1]),
        "gate": curve.gate,
        "auc": curve.auc,
        "auc_standard_error": placement_error(*auc_placements(scores)),
        "best_hm": point.hm,
        "best_hm_seen": point.seen,
        "best_hm_unseen": point.unseen,
        "best_hm_bias": point.bias,
        "unseen_cap": mean_or_nan(scores.true_score[~scores.is_seen] > -np.inf),
    }
    at_zero = accuracies_at_bias(scores, labels, 0.0)
    at_bias = None if bias is None else accuracies_at_bias(scores, labels, bias)
    return Metrics(
        images=len(scores),
        seen_images=curve.seen_images,
        unseen_images=curve.unseen_images,
        best_hm_interval=point.interval,
        tied_images=int((scores.ties > 1).sum()),
        at_zero=at_zero,
        at_bias=at_bias,
        undefined=_reasons(curve, values, {"at_zero": at_zero, "at_bias": at_bias}, no_bias),
        **values,
    )


def _reasons(
    curve: Curve, values: Mapping[str, float], nested: Mapping[str, BiasAccuracies | None], no_bias: str
) -> dict[str, str]:
    """Say why each NaN is one. no_bias: why the bias of `at_bias` is one, where it is."""
    flat = dict(values)
    for name, accuracies in nested.items():
        if accuracies is not None:
            flat |= {f"{name}.{item.name}": getattr(accuracies, item.name) for item in fields(accuracies)}
    absent = [name for name, count in (("seen", curve.seen_images), ("unseen", curve.unseen_images)) if count == 0]
    empty = f"there are no {' and no '.join(absent)} images"
    otherwise = {"gate": "S x U is 0", "auc_standard_error": "a group has fewer than two images"}
    unchosen = np.isnan(flat.get("at_bias.bias", 0.0))

    def reason(name: str) -> str:
        if unchosen and name.startswith("at_bias."):
            return f"no bias was chosen, because {no_bias}"
        return empty if absent else otherwise[name]

    return {name: reason(name) for name, value in flat.items() if np.isnan(value)}


def _check(scores: ImageScores, labels: Labels) -> None:
    if len(labels.states) != len(scores) or len(labels.objects) != len(scores):
        raise ValueError(f"labels of {len(labels.states)} images were given for the scores of {len(scores)}")
    columns = [scores.seen_winner, scores.unseen_winner, scores.true_column]
    last = max(int(column.max(initial=-1)) for column in columns)
    if last >= len(labels.candidate_states) or len(labels.candidate_states) != len(labels.candidate_objects):
        raise ValueError(
            f"labels of {len(labels.candidate_states)} candidates were given, the scores name column {last}"
        )
    # Two index spaces of pairs mixed up is an error that no number shows.
    state, obj = labels.agree(scores.true_column)
    wrong = (scores.true_column >= 0) & ~(state & obj)
    if wrong.any():
        raise ValueError(f"the true column of {wrong.sum()} images has another state or object than the labels say")
