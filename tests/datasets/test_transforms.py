"""Transforms are those of the protocol: against a slow account, for every method and profile, for any workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from benchmarks.runs.resolution import resolve
from datasets.icons.render import stream
from datasets.loaders import image_batches
from datasets.resizing import Resizing
from datasets.transforms import build_transform, with_stream
from registry import METHODS

# CLIP's statistics, written out once more from the protocol.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PUBLISHED = ("mit_states", "ut_zappos", "cgqa")


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(stream("picture", width, height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(300, 260), (260, 300), (500, 224), (224, 224), (100, 90), (33, 64)])
@pytest.mark.parametrize("side", [224, 64])
def test_evaluation_is_resize_centre_crop_and_clips_statistics(size, side):
    """The same with Pillow and numpy: shorter side to `side` (bicubic), the middle of the longer one."""
    raw = picture(*size)
    width, height = size
    scaled = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    resized = raw.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in scaled)
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)), dtype=np.float64) / 255
    expected = ((pixels - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    found = build_transform(side, MEAN, STD)(raw)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_training_adds_flip_perspective_and_rotation_between_crop_and_tensor():
    steps = build_transform(224, MEAN, STD, "clip").transforms
    assert [type(step) for step in steps] == [
        *(v2.Resize, v2.CenterCrop, v2.RandomHorizontalFlip, v2.RandomPerspective, v2.RandomRotation),
        *(v2.PILToTensor, v2.ToDtype, v2.Normalize),
    ]
    resize, _, flip, perspective, rotation, *_ = steps
    assert resize.interpolation == InterpolationMode.BICUBIC
    assert flip.p == 0.5
    assert (perspective.distortion_scale, perspective.p) == (0.5, 0.5)
    assert list(rotation.degrees) == [-5.0, 5.0]


def test_half_of_the_views_are_mirrored_and_half_are_distorted():
    steps = build_transform(32, MEAN, STD, "clip").transforms
    flip, perspective = steps[2], steps[3]
    half = np.zeros((32, 32, 3), dtype=np.uint8)
    half[:, :16] = 255
    raw = Image.fromarray(half)
    mirrored = changed = 0
    for image in range(400):
        seen = with_stream(flip, raw, "view", 0, 0, "train", image)
        mirrored += np.array_equal(np.asarray(seen), half[:, ::-1])
        changed += not np.array_equal(np.asarray(with_stream(perspective, raw, "p", image)), half)
    assert 160 < mirrored < 240
    assert 160 < changed < 240


@pytest.mark.parametrize("name", METHODS.names())
@pytest.mark.parametrize("dataset", PUBLISHED)
def test_every_method_sees_the_same_views_and_both_profiles_but_where_a_released_code_differs(name, dataset):
    chosen = {
        profile: resolve(name, METHODS.get(name).Config, dataset, profile=profile).training.augmentation
        for profile in ("clean", "official")
    }
    assert chosen == {"clean": "clip", "official": "crop" if name == "caila" else "clip"}


def test_a_crop_is_a_part_of_the_picture_resized():
    """Of a picture of one red and one green half a crop shows a size, mirrored in half of the cases."""
    half = np.zeros((40, 60, 3), np.uint8)
    half[:, :30, 0], half[:, 30:, 1] = 255, 255
    crop = build_transform(32, (0.0,) * 3, (1.0,) * 3, "crop")
    seen = torch.stack([with_stream(crop, Image.fromarray(half), "view", n) for n in range(300)])
    assert seen.shape == (300, 3, 32, 32)
    both = (seen[:, 0] > 0.9).flatten(1).any(1) & (seen[:, 1] > 0.9).flatten(1).any(1)
    red_left = seen[both][:, 0, 16, 0] > 0.9
    assert 0.3 < both.float().mean() < 0.9, "some crops lie in one half"
    assert 0.4 < red_left.float().mean() < 0.6
    assert len({tuple(row) for row in (seen[:, 0] > 0.5).sum(dim=(1, 2))[:, None].tolist()}) > 20


def test_a_margin_is_cut_off_around_the_centre():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8))
    found = build_transform(28, (0.0,) * 3, (1.0,) * 3, resizing=Resizing(interpolation="bilinear", margin=32 / 28))
    resized = picture.resize((53, 32), Image.Resampling.BILINEAR)  # the shorter side to 32
    left = round((53 - 28) / 2)
    expected = np.asarray(resized)[2:30, left : left + 28]
    assert np.array_equal((found(picture).permute(1, 2, 0) * 255).round().byte().numpy(), expected)


def test_views_are_the_same_for_any_number_of_workers_batch_size_and_order(toy):
    transform = build_transform(48, MEAN, STD, "clip")

    def views(workers: int, batch: int, order: torch.Tensor | None = None) -> torch.Tensor:
        batches = list(image_batches(toy, "train", transform, batch, seed=7, epoch=3, workers=workers, order=order))
        rows = torch.cat([item.index for item in batches])
        return torch.cat([item.images for item in batches])[rows.argsort()]

    first = views(0, 10)
    assert torch.equal(first, views(1, 10))
    assert torch.equal(first, views(2, 7))
    assert torch.equal(first, views(2, 16, torch.arange(len(first) - 1, -1, -1)))


def test_a_view_is_a_function_of_seed_epoch_phase_and_image(toy):
    transform = build_transform(48, MEAN, STD, "clip")
    (first,) = image_batches(toy, "train", transform, len(toy.splits["train"]), seed=7, epoch=3)
    for row in (0, 11, 40):
        alone = with_stream(transform, toy.load_image("train", row), "view", 7, 3, "train", row)
        assert torch.equal(alone, first.images[row])
    for names in (("view", 8, 3, "train", 0), ("view", 7, 4, "train", 0), ("view", 7, 3, "val", 0)):
        assert not torch.equal(with_stream(transform, toy.load_image("train", 0), *names), first.images[0])
