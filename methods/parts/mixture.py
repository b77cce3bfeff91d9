"""Several classifiers of the same classes: mixing their logits or distributions, and their divergence (VP-CMJL).

B images, n classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Mixing = Literal["logits", "probabilities"]


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Return KL(q || p) in nats, mean over the images, of p = softmax(logits) and q = softmax(target), both [B, n].

    Gradients flow to both.
    """
    log_p, log_q = logits.log_softmax(dim=1), target.log_softmax(dim=1)
    return functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


@dataclass(frozen=True)
class Mixture:
    """Weights w_c of classifiers by name, and whether their logits z_c or their softmaxes p_c are added.

    logits: the distribution is softmax(sum of w_c z_c)
    probabilities: it is the sum of w_c p_c, which adds up to the sum of the weights
    """

    weights: Mapping[str, float]
    mixing: Mixing = "logits"

    def logits(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of w_c z_c, [B, n], of each classifier's logits; the same for any selection of classes."""
        return reduce(add, (weight * parts[name] for name, weight in self.weights.items()))

    def normaliser(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return what `log_probability` needs of the logits [B, n] of all classes: [1 or classifiers, B, 1]."""
        rows = [self.logits(parts)] if self.mixing == "logits" else [parts[name] for name in self.weights]
        return torch.stack([row.logsumexp(dim=1, keepdim=True) for row in rows])

    def log_probability(self, parts: Mapping[str, Tensor], normaliser: Tensor) -> Tensor:
        """Return the log of the mixed distribution, [B, n], at any selection of the classes that were normalised."""
        if self.mixing == "logits":
            return self.logits(parts) - normaliser[0]
        logs = (math.log(weight) if weight > 0 else -math.inf for weight in self.weights.values())
        terms = zip(self.weights, normaliser, logs, strict=True)
        return torch.stack([parts[name] - row + log for name, row, log in terms]).logsumexp(dim=0)
