"""What frozen features belong to: all that changes them, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from datasets.base import CompositionDataset, Phase
from datasets.content import content_hashes
from datasets.feature_cache.folder import FORMAT
from errors import UserError


@dataclass(frozen=True)
class FeatureKey:
    """All that changes the features of a phase's images.

    data: digest of the data set
    images: see `images_digest`
    weights: digest of the backbone's
    what: the function that computes them
    code: digest of the source it runs through
    transform: the image transform in words
    view: seed and number of an augmented view, None without augmentation
    precision: of the forward pass
    batch: images at once
    made_with: versions of libraries and the kind of processor

    The last three change no more than rounding, but that is what keeps a run the same bit by bit whoever filled the
    cache.
    """

    dataset: str
    data: str
    phase: str
    images: str
    backbone: str
    weights: str
    what: str
    code: str
    transform: str
    view: tuple[int, int] | None
    precision: str
    batch: int
    made_with: str

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all fields and the format."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of the folder: readable parts, then the start of the digest, which decides."""
        parts = [self.dataset, self.phase, *([] if self.view is None else ["view-{}-{}".format(*self.view)])]
        readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part)[:40].strip("-") for part in [*parts, self.backbone])
        return f"{readable}-{self.digest[:16]}"


def images_digest(dataset: CompositionDataset, phase: Phase) -> str:
    """Return the SHA-256 of a phase's list of images, of each file's content, and of whether pictures are turned.

    The digest of a data set of photographs covers its lists and not every pixel; a picture that was replaced since its
    features were computed is noticed here. Contents are read once and remembered (`content.py`).
    """
    names = dataset.splits[phase].images
    try:
        contents = content_hashes([dataset.image_path(phase, index).absolute() for index in range(len(names))])
    except UserError:
        contents = [""] * len(names)  # no such files: pictures of another kind, or whoever decodes them will say it
    lines = [*map("\0".join, zip(names, contents, strict=True)), *(["turned upright"] if dataset.turned else [])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
