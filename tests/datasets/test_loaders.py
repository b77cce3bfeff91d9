"""Loading: order and augmented views depend on seed, epoch and image, never on workers."""

from __future__ import annotations

import pytest
import torch
from toy_world import make_toy

from datasets.loaders import epoch_order, image_batches
from datasets.transforms import build_transform, derived_seed, with_stream
from errors import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def views(dataset, **options):
    transform = build_transform(64, MEAN, STD, options.pop("augmentation", "clip"))
    batches = list(image_batches(dataset, "train", transform, 10, **options))
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.index for batch in batches])


def test_views_do_not_depend_on_workers_or_on_the_global_generator(toy):
    torch.manual_seed(1)
    here, index = views(toy, seed=3, epoch=2, workers=0)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    there, _ = views(toy, seed=3, epoch=2, workers=2)
    assert torch.equal(here, there)
    assert torch.equal(state, torch.random.get_rng_state())
    assert index.tolist() == list(range(len(toy.splits["train"])))


def test_views_change_with_epoch_and_seed_but_not_with_order(toy):
    first, _ = views(toy, seed=3, epoch=2)
    assert not torch.equal(first, views(toy, seed=3, epoch=3)[0])
    assert not torch.equal(first, views(toy, seed=4, epoch=2)[0])
    order = epoch_order(len(toy.splits["train"]), 0, 0)
    shuffled, index = views(toy, seed=3, epoch=2, order=order)
    assert torch.equal(index, order)
    assert torch.equal(shuffled, first[order])


def test_evaluation_transform_equals_a_plain_one(toy):
    """At the native size nothing is resized: the tensor is the normalised picture."""
    picture = toy.load_image("train", 5)
    tensor = build_transform(64, MEAN, STD)(picture)
    raw = torch.tensor(list(picture.tobytes()), dtype=torch.float32).view(64, 64, 3).permute(2, 0, 1) / 255
    expected = (raw - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(tensor, expected, atol=1e-6)


def test_other_shapes_are_resized_by_the_shorter_side_and_cropped(toy):
    wide = toy.load_image("train", 0).resize((90, 60))
    assert build_transform(32, MEAN, STD)(wide).shape == (3, 32, 32)


def test_order_is_a_permutation_of_its_own_stream():
    assert sorted(epoch_order(50, 0, 1).tolist()) == list(range(50))
    assert torch.equal(epoch_order(50, 0, 1), epoch_order(50, 0, 1))
    assert not torch.equal(epoch_order(50, 0, 1), epoch_order(50, 0, 2))
    assert derived_seed("a", 1) != derived_seed("a", 2)


def test_a_stream_is_put_back():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with_stream(lambda _: torch.rand(7), None, "x")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_clear_error_from_a_worker_too(tmp_path, workers):
    damaged = make_toy(tmp_path)
    lost = tmp_path / "images" / damaged.splits["train"].images[7]
    lost.write_bytes(lost.read_bytes()[:200])
    with pytest.raises(UserError, match=lost.name) as caught:
        views(damaged, workers=workers)
    assert "Traceback" not in str(caught.value)
