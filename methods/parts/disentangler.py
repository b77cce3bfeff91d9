"""The disentangler: from CLIP's image feature to a feature of the state or of the object alone (Troika, MSCI)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.parts.shares import image_dropout, images_of_all


class Disentangler(nn.Module):
    """Dropout(ReLU(BatchNorm(W x + b))) for features x [B, width]; the result has no negative entry.

    The papers call it an MLP. In training BatchNorm takes its statistics from the images that go through at once, so a
    micro-batch changes the numbers; of a single image there is no statistic, and the running one is used.
    """

    def __init__(self, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        """Return the feature [B, width], fp32 under autocast too (batch statistics in half precision are coarse)."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = self.linear(features.float())
            # The last batch of an epoch may hold one image, for which torch's BatchNorm raises in training.
            alone = self.training and images_of_all(len(hidden)) == 1
            hidden = self._by_running_statistics(hidden) if alone else self.norm(hidden)
            return image_dropout(functional.relu(hidden), self.dropout, self.training)

    def _by_running_statistics(self, hidden: Tensor) -> Tensor:
        norm = self.norm
        return functional.batch_norm(
            hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
