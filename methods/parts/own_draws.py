"""Finding random numbers that a method draws by itself in training instead of through `shares.py`.

Modules of torch, torchvision, timm and open_clip that draw are known by name (`drawing_modules`). A draw in a forward
method (`functional.dropout`, `torch.rand_like`, a module that is not known) shows while it happens (`Watch`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from methods.parts import shares


def _positive(*names: str) -> Callable[[Any], bool]:
    return lambda module: any((getattr(module, name, 0) or 0) > 0 for name in names)


def _always(module: Any) -> bool:
    return True


def _recurrent(module: Any) -> bool:
    return module.dropout > 0 and module.num_layers > 1


_drops = _positive("p", "prob", "drop_prob")

DRAWING: Mapping[str, Callable[[Any], bool]] = {
    **{f"torch.nn.modules.dropout.{name}": _drops for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d")},
    **{f"torch.nn.modules.dropout.{name}": _drops for name in ("AlphaDropout", "FeatureAlphaDropout")},
    "torch.nn.modules.activation.RReLU": lambda module: module.lower < module.upper,
    "torch.nn.modules.activation.MultiheadAttention": _positive("dropout"),
    **{f"torch.nn.modules.rnn.{name}": _recurrent for name in ("RNN", "LSTM", "GRU")},
    **{f"torch.nn.modules.pooling.FractionalMaxPool{n}d": _always for n in (2, 3)},
    "torchvision.ops.stochastic_depth.StochasticDepth": _drops,
    **{f"torchvision.ops.drop_block.DropBlock{n}d": _drops for n in (2, 3)},
    "timm.layers.drop.DropPath": _drops,
    "timm.layers.drop.DropBlock2d": _drops,
    "timm.layers.patch_dropout.PatchDropout": _drops,
    "open_clip.transformer.PatchDropout": _drops,
}
"""Which classes draw in training mode, by where their `forward` is defined, and when: asked of the module."""


def drawing_modules(method: nn.Module) -> dict[str, nn.Module]:
    """Return the modules below `method`, by name, that draw by themselves when it is in training mode.

    A module that stays in evaluation mode then does not draw, nor does one with probability 0. A class with a forward
    method of its own is not known here; `Watch` sees what it does.
    """
    modes = {module: module.training for module in method.modules()}
    method.train()
    try:
        return {name: module for name, module in method.named_modules() if module.training and _draws(module)}
    finally:
        for module, mode in modes.items():
            module.training = mode


def _draws(module: nn.Module) -> bool:
    forward = type(module).forward
    where = f"{forward.__module__}.{getattr(forward, '__qualname__', '')}".removesuffix(".forward")
    return where in DRAWING and DRAWING[where](module)


class Watch(TorchDispatchMode):
    """While entered, notices the first draw of torch that does not go through `shares.py`.

    It looks at the generators after every operation, so it is for one step of many. found: what drew and where, in
    words; None while nothing has.
    """

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.names = {id(module): name for name, module in method.named_modules() if name}
        self.found: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Do the operation; note it if it moved a generator outside of `shares.py`."""
        kwargs = kwargs or {}
        if self.found is not None or shares.drawing():
            return func(*args, **kwargs)
        own = kwargs.get("generator")
        before = _states(own)
        result = func(*args, **kwargs)
        if any(not torch.equal(one, two) for one, two in zip(before, _states(own), strict=True)):
            self.found = self._place(str(func.overloadpacket).removeprefix("aten."))
        return result

    def _place(self, operation: str) -> str:
        """Return the module and the line of the method's code that is being run."""
        frame: FrameType | None = sys._getframe(2)
        module = line = None
        while frame is not None:
            code, holder = frame.f_code, frame.f_locals.get("self")
            if line is None and not frame.f_globals.get("__name__", "").startswith(("torch.", __name__)):
                line = f"line {frame.f_lineno} of {Path(code.co_filename).name}"
            if module is None and isinstance(holder, nn.Module) and id(holder) in self.names:
                module = f"its module '{self.names[id(holder)]}' ({type(holder).__name__}), "
            frame = frame.f_back
        return f"{module or ''}{line or 'its training loss'} ({operation})"


def _states(own: torch.Generator | None) -> list[Tensor]:
    """Return the states of the generators that an operation may have drawn from."""
    if own is not None:
        return [own.get_state()]
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if cuda else [])]
