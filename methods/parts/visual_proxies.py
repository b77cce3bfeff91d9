"""Visual proxies: a free vector per state and per object in the joint space; pairs have compositions of two (VP-CMJL).

A, O: states and objects; K pairs; d joint width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary, clean_label
from methods.backbone.clip import Backbone
from methods.parts.memo import PairIndices

Composer = Literal["linear", "linear_from_mean", "mean"]
"""What makes the proxy of a pair: a linear map that starts random, one that starts as the mean, or the mean itself."""


class VisualProxies(nn.Module):
    """Proxies of states [A, d] and objects [O, d], and W [state; object] + b, or their mean, for pairs.

    init: "text" starts a proxy as CLIP's raw text feature of the bare label; "random" draws normal values with the
        deviation of those
    composer: see `Composer`
    """

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: Vocabulary,
        init: Literal["text", "random"] = "text",
        composer: Composer = "linear",
    ) -> None:
        super().__init__()
        rows = backbone.encode_sentences(list(map(clean_label, (*vocabulary.states, *vocabulary.objects))))
        if init == "random":
            rows = torch.randn_like(rows) * rows.std()
        states, objects = rows.split([len(vocabulary.states), len(vocabulary.objects)])
        self.state = nn.Parameter(states.clone())
        self.object = nn.Parameter(objects.clone())
        self._indices = PairIndices()
        width = backbone.embed_dim
        self.composer = None if composer == "mean" else nn.Linear(2 * width, width)
        if self.composer is not None and composer == "linear_from_mean":
            with torch.no_grad():
                self.composer.weight.copy_(torch.eye(width).repeat(1, 2) / 2)
                self.composer.bias.zero_()

    def pairs(self, candidates: Candidates) -> Tensor:
        """Return the proxies [K, d] of the candidates, not normalised.

        W has a half for states and one for objects, so each is applied once per state or object and not once per pair.
        """
        states, objects = self._indices.of(candidates, self.state.device)
        with torch.autocast(self.state.device.type, enabled=False):
            if self.composer is None:
                return (self.state[states] + self.object[objects]) / 2
            of_state, of_object = self.composer.weight.chunk(2, dim=1)
            parts = (
                functional.linear(self.state, of_state, self.composer.bias),
                functional.linear(self.object, of_object),
            )
            return parts[0][states] + parts[1][objects]
