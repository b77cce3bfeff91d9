"""A method without numbers: fake tensors in place of weights and images, and how many bytes its work keeps alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.training.execution import Execution
from methods.base import Batch, Method

_INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


def _places(index: Tensor | None) -> Tensor | None:
    """Return where a mask is true instead of the mask: of a fake tensor's rows only the number is known then."""
    return index.nonzero().squeeze(1) if index is not None and index.dtype == torch.bool and index.ndim == 1 else index


class ByPlace(TorchDispatchMode):
    """Lets fake tensors be indexed with real masks: by the places where a mask is true."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in _INDEXED:
            args = (args[0], [_places(index) for index in args[1]], *args[2:])
        return function(*args, **(kwargs or {}))


class Alive(ByPlace):
    """Follows which storages are alive beside those that were there, and remembers the most bytes there were."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in there)
        self.alive = self.fullest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(function, types, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._died, storage.nbytes())
        self.fullest = max(self.fullest, self.alive)
        return result

    def _died(self, size: int) -> None:
        self.alive -= size


def fullest(work: Callable[[], object], method: Method, execution: Execution, batch: Batch) -> tuple[int, int]:
    """Return the most bytes alive during `work` beside the weights, and those that what it returns keeps alive.

    The batch counts among the first.
    """
    values = [value for value in (batch.images, *(batch.features or {}).values()) if value is not None]
    with Alive([*method.parameters(), *method.buffers(), *values]) as alive, execution.autocast():
        kept = work()
        left = alive.alive
        del kept
    return alive.fullest + bytes_of(values), left


def fake_weights(method: Method) -> FakeTensorMode:
    """Replace the weights, wherever they are, by fake tensors on the CPU, and return their mode.

    The mode itself stays off: index tensors are real and have their values. A tensor that modules share stays shared.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes: dict[int, tuple[Tensor, Tensor]] = {}  # by identity; the original is held so that its identity stays taken
    for module in method.modules():
        held: Sequence[dict[str, Any]] = (module._parameters, module._buffers)
        for tensors in held:
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_floating_point():
                    continue
                if id(tensor) not in fakes:
                    with mode:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        if isinstance(tensor, nn.Parameter):
                            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    fakes[id(tensor)] = (tensor, fake)
                tensors[name] = fakes[id(tensor)][1]
    return mode


def fake_batch(method: Method, mode: FakeTensorMode, images: int) -> Batch:
    """Return a batch of fake images with real labels."""
    labels = torch.zeros(images, dtype=torch.int64)
    size = method.backbone.image_size
    with mode:
        return Batch(labels, labels, labels, images=torch.empty(images, 3, size, size))


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
