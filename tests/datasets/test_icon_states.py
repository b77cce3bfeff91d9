"""icon_states: counts, the rules of a CZSL split, bytes that never change, and what it says of bad folders."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from datasets import icon_states
from datasets.icons.paint import STATES
from datasets.icons.words import CLUTTER, EXTRA_OBJECTS, icon_of, is_plausible, objects
from errors import UserError

PLAN_DIGEST = "152c15cef236c6974c11e2096ba8501b8413bebf8c3eeeafc0844ee47dfcd073"
SAMPLE_DIGEST = "5d498ea24a14e03b0f2ca09e90dd8128daa429bd943a5cd2c33ee393d2474459"
FULL_DIGEST = "da156727f6ea51c0d52c32a2c2a3e26145e2a58ccae7522c4b6ed08226dc7df8"


@pytest.fixture(scope="module")
def dataset():
    return icon_states.load()


def test_words_are_what_the_design_promises():
    kinds = [state.kind for state in STATES.values()]
    assert (len(objects()), len(STATES), kinds.count("local"), kinds.count("global")) == (56, 20, 9, 11)
    assert not set(objects()) & set(EXTRA_OBJECTS)
    assert not {icon_of(word) for word in objects() + EXTRA_OBJECTS} & set(CLUTTER)


def test_pair_lists_obey_the_rules_of_the_real_data_sets():
    plan = icon_states.plan_pairs()
    train, val, test = set(plan.train), set(plan.val), set(plan.test)
    assert (len(train), len(val - train), len(val & train), len(test - train), len(test & train)) == (
        350, 65, 90, 85, 120,
    )  # fmt: skip
    assert not val & test, "no pair is in validation and test"
    assert len(train | val | test) == 500
    assert all(is_plausible(*pair) for pair in train | val | test)
    for place in (0, 1):
        assert {pair[place] for pair in val | test} <= {pair[place] for pair in train}
    assert {state for state, _ in train} == set(STATES)
    assert {obj for _, obj in train} == set(objects())


def test_the_plan_never_changes():
    drawings = icon_states.plan_images(icon_states.plan_pairs())
    assert hashlib.sha256(repr(drawings).encode()).hexdigest() == PLAN_DIGEST
    assert icon_states.plan_pairs(seed=1) != icon_states.plan_pairs(seed=0)


def test_pixels_never_change():
    drawings = icon_states.plan_images(icon_states.plan_pairs())[::97]
    pixels = [icon_states.draw(drawing) for drawing in drawings]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in pixels)
    assert {drawing.state for drawing in drawings} == set(STATES)
    digest = hashlib.sha256(b"".join(image.tobytes() for image in pixels)).hexdigest()
    assert digest == SAMPLE_DIGEST, "pixels differ: raise icon_states.VERSION if meant; Pillow's rasteriser otherwise"


def test_the_rendered_folder_is_the_plan(dataset):
    assert {phase: len(split) for phase, split in dataset.splits.items()} == {"train": 4871, "val": 930, "test": 2050}
    assert dataset.digest == FULL_DIGEST
    for index in (0, 1000, 2049):
        split = dataset.splits["test"]
        state, obj = dataset.vocabulary.states[split.states[index]], dataset.vocabulary.objects[split.objects[index]]
        assert split.images[index].startswith(f"{state}_{obj}/")
        drawing = next(d for d in icon_states.plan_images(icon_states.plan_pairs()) if d.name == split.images[index])
        assert np.array_equal(np.asarray(dataset.load_image("test", index)), icon_states.draw(drawing))
        assert split.slices["kind"][index] == STATES[state].kind
        assert split.slices["clutter"][index] == ("present" if drawing.clutter else "none")


def test_training_images_are_long_tailed(dataset):
    pairs = dataset.candidates("train").index_of(dataset.splits["train"].states, dataset.splits["train"].objects)
    counts = np.bincount(pairs, minlength=350)
    split = dataset.splits["train"]
    tags = [
        split.slices["training images of the pair"][pairs == pair][0] for pair in (counts.argmin(), counts.argmax())
    ]
    assert tags == [
        "2-5",
        ">=21",
    ]
    assert counts.min() == 4
    assert counts.max() == 40


def test_a_second_load_renders_nothing(dataset, monkeypatch):
    monkeypatch.setattr(icon_states, "prepare", lambda *_, **__: pytest.fail("rendered again"))
    assert icon_states.load().digest == dataset.digest


def test_an_interrupted_rendering_leaves_no_half_folder(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(icon_states, "_render_all", broken)
    with pytest.raises(UserError, match="No space left"):
        icon_states.load(tmp_path / "icons")
    assert [path.name for path in tmp_path.iterdir()] == ["icons.lock"]


def test_a_missing_image_is_named(toy, tmp_path):
    from toy_world import make_toy

    damaged = make_toy(tmp_path)
    lost = tmp_path / "images" / damaged.splits["val"].images[3]
    lost.unlink()
    with pytest.raises(UserError, match=lost.name):
        damaged.load_image("val", 3)
    lost.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=lost.name):
        damaged.load_image("val", 3)
