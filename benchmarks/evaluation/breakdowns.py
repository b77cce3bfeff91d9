"""Where a method wins and how it fails: accuracies per slice, error kinds, accuracy per pair, calibration.

Pure numpy, from the same per-image record as the headline numbers (docs/protocol.md, "Further numbers"). All values are
fractions in [0, 1]; a mean over no images is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.evaluation.curve import harmonic_mean
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.metrics import mean_or_nan, pair_credit, primitive_credit, seen_share
from benchmarks.runs.numbers import Calibration, ErrorKinds, MacroAccuracies, SliceAccuracies

BINS = 15
"""Of the calibration, with equally many images each."""


def slice_accuracies(
    scores: ImageScores, labels: Labels, tags: Mapping[str, np.ndarray], *, bias: float = 0.0
) -> list[SliceAccuracies]:
    """Return a row per tag, tag value (sorted) and group. `tags`: named per-image tags, arrays [N].

    ValueError if a tag has another number of images.
    """
    credits = [
        values for at in (None, bias) for values in (pair_credit(scores, at), *primitive_credit(scores, labels, at))
    ]
    rows = []
    for tag, per_image in tags.items():
        values = np.asarray(per_image)
        if values.shape != (len(scores),):
            raise ValueError(f"the tag '{tag}' has shape {values.shape}, there are {len(scores)} images")
        for value in np.unique(values):
            for group in ("seen", "unseen"):
                which = (values == value) & (scores.is_seen == (group == "seen"))
                means = [mean_or_nan(credit[which]) for credit in credits]
                rows.append(SliceAccuracies(tag, str(value), group, int(which.sum()), float(bias), *means))
    return rows


def error_kinds(scores: ImageScores, labels: Labels, *, bias: float = 0.0) -> ErrorKinds:
    """Return the error kinds of the unseen images; ties inside a group as in `primitive_credit`."""
    unseen = ~scores.is_seen
    image_scores, image_labels = scores.subset(unseen), labels.subset(unseen)
    share = seen_share(image_scores, bias)
    kinds = np.zeros((len(image_scores), 4))
    taken = []
    for winner, weight in ((image_scores.seen_winner, share), (image_scores.unseen_winner, 1 - share)):
        state, obj = image_labels.agree(winner)
        kinds += weight[:, None] * np.stack([state & obj, ~state & obj, state & ~obj, ~state & ~obj], axis=1)
        taken.append(mean_or_nan(weight * ~(state & obj)))
    return ErrorKinds(float(bias), len(image_scores), *(mean_or_nan(column) for column in kinds.T), *taken)


def macro_accuracies(scores: ImageScores, labels: Labels, *, bias: float = 0.0) -> MacroAccuracies:
    """Return accuracies in which every pair counts the same, however many images it has."""
    credit = pair_credit(scores, bias)
    counts, means = [], []
    for group in (scores.is_seen, ~scores.is_seen):
        pairs = np.stack([labels.states[group], labels.objects[group]], axis=1)
        distinct, pair = np.unique(pairs, axis=0, return_inverse=True)
        pair = pair.reshape(-1)  # numpy 2.0 alone returns it as a column
        per_pair = np.bincount(pair, credit[group], len(distinct)) / np.bincount(pair, minlength=len(distinct))
        counts.append(len(distinct))
        means.append(mean_or_nan(per_pair))
    hm = float(harmonic_mean(*means))
    return MacroAccuracies(float(bias), counts[0], counts[1], means[0], means[1], hm)


def calibration(scores: ImageScores, *, bias: float = 0.0) -> Calibration:
    """Return the calibration of the predicted pair's softmax probability, the bias inside the softmax.

    The scores are taken as logits; for a temperature, score with it. For seen or unseen images alone, pass their
    subset. Fewer images than `BINS` give fewer bins.
    """
    top = np.maximum(scores.best_seen.astype(np.float64), scores.best_unseen.astype(np.float64) + bias)
    with np.errstate(invalid="ignore"):
        log_total = np.logaddexp(scores.logsumexp_seen, scores.logsumexp_unseen + bias)
        log_confidence = np.where(np.isfinite(top), top - log_total, -np.inf)
    # The sums may come from single precision, where a lone candidate's can round to just below its score.
    confidence = np.exp(np.minimum(log_confidence, 0.0))
    credit = pair_credit(scores, bias)
    order = np.argsort(confidence, kind="stable")
    groups = [group for group in np.array_split(order, BINS) if len(group)]
    counts = np.array([len(group) for group in groups], dtype=np.int64)
    confidences = np.array([confidence[group].mean() for group in groups])
    accuracies = np.array([credit[group].mean() for group in groups])
    gaps = accuracies - confidences
    weights = counts / (len(scores) or np.nan)
    error = float(weights @ np.abs(gaps)) if len(scores) else np.nan
    signed = float(weights @ gaps) if len(scores) else np.nan
    return Calibration(float(bias), error, signed, counts, confidences, accuracies)
