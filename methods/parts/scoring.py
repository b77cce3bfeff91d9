"""CLIP's score: the cosine of image and text times the logit scale."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(features: Tensor) -> Tensor:
    """Return fp32 features [..., d] of length 1 along the last axis; no epsilon, as in the official codes."""
    features = features.float()
    return features / features.norm(dim=-1, keepdim=True)


def cosine_logits(image: Tensor, unit_text: Tensor, scale: Tensor | float) -> Tensor:
    """Return scale * cos(image, text), fp32 [B, K].

    image: features [B, d] of any length
    unit_text: features [K, d] of length 1 (see `unit`), so that a candidate list is normalised once and not once per
        batch

    Computed in fp32 under autocast too: near 25 an fp16 logit moves in steps of 1/64, and ties decide the ranking. The
    scale goes in before the product, as in the official code.
    """
    with torch.autocast(image.device.type, enabled=False):
        return (scale * unit(image)) @ unit_text.float().T
