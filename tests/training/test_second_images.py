"""Second images on their way to a method: which samples, which labels, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from toy_runs import CPU, make_backbone

from benchmarks.training.batches import PhaseBatches, Views
from datasets.concept_shift import ConceptShift
from datasets.loaders import epoch_order
from datasets.transforms import build_transform, with_stream
from methods.caila import CAILA


@pytest.fixture(scope="module")
def made(toy):
    def make(shift: float, phase="train", augmentation="crop") -> PhaseBatches:
        method = CAILA(make_backbone(), toy.vocabulary, CAILA.Config(shift=shift))
        return PhaseBatches(method, toy, phase, toy.candidates(phase), CPU, Views(augmentation, 3))

    return make


def test_labels_pairs_and_views_are_those_of_the_draw(made, toy):
    batches, split, candidates = made(0.5), toy.splits["train"], toy.candidates("train")
    shift = ConceptShift(batches.method.shifts, split.states, split.objects)
    backbone, kinds, at = batches.method.backbone, set(), 0
    transform = build_transform(backbone.image_size, backbone.image_mean, backbone.image_std, "crop")
    rows = epoch_order(len(batches), 3, 2).tolist()
    for batch in batches.epoch(2, 10):
        own = rows[at : at + len(batch)]
        assert batch.states.tolist() == split.states[own].tolist()
        drawn = {place: shift.draw(row, 3, 2) for place, row in enumerate(own)}
        for primitive in ("state", "object"):
            wanted = {place: one for place, one in drawn.items() if one is not None and one.shifted == primitive}
            assert (primitive in batch.second) is bool(wanted)
            if not wanted:
                continue
            kinds.add(primitive)
            found = batch.second[primitive]
            assert found.rows.tolist() == list(wanted)
            assert found.labels.tolist() == [getattr(one, primitive) for one in wanted.values()]
            assert candidates.pairs[found.pairs.numpy()].tolist() == [
                [one.state, one.object] for one in wanted.values()
            ]
            for image, (place, one) in zip(found.images, wanted.items(), strict=True):
                picture = toy.load_image("train", one.image)
                names = ("second view", 3, 2, "train", own[place])
                assert torch.equal(image, with_stream(transform, picture, *names))
        at += len(batch)
    assert kinds == {"state", "object"} and at == len(batches)


def test_first_images_do_not_change_and_evaluation_has_no_second_ones(made):
    for shifted, plain in zip(made(0.5).epoch(1, 10), made(0.0).epoch(1, 10), strict=True):
        assert torch.equal(shifted.images, plain.images) and not plain.second
    assert not any(batch.second for phase in ("train", "val") for batch in made(0.5, phase).ordered())
    assert made(0.0).shift is None


def test_the_official_profile_cuts_test_images_out_otherwise(made, toy):
    plain = made(0.0, "val", "none")
    official = CAILA(make_backbone(), toy.vocabulary, CAILA.Config(test_view="released"))
    other = PhaseBatches(official, toy, "val", toy.candidates("val"), CPU)
    for one, two in zip(plain.ordered(), other.ordered(), strict=True):
        assert one.images.shape == two.images.shape and not torch.equal(one.images, two.images)
