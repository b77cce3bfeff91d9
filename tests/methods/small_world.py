"""Twelve pairs of three states and four objects, and a handful of random images: what tests of methods score."""

from __future__ import annotations

import numpy as np
import torch

from datasets.base import Candidates, Vocabulary
from methods.base import Batch

VOCABULARY = Vocabulary(("Faux.Leather", "red", "wet"), ("Boots.Mid-Calf", "apple", "car", "dog"))


def every_pair() -> Candidates:
    """All 12 pairs; every third is unseen, and every primitive is seen."""
    pairs = np.stack(np.divmod(np.arange(12), 4), axis=1)
    return Candidates(VOCABULARY, pairs, np.arange(12) % 3 > 0)


def some_images(count: int = 8) -> Batch:
    """A batch of up to 8 images of random pixels."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.tensor([0, 3, 5, 11, 7, 2, 5, 8])[:count]
    return Batch(pairs // 4, pairs % 4, pairs, images=torch.randn(count, 3, 32, 32, generator=generator))


@torch.no_grad()
def scores(method, batch, candidates, chunk=slice(None)):
    """The scores of a batch against candidates, or a chunk of them."""
    return method.score(method.encode(batch), method.prepare(candidates), chunk)
