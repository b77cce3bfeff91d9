"""BatchNorm over several processes: its statistics are those of the rows that all of them have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from methods.parts import shares


def see_all_rows(network: nn.Module) -> None:
    """Let every BatchNorm of a network train on the rows of all processes; each keeps its own rows of the output."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_before_norm)
            module.register_forward_hook(_after_norm)


def _before_norm(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (shares.all_rows(inputs[0]), *inputs[1:]) if module.training else None


def _after_norm(module: _BatchNorm, _: object, output: Tensor) -> Tensor | None:
    return shares.own_rows(output) if module.training else None
