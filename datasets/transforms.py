"""Image transforms of the CLIP repositories, and random streams that make each augmented view reproducible.

Evaluation is open_clip's, pixel by pixel: resized as the backbone's weights ask (`resizing.py`; for OpenAI's the
shorter side to the backbone's size, bicubic, then the centre), normalised with their mean and deviation. The
augmentation "clip" adds horizontal flip, random perspective (distortion 0.5, probability 0.5) and rotation within 5
degrees before the tensor is made (docs/protocol.md); "crop" resizes a part of the picture, of 8 to 100 % of its area
and sides of 3 : 4 to 4 : 3, bilinear, and flips it (CAILA). The view of an image is a function of (seed, epoch, image),
whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datasets.resizing import USUAL, Resizing
from datasets.streams import derived_seed as derived_seed  # where training looks for it

Augmentation = Literal["clip", "crop", "none"]
Transform = Callable[[Image.Image], Tensor]


INTERPOLATIONS = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}


def build_transform(
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augmentation: Augmentation = "none",
    resizing: Resizing = USUAL,
) -> Transform:
    """Return a function from an RGB picture to a normalised float tensor [3, image_size, image_size]."""
    steps = [v2.RandomResizedCrop(image_size)] if augmentation == "crop" else _resized(image_size, resizing)
    if augmentation == "crop":
        steps += [v2.RandomHorizontalFlip()]
    if augmentation == "clip":
        steps += [v2.RandomHorizontalFlip(), v2.RandomPerspective(), v2.RandomRotation(5)]
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    return v2.Compose(steps)


def _resized(size: int, resizing: Resizing) -> list[torch.nn.Module]:
    """Return the steps from a picture of any size to one of `size` x `size` pixels."""
    interpolation = INTERPOLATIONS[resizing.interpolation]
    if resizing.resize_mode == "longest":
        return [FitAndFill(size, interpolation, resizing.fill_color)]
    if resizing.resize_mode == "squash":
        return [v2.Resize((size, size), interpolation=interpolation, antialias=True)]
    return [v2.Resize(round(size * resizing.margin), interpolation, antialias=True), v2.CenterCrop(size)]


class FitAndFill(torch.nn.Module):
    """Bring the longer side of a picture to `size` pixels and fill up to a square, the odd pixel right and below."""

    def __init__(self, size: int, interpolation: v2.InterpolationMode, fill: int) -> None:
        super().__init__()
        self.size = size
        self.interpolation = interpolation
        self.fill = fill

    def forward(self, picture: Image.Image) -> Image.Image:
        """Return the square picture."""
        ratio = max(picture.size) / self.size
        width, height = (max(1, round(side / ratio)) for side in picture.size)
        fitted = v2.functional.resize(picture, [height, width], self.interpolation, antialias=True)
        left, top = (self.size - width) // 2, (self.size - height) // 2
        return v2.functional.pad(
            fitted, [left, top, self.size - width - left, self.size - height - top], fill=self.fill
        )


def with_stream(transform: Transform, picture: Image.Image, *names: object) -> Tensor:
    """Apply a random transform under its own named stream, leaving torch's global generator as it was."""
    state = torch.random.get_rng_state()
    try:
        # torch.default_generator alone: torch.manual_seed would also reach for accelerators in every worker.
        torch.default_generator.manual_seed(derived_seed(*names))
        return transform(picture)
    finally:
        torch.random.set_rng_state(state)
