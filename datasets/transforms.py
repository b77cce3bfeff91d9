"""Image transforms of the CLIP repositories, and random streams that make each augmented view reproducible.

Evaluation: shorter side to the backbone's size (bicubic), centre crop, CLIP mean and standard deviation. Training adds
horizontal flip, random perspective (distortion 0.5, probability 0.5) and rotation within 5 degrees between crop and
tensor (docs/protocol.md). The view of an image is a function of (seed, epoch, image), whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datasets.streams import derived_seed as derived_seed  # where training looks for it

Augmentation = Literal["clip", "none"]
Transform = Callable[[Image.Image], Tensor]


def build_transform(
    image_size: int, mean: tuple[float, ...], std: tuple[float, ...], augmentation: Augmentation = "none"
) -> Transform:
    """Return a function from an RGB picture to a normalised float tensor [3, image_size, image_size]."""
    steps: list[torch.nn.Module] = [
        v2.Resize(image_size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
        v2.CenterCrop(image_size),
    ]
    if augmentation == "clip":
        steps += [v2.RandomHorizontalFlip(), v2.RandomPerspective(), v2.RandomRotation(5)]
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    return v2.Compose(steps)


def with_stream(transform: Transform, picture: Image.Image, *names: object) -> Tensor:
    """Apply a random transform under its own named stream, leaving torch's global generator as it was."""
    state = torch.random.get_rng_state()
    try:
        # torch.default_generator alone: torch.manual_seed would also reach for accelerators in every worker.
        torch.default_generator.manual_seed(derived_seed(*names))
        return transform(picture)
    finally:
        torch.random.set_rng_state(state)
