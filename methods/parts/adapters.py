"""Bottleneck adapters: small trained paths beside the attention and the MLP of every block of a frozen tower.

Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, in the parallel form of Troika and MSCI: an
adapter reads the un-normalised input of its sub-layer, and its output is added to the residual stream. The
blocks are walked in `methods/backbone/blocks.py`; this file only holds what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from methods.backbone.products import Linear
from methods.parts.shares import common_dropout, image_dropout

Placement = Literal["both", "attn", "mlp", "none"]
"""Which sub-layers of each block get an adapter."""


class Adapter(nn.Module):
    """scale * (W_up Dropout(ReLU(W_down h + b_down)) + b_up) for vectors h [..., width].

    W_up and the biases start at zero, so that a fresh adapter adds nothing; W_down starts uniform in +-1/sqrt(width).
    scale is a constant. There is no inner residual and no LayerNorm. per_image: whether the first axis of h are the
    images of a batch.
    """

    def __init__(
        self, width: int, bottleneck: int = 64, dropout: float = 0.1, scale: float = 0.1, per_image: bool = True
    ) -> None:
        super().__init__()
        self.down = Linear(width, bottleneck)
        self.up = Linear(bottleneck, width)
        self.dropout = dropout
        self.scale = scale
        self.per_image = per_image
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is added to the residual stream, [..., width]."""
        drop = image_dropout if self.per_image else common_dropout
        return self.scale * self.up(drop(functional.relu(self.down(hidden)), self.dropout, self.training))


class AdapterBank(nn.Module):
    """One adapter for each named slot of a backbone (`Backbone.slot_names`), in the order of the slots.

    `bank.slots` is the mapping that the backbone's encoding functions take.
    """

    def __init__(
        self, slots: Sequence[str], width: int, bottleneck: int = 64, dropout: float = 0.1, scale: float = 0.1
    ) -> None:
        super().__init__()
        self._names = {slot: slot.replace(".", "_") for slot in slots}  # a module's name may not hold a dot
        self.adapters = nn.ModuleDict(
            {
                name: Adapter(width, bottleneck, dropout, scale, per_image=slot.startswith("vision."))
                for slot, name in self._names.items()
            }
        )

    @property
    def slots(self) -> Mapping[str, nn.Module]:
        """The adapters by slot name."""
        return {slot: self.adapters[name] for slot, name in self._names.items()}


def placed(slots: Sequence[str], placement: Placement) -> tuple[str, ...]:
    """Return the slots that `placement` selects, in their order.

    >>> placed(("vision.0.attn", "vision.0.mlp"), "mlp")
    ('vision.0.mlp',)
    """
    return tuple(slot for slot in slots if placement == "both" or slot.endswith(f".{placement}"))
