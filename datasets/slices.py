"""Tags by frequency: how often training shows an image's pair, and the rarer of its primitives (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datasets.base import Phase, Split

PAIR_BINS = {1: "0", 2: "1", 6: "2-5", 21: "6-20"}
"""Below how many training images a pair has which tag; "0" is an unseen pair. The tags sort as they should be read."""
PRIMITIVE_BINS = {10: "0-9", 100: "10-99", 1000: "100-999"}


def frequency_tags(splits: Mapping[Phase, Split]) -> dict[Phase, dict[str, np.ndarray]]:
    """Return for each phase the tags of its images, str arrays [N].

    "training images of the pair": of the image's own pair. "of its rarer primitive": the smaller of the numbers of
    training images that show its state and its object.
    """
    train = splits["train"]
    n_states = 1 + max(int(split.states.max(initial=0)) for split in splits.values())
    n_objects = 1 + max(int(split.objects.max(initial=0)) for split in splits.values())
    state_counts = np.bincount(train.states, minlength=n_states)
    object_counts = np.bincount(train.objects, minlength=n_objects)
    pair_counts = np.bincount(train.states * n_objects + train.objects, minlength=n_states * n_objects)
    tags: dict[Phase, dict[str, np.ndarray]] = {}
    for phase, split in splits.items():
        rarer = np.minimum(state_counts[split.states], object_counts[split.objects])
        tags[phase] = {
            "training images of the pair": _named(pair_counts[split.states * n_objects + split.objects], PAIR_BINS),
            "training images of the rarer primitive": _named(rarer, PRIMITIVE_BINS),
        }
    return tags


def _named(counts: np.ndarray, bins: Mapping[int, str]) -> np.ndarray:
    names = np.array([*bins.values(), f">={max(bins)}"])
    return names[np.searchsorted(np.array(sorted(bins)), counts, side="right")]
