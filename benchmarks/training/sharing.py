"""One training for methods that differ in how they score alone: the same initial weights, one frozen backbone."""

from __future__ import annotations

import torch

from errors import UserError
from methods.base import Method


def join(method: Method, of: Method) -> None:
    """Have a freshly built method read the frozen backbone of another one, so that it takes no memory of its own.

    Other initial weights than the other's are a `UserError`: then the settings in which they differ do not only change
    scores.
    """
    own, others = method.checkpoint(), of.checkpoint()
    wrong = sorted(own.keys() ^ others.keys()) or [name for name in own if not torch.equal(own[name], others[name])]
    if wrong:
        differing = [name for name in type(of.config).model_fields if _setting(method, name) != _setting(of, name)]
        raise UserError(
            f"The method {of.info.name} cannot be trained once for several runs.",
            f"Its settings {', '.join(differing) or 'of another world'} are declared as score_only, and with them the "
            f"tensor '{wrong[0]}' begins differently.",
            "Take them out of score_only, or do the runs one by one.",
        )
    for name, module in method.backbone.named_modules():
        other = of.backbone.get_submodule(name)
        for key, parameter in module._parameters.items():
            if parameter is not None and not parameter.requires_grad:
                module._parameters[key] = other._parameters[key]
        module._buffers.update(other._buffers)


def _setting(method: Method, name: str) -> object:
    return getattr(method.config, name)
