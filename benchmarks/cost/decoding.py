"""How fast one process decodes and transforms images, and how many processes keep a model busy."""

from __future__ import annotations

import io
import math
import time

import numpy as np
import torch
from PIL import Image

from benchmarks.cost.record import Decoding
from datasets.streams import stream
from datasets.transforms import Augmentation, build_transform, with_stream
from methods.backbone.clip import Backbone


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """Return a JPEG (quality 90) whose content is as uneven as a photograph's: noise in several sizes."""
    random = stream("profile picture", seed)
    levels = []
    for cells in (4, 16, 64, max(width, height)):
        noise = random.integers(0, 256, (min(cells, height), min(cells, width), 3), dtype=np.uint8)
        levels.append(np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32))
    weights = np.array([0.45, 0.3, 0.17, 0.08], np.float32)
    pixels = np.tensordot(weights, np.stack(levels), axes=1).clip(0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=90)
    return target.getvalue()


def measure_decoding(
    backbone: Backbone, width: int, height: int, augmentation: Augmentation = "clip", seconds: float = 1.0
) -> Decoding:
    """Decode and transform one picture for so many seconds, on one thread as a loading process does."""
    data = picture(width, height)
    transform = build_transform(
        backbone.image_size, backbone.image_mean, backbone.image_std, augmentation, backbone.resizing
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done, start = -3, time.perf_counter()  # the first three are not counted
        while done < 1 or time.perf_counter() - start < seconds:
            if done == 0:
                start = time.perf_counter()
            with Image.open(io.BytesIO(data)) as file:
                with_stream(transform, file.convert("RGB"), "view", 0, 0, "train", done)
            done += 1
        rate = done / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Decoding(
        width=width,
        height=height,
        bytes=len(data),
        augmentation=augmentation,
        images_per_second=rate,
        images=done,
    )


def workers_needed(images_per_second: float, decoding: Decoding) -> int:
    """Return how many decoding processes, each with a core of its own, keep up with a model's images per second."""
    return math.ceil(images_per_second / decoding.images_per_second)
