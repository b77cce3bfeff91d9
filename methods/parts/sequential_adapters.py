"""Adapters on the output of a sub-layer, and the mixture of three of them at one place (CAILA).

Zheng, Zhu, Nevatia, "CAILA: Concept-Aware Intra-Layer Adapters for Compositional Zero-Shot Learning", WACV 2024. They
stand in the slots on a sub-layer's output (`Backbone.slot_names` with place "out").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import mul
from typing import Literal

import torch
from torch import Tensor, nn

UpInit = Literal["zero", "uniform"]
Combination = Literal["mean", "sum", "product", "concat"]
"""How three values become one."""


class SequentialAdapter(nn.Module):
    """U g(D h + b_D) + b_U for a sub-layer's output h [..., width], with g the tower's activation.

    D starts uniform in +-1/sqrt(width), biases at zero. U starts at zero, so that a fresh adapter adds nothing, or
    uniform in +-1/sqrt(bottleneck) (up_init "uniform", as released).
    """

    def __init__(self, width: int, bottleneck: int, activation: nn.Module, up_init: UpInit = "zero") -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = activation
        for zero in (self.down.bias, self.up.bias, *([self.up.weight] if up_init == "zero" else [])):
            nn.init.zeros_(zero)

    def latent(self, output: Tensor) -> Tensor:
        """Return g(D h + b_D), [..., bottleneck]."""
        return self.activation(self.down(output))

    def forward(self, output: Tensor) -> Tensor:
        """Return what is added to the sub-layer's output, [..., width]."""
        return self.up(self.latent(output))


class Join(nn.Module):
    """Three values [..., width] of one place become one; "concat" has a linear map from 3 width to width for that."""

    def __init__(self, width: int, combination: Combination) -> None:
        super().__init__()
        self.combination = combination
        self.linear = nn.Linear(3 * width, width) if combination == "concat" else None

    def forward(self, values: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the mean, sum, product, or map of the values."""
        if self.linear is not None:
            return self.linear(torch.cat(values, dim=-1))
        if self.combination == "product":
            return reduce(mul, values)
        total = values[0] + values[1] + values[2]
        return total / 3 if self.combination == "mean" else total


class Mixture(nn.Module):
    """The adapter of the mixture at one place, and how it is joined with those of states and objects there.

    With z_x = g(D_x h + b_x) of each adapter on the same h, and z of the joined latents:

        Ad(h) = join(U_mix z + b_mix, U_object z_object + b_object, U_state z_state + b_state)

    The weights of the other two adapters are used again, not what they gave in their own streams. latents, outputs:
    how either is joined; None joins nothing, so that z is z_mix, or Ad(h) is U_mix z + b_mix.
    """

    def __init__(self, own: SequentialAdapter, latents: Combination | None, outputs: Combination | None) -> None:
        super().__init__()
        self.own = own
        self.latents = None if latents is None else Join(own.down.out_features, latents)
        self.outputs = None if outputs is None else Join(own.up.out_features, outputs)

    def of(self, state: SequentialAdapter, thing: SequentialAdapter) -> Callable[[Tensor], Tensor]:
        """Return what stands in the slot, given the adapters of states and objects in the same place."""

        def adapter(output: Tensor) -> Tensor:
            own = self.own.latent(output)
            if self.latents is None and self.outputs is None:
                return self.own.up(own)
            of_thing, of_state = thing.latent(output), state.latent(output)
            joined = self.own.up(own if self.latents is None else self.latents((own, of_thing, of_state)))
            return joined if self.outputs is None else self.outputs((joined, thing.up(of_thing), state.up(of_state)))

        return adapter


class AdapterSet(nn.Module):
    """A module for each of some slots of a backbone; a method may have several sets and choose one for each call."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._names = {slot: slot.replace(".", "_") for slot in modules}  # a module's name may not hold a dot
        self.adapters = nn.ModuleDict({self._names[slot]: module for slot, module in modules.items()})

    def __getitem__(self, slot: str) -> nn.Module:
        """Return the module of a slot."""
        return self.adapters[self._names[slot]]

    @property
    def slots(self) -> Mapping[str, nn.Module]:
        """The modules by slot: what the backbone's functions take as `adapters`."""
        return {slot: self.adapters[name] for slot, name in self._names.items()}
