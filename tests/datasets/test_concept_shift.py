"""Second images that share a primitive: what may be drawn, how often, and that a draw is a function of its names."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from datasets.concept_shift import ConceptShift, Shift, ShiftRule
from datasets.loaders import image_batches
from datasets.transforms import build_transform
from errors import UserError

# State 3 is seen with object 0 alone, and object 3 with state 0 alone.
STATES = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0])
OBJECTS = np.array([0, 1, 2, 0, 0, 1, 1, 2, 0, 0, 3])
SEEN = {*zip(STATES.tolist(), OBJECTS.tolist(), strict=True)}


def test_a_shift_keeps_one_primitive_and_makes_a_seen_pair():
    shift = ConceptShift(ShiftRule(1.0), STATES, OBJECTS)
    kinds = set()
    for image in range(len(STATES)):
        for epoch in range(40):
            if (drawn := shift.draw(image, 0, epoch)) is None:
                continue
            kinds.add(drawn.shifted)
            assert (drawn.state, drawn.object) in SEEN
            if drawn.shifted == "object":
                assert drawn.state == STATES[image] and drawn.object != OBJECTS[image]
                assert OBJECTS[drawn.image] == drawn.object
            else:
                assert drawn.object == OBJECTS[image] and drawn.state != STATES[image]
                assert STATES[drawn.image] == drawn.state
    assert kinds == {"state", "object"}


def test_the_second_image_may_have_any_other_primitive():
    shift = ConceptShift(ShiftRule(1.0, 1.0), STATES, OBJECTS)
    drawn = [shift.draw(1, 0, epoch) for epoch in range(200)]
    assert {one.image for one in drawn if one is not None and one.object == 0} == {0, 3, 4, 8, 9}


def test_a_sample_without_alternative():
    skip = ConceptShift(ShiftRule(1.0, 1.0), STATES, OBJECTS)
    replace = ConceptShift(ShiftRule(1.0, 1.0, "replace_image"), STATES, OBJECTS)
    assert all(skip.draw(9, 0, epoch) is None for epoch in range(20))
    drawn = [replace.draw(9, 0, epoch) for epoch in range(200)]
    assert {(one.state, one.object) for one in drawn if one is not None} == {(3, 0)}
    assert {one.image for one in drawn if one is not None} == {0, 3, 4, 8, 9}


def test_how_often_and_that_a_draw_depends_on_its_names_alone():
    shift = ConceptShift(ShiftRule(0.1, 0.5, "replace_image"), STATES, OBJECTS)
    first = {(image, epoch): shift.draw(image, 5, epoch) for image in range(11) for epoch in range(500)}
    counted = [one.shifted for one in first.values() if one is not None]
    assert abs(counted.count("object") / len(first) - 0.05) < 0.012
    assert abs(counted.count("state") / len(first) - 0.05) < 0.012
    again = ConceptShift(ShiftRule(0.1, 0.5, "replace_image"), STATES, OBJECTS)
    assert all(again.draw(*key[:1], 5, key[1]) == first[key] for key in reversed(first))
    assert ConceptShift(ShiftRule(0.0), STATES, OBJECTS).draw(0, 5, 0) is None


def batches(toy, workers: int, epoch: int = 1, order: torch.Tensor | None = None):
    """All samples of an epoch with their second images: by row of the split (view, shift, second view)."""
    split = toy.splits["train"]
    shift = ConceptShift(ShiftRule(0.3), split.states, split.objects)
    draw = partial(shift.draw, seed=7, epoch=epoch)
    transform = build_transform(64, (0.5,) * 3, (0.25,) * 3, "crop")
    found = {}
    for batch in image_batches(
        toy, "train", transform, 8, order=order, seed=7, epoch=epoch, workers=workers, second=draw
    ):
        second = iter(() if batch.seconds is None else batch.seconds)
        for place, (row, view) in enumerate(zip(batch.index.tolist(), batch.images, strict=True)):
            one = batch.shifts.get(place)
            found[row] = (view, one, None if one is None else next(second))
    return found


def test_second_images_do_not_depend_on_workers_or_order(toy):
    here = batches(toy, 0)
    count = len(toy.splits["train"])
    there = batches(toy, 2, order=torch.arange(count).flip(0))
    assert set(here) == set(there) == set(range(count))
    shifted = [row for row, (_, one, _) in here.items() if one is not None]
    assert 0.15 * count < len(shifted) < 0.45 * count
    for row, (view, one, second) in here.items():
        assert torch.equal(view, there[row][0]) and one == there[row][1]
        assert (second is None) is (one is None)
        if second is not None:
            assert torch.equal(second, there[row][2])
            assert not torch.equal(second, view), "another image, or at least another view"
    assert [row for row, (_, one, _) in batches(toy, 0, epoch=2).items() if one is not None] != shifted


def test_a_second_image_that_is_missing_is_named_like_a_first(toy, monkeypatch):
    split = toy.splits["train"]
    broken = int(np.flatnonzero(split.objects == split.objects[0])[-1])
    own = type(toy).load_image

    def load(dataset, phase, row):
        if row == broken:
            raise UserError("An image is broken.", "It cannot be read.", "Fetch it again.")
        return own(dataset, phase, row)

    monkeypatch.setattr(type(toy), "load_image", load)
    one = Shift("object", broken, int(split.states[0]), int(split.objects[0]))
    transform = build_transform(64, (0.5,) * 3, (0.25,) * 3)
    order = torch.tensor([row for row in range(len(split.states)) if row != broken])
    with pytest.raises(UserError, match="An image is broken"):
        list(image_batches(toy, "train", transform, 8, order=order, second=lambda row: one if row == 0 else None))
