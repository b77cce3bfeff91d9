"""The evaluation transform is open_clip's own, for every pretrained tag that it lists; nothing is downloaded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datasets.resizing import USUAL, Resizing
from datasets.streams import stream
from datasets.transforms import build_transform
from methods.backbone import Backbone, build_clip
from methods.backbone.origin import OPENAI_MEAN, OPENAI_STD, of_tag

SHAPES = [(640, 427), (100, 300)]
TOLERANCE = 1e-6
"""Of normalised values up to 2.7: torchvision's two ways from 8 bits to a float differ in the last digit."""


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Pictures with an edge at every pixel, so that another kernel, size or offset shows."""
    made = [
        stream("preprocessing", *shape).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8) for shape in SHAPES
    ]
    return [Image.fromarray(pixels) for pixels in made]


def apart(size: int, asked: dict, found: tuple, pictures: list[Image.Image]) -> float:
    """Return how far our transform is from open_clip's of a merged configuration; pixels of 8 bits have to be equal."""
    mean, std, resizing = found
    theirs, ours = (
        image_transform_v2(PreprocessCfg(**asked), is_train=False),
        build_transform(size, mean, std, "none", resizing),
    )
    worst = 0.0
    for picture in pictures:
        one, other = theirs(picture), ours(picture)
        assert one.shape == other.shape == (3, size, size) and one.dtype == other.dtype
        assert torch.equal(*(pixels(values, mean, std) for values in (one, other))), f"{asked}, {picture.size}"
        worst = max(worst, float((one - other).abs().max()))
    return worst


def pixels(values: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Undo the normalisation: [3, H, W] of 0 to 255."""
    raw = values * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return (raw * 255).round().to(torch.uint8)


def test_every_tag_of_open_clip_is_prepared_as_open_clip_does(pictures):
    """Tags with the same preprocessing are looked at once; those of models that cannot be our backbone too."""
    kinds = defaultdict(list)
    for model, tag in open_clip.list_pretrained():
        config, source = open_clip.get_model_config(model), open_clip.get_pretrained_cfg(model, tag)
        # As open_clip.create_model does it: defaults, the tag's own, the size of the model.
        asked = merge_preprocess_dict(asdict(PreprocessCfg()), source)
        asked["size"] = config["vision_cfg"].get("image_size", 224)
        # Of some tags the activation is that of the definition's sibling, which is refused; images do not depend on it.
        origin = of_tag({**config, "quick_gelu": source.get("quick_gelu", False)}, source, model, tag)
        found = (origin.mean, origin.std, origin.resizing)
        kinds[tuple(sorted(asked.items())), found].append(f"{model}/{tag}")
        assert not origin.notes
    tags = [name for names in kinds.values() for name in names]
    assert len(set(tags)) == len(open_clip.list_pretrained()) >= 196, "open_clip 3.3.0 has 196"
    print(f"{len(tags)} tags with {len(kinds)} preprocessings")
    modes = {(found[2].resize_mode, found[2].interpolation) for _, found in kinds}
    assert modes >= {(mode, kernel) for mode in ("shortest", "squash") for kernel in ("bicubic", "bilinear")}
    far = {
        names[0]: apart(dict(asked)["size"], dict(asked), found, pictures) for (asked, found), names in kinds.items()
    }
    assert max(far.values()) <= TOLERANCE, far


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize(("fill", "size"), [(0, 32), (124, 33)])
def test_every_way_of_resizing_is_open_clips(pictures, mode, interpolation, fill, size):
    """No tag asks for "longest" or another fill colour; configurations beside files may."""
    asked = {"size": size, "resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
    found = (OPENAI_MEAN, OPENAI_STD, Resizing.of(asked))
    more = [
        Image.fromarray(np.asarray(pictures[0])[:height, :width]) for width, height in ((9, 5), (33, 32), (65, 201))
    ]
    assert apart(size, asked, found, [*pictures, *more]) <= TOLERANCE


def test_a_line_of_pixels_can_be_filled_up():
    """open_clip fails here: the shorter side is rounded to 0 pixels."""
    line = Image.new("RGB", (1, 1000), (255, 255, 255))
    found = build_transform(8, (0.0,) * 3, (1.0,) * 3, "none", Resizing("longest", fill_color=0))(line)
    assert found.shape == (3, 8, 8) and found.sum() == 3 * 8


def test_training_resizes_as_evaluation_does():
    for resizing in (Resizing("squash", "bilinear"), Resizing("longest", "bilinear"), Resizing("shortest", "bilinear")):
        train, evaluation = (
            build_transform(32, OPENAI_MEAN, OPENAI_STD, name, resizing).transforms for name in ("clip", "none")
        )
        assert train[0].interpolation == evaluation[0].interpolation == v2.InterpolationMode.BILINEAR
        own = [type(step) for step in train if type(step) not in {type(step) for step in evaluation}]
        assert own == [v2.RandomHorizontalFlip, v2.RandomPerspective, v2.RandomRotation]
        assert len(train) == len(evaluation) + 3


def test_a_model_of_open_clip_brings_its_own(small_config):
    clip = build_clip(small_config, "small")
    assert Backbone.from_open_clip(clip, None, "small").resizing == USUAL
    asked = asdict(PreprocessCfg(resize_mode="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3))
    open_clip.model.set_model_preprocess_cfg(clip, asked)
    backbone = Backbone.from_open_clip(clip, None, "small")
    assert backbone.resizing == Resizing("squash", "bilinear") and backbone.image_mean == (0.5,) * 3
