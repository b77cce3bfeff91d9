"""Vocabulary, candidates and index conventions."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.base import Vocabulary, clean_label
from errors import UserError


def test_vocabulary_is_in_code_point_order():
    vocabulary = Vocabulary.from_pairs([("wet", "cat"), ("Old", "cat"), ("old", "Dog")])
    assert vocabulary.states == ("Old", "old", "wet")
    assert vocabulary.objects == ("Dog", "cat")
    assert vocabulary.indices([("wet", "Dog"), ("Old", "cat")]).tolist() == [[2, 0], [0, 1]]


def test_an_unknown_word_is_named():
    with pytest.raises(UserError, match="The state 'dry' of the pair 'dry cat'"):
        Vocabulary.from_pairs([("wet", "cat")]).indices([("dry", "cat")])


@pytest.mark.parametrize(
    ("label", "text"),
    [("Faux.Fur", "faux fur"), ("Boots.Mid-Calf", "boots mid-calf"), ("black_and_white", "black_and_white")],
)
def test_labels_are_cleaned_as_in_the_clip_repositories(label, text):
    assert clean_label(label) == text


def test_closed_candidates_leave_out_the_other_phase(toy):
    val, test, train = toy.candidates("val"), toy.candidates("test"), toy.candidates("train")
    assert [len(c) for c in (train, val, test)] == [12, 14, 14]
    assert train.seen.all()
    assert [name for name, seen in zip(test.names(), test.seen, strict=True) if not seen] == [
        ("mossy", "house"),
        ("outlined", "car"),
    ]
    assert val.names() == sorted(val.names())


def test_open_candidates_are_state_major(toy):
    world = toy.candidates("test", "open")
    assert len(world) == 16
    assert np.array_equal(world.states * 4 + world.objects, np.arange(16))
    assert world.seen.sum() == 12


def test_columns_of_images(toy):
    for phase in ("train", "val", "test"):
        candidates, split = toy.candidates(phase), toy.splits[phase]
        columns = candidates.index_of(split.states, split.objects)
        assert (candidates.pairs[columns] == np.stack([split.states, split.objects], axis=1)).all()
    train, test = toy.candidates("train"), toy.splits["test"]
    missing = train.index_of(test.states, test.objects) == -1
    assert missing.sum() == 6, "two unseen pairs of three images each are no training candidates"


def test_subset_keeps_flags(toy):
    candidates = toy.candidates("test")
    part = candidates.subset(~candidates.seen)
    assert len(part) == 2
    assert not part.seen.any()


def test_a_picture_far_too_large_is_refused_as_an_unreadable_one(toy, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="cannot be read"):
        toy.load_image("val", 0)
