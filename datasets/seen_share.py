"""Any data set with fewer seen pairs, to ask how recognition of unseen pairs grows with the pairs that training shows.

    python bench.py run --dataset icon_states@seen=0.3
    python bench.py run --dataset path/to/photos@seen=0.3

The share is that of all pairs that occur in the data set. Pairs are put in one order, whatever the share, and the
first are kept, so a smaller share is contained in a larger one. The order begins with pairs that together have every
state and object, then come the seen pairs of test, then those of val, then the rest, each part drawn at random. So as
long as the share allows, test has the same images of the same pairs; its unseen pairs are the same in any case. A pair
that is kept no more is no candidate, and its images are left out of every split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datasets.base import CompositionDataset, Pair, Phase, Split
from datasets.checking.presence import part_of
from datasets.seen_mark import MARK, base_of, has_share
from datasets.streams import stream
from errors import UserError, counted
from registry import DATASETS


def share_of(name: str) -> float | None:
    """Return the share that a name asks for, None where it asks for none; what is no share is a `UserError`."""
    if not has_share(name):
        return None
    if has_share(base_of(name)):
        raise UserError(
            f"'{name}' asks for a share of a share.",
            "A data set has one share of seen pairs.",
            f"Write for example {base_of(base_of(name))}{MARK}0.3.",
        )
    text = name.rpartition(MARK)[2]
    try:
        share = float(text)
    except ValueError:
        share = np.nan
    if not 0 < share < 1:
        raise UserError(
            f"'{text}' in '{name}' is no share of seen pairs.",
            "It is a number above 0 and below 1.",
            f"Write for example {base_of(name)}{MARK}0.3.",
        )
    return share


def load(name: str) -> CompositionDataset:
    """Return the data set that a name such as icon_states@seen=0.3 means."""
    share = share_of(name)
    if share is None:
        raise ValueError(f"{name!r} asks for no share")
    return with_share(DATASETS.get(base_of(name))(), share)


def with_share(dataset: CompositionDataset, share: float) -> CompositionDataset:
    """Return a data set of which only a share of the pairs that occur is seen.

    The share that the data set has itself gives the data set. More than that, and too few pairs to show every state and
    object, are a `UserError`.
    """
    train = dataset.train_pairs
    occurring = {*train, *dataset.val_pairs, *dataset.test_pairs}
    wanted, order, least = round(share * len(occurring)), seen_order(dataset), cover_size(dataset)
    if not least <= wanted <= len(train):
        raise UserError(
            f"{dataset.name} cannot have a share of {share:g} seen pairs.",
            f"Of its {len(occurring)} pairs {len(train)} are seen, a share of {len(train) / len(occurring):.3g}, and "
            f"{least} are needed to show every state and object, {least / len(occurring):.3g}.",
            "Choose a share between these two.",
        )
    if wanted == len(train):
        return dataset
    kept = set(order[:wanted])
    gone = set(train) - kept
    splits: dict[Phase, Split] = {}
    for phase, split in dataset.splits.items():
        pairs = zip(split.states.tolist(), split.objects.tolist(), strict=True)
        states, objects = dataset.vocabulary.states, dataset.vocabulary.objects
        splits[phase] = part_of(split, np.array([(states[s], objects[o]) not in gone for s, o in pairs], dtype=bool))
    digest = hashlib.sha256(json.dumps([dataset.digest, MARK, sorted(kept)]).encode()).hexdigest()
    made = replace(
        dataset,
        name=f"{dataset.name}{MARK}{share:g}",
        title=f"{dataset.title}, {share:g} of its pairs seen",
        train_pairs=tuple(pair for pair in train if pair in kept),
        val_pairs=tuple(pair for pair in dataset.val_pairs if pair not in gone),
        test_pairs=tuple(pair for pair in dataset.test_pairs if pair not in gone),
        splits=splits,
        digest=digest,
        feasibility=None,
    )
    return replace(made, notes=(*dataset.notes, _said(dataset, made)))


def _said(whole: CompositionDataset, made: CompositionDataset) -> str:
    """Say what the share leaves."""
    lost = {phase: len(whole.splits[phase]) - len(made.splits[phase]) for phase in ("val", "test")}
    losses = [f"{counted(count, 'image')} of {phase}" for phase, count in lost.items() if count]
    rest = f"left out with their pairs are {' and '.join(losses)}" if losses else "so are all images of val and test"
    return (
        f"{len(made.train_pairs)} of the {len(whole.train_pairs)} seen pairs of {whole.name} are kept, with "
        f"{counted(len(made.splits['train']), 'training image')} of {len(whole.splits['train']):,}. The unseen pairs "
        f"of val and test are the same at every share; {rest}."
    )


def seen_order(dataset: CompositionDataset) -> list[Pair]:
    """Return the training pairs in the order in which they are kept; it depends on the pair lists alone."""
    drawn = sorted(dataset.train_pairs)
    drawn = [drawn[index] for index in stream("seen share", len(drawn)).permutation(len(drawn))]
    tested, validated = set(dataset.test_pairs), set(dataset.val_pairs)
    ranked = sorted(drawn, key=lambda pair: 0 if pair in tested else 1 if pair in validated else 2)  # a stable sort
    cover = _cover(ranked)
    return [*cover, *(pair for pair in ranked if pair not in set(cover))]


def cover_size(dataset: CompositionDataset) -> int:
    """Return how many pairs the order begins with that together have every state and object of training."""
    words = [{pair[place] for pair in dataset.train_pairs} for place in (0, 1)]
    order = seen_order(dataset)
    for size in range(1, len(order) + 1):
        if all({pair[place] for pair in order[:size]} == words[place] for place in (0, 1)):
            return size
    return len(order)


def _cover(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs that together have every word: first those that bring two new ones, then those that bring one."""
    states: set[str] = set()
    objects: set[str] = set()
    chosen: list[Pair] = []
    for news in (2, 1):
        for state, obj in pairs:
            if (state not in states) + (obj not in objects) >= news:
                chosen.append((state, obj))
                states.add(state)
                objects.add(obj)
    return chosen
