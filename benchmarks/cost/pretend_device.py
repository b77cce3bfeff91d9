"""A pretended accelerator: tensors that claim another device, compute on the CPU, do not mix devices, and are counted.

    with Pretend() as counted:
        method.to(DEVICE)
        method.training_loss(batch, candidates).total.backward()
    print(counted.synchronisations, counted.copies, counted.kernels)

PyTorch lets Python be the backend of its spare device ("privateuseone", here called "gpu"). An `OnDevice` says that it
is there and holds a tensor of the CPU. Every operation comes to `Pretend`, which checks that all tensors are on one
device, as CUDA would, runs the operation on what the tensors hold and wraps what comes out. Code that depends on data
works, because the numbers are real. Mixed precision follows CUDA's lists of operations (`pretend_autocast.py`).

What a card does otherwise, this cannot show: rounding, limits of its kernels, streams, memory, time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.optim.optimizer as of_optimizers
import torch.utils.backend_registration as registration
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from benchmarks.cost.pretend_attention import ATTENTION, attention
from benchmarks.cost.pretend_autocast import register_autocast

aten = torch.ops.aten
NAME = "gpu"
DEVICE = torch.device("cpu")  # set below, once torch knows the name

SYNCHRONISING = {
    *("_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "equal"),
    *("is_nonzero", "masked_select", "bincount", "repeat_interleave.Tensor"),
}
"""Operations that make the host wait, because a number or a shape depends on what the device computes."""
VIEWS = {"_unsafe_view", "_reshape_alias", "lift_fresh"}
"""Views that the schema does not tell."""
NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "_fused_sdp_choice"),
    "_local_scalar_dense",
}
"""Operations that compute nothing on the device."""
ROOT = Path(__file__).parents[2]


class MixedDevices(RuntimeError):
    """An operation was given tensors of the CPU and of the device, which a real accelerator refuses."""


@dataclass
class Counted:
    """What happened on the device.

    synchronisations: times that the host had to wait for the device, by operation
    copies: of tensors between host and device, by direction, "to device" and "to host"
    kernels: operations that compute on the device, by name; a view computes nothing
    views: operations that only look at a tensor otherwise, by name; they cost the host time
    places: where the first two happened, as "file:line operation", where places were asked for
    """

    synchronisations: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begin at zero."""
        for counter in (self.synchronisations, self.copies, self.kernels, self.views, self.places):
            counter.clear()


class _Module(registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device: object = None) -> None:
        pass


class OnDevice(Tensor):
    """A tensor that says it is on the device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch's own classes do

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # a static method of the base class in torch's stubs
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the numbers; the host waits for them."""
        _synchronised("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as tensors of an accelerator do."""
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return restored, (self.held, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone().requires_grad_(self.requires_grad)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # stubs lack its arguments
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"


def restored(held: Tensor, requires_grad: bool) -> Tensor:
    """Return a tensor of the device from what was saved of it."""
    return OnDevice(held.clone()).requires_grad_(requires_grad)


_LOAD = torch.load
_HAS_FOREACH = clip_grad._has_foreach_support


def _load(file: Any, map_location: Any = None, **options: Any) -> Any:
    """`torch.load`, which knows storages of the CPU alone here: what it is to put on the device goes there after."""
    if map_location is None or torch.device(map_location).type != NAME:
        return _LOAD(file, map_location=map_location, **options)
    loaded = _LOAD(file, map_location="cpu", **options)
    return tree_map(lambda item: item.to(DEVICE) if isinstance(item, Tensor) else item, loaded)


_in_force: list[Counted] = []
_places = False


class Pretend(TorchDispatchMode):
    """Within, there is the device: factories such as torch.zeros(..., device=DEVICE) make tensors of it.

    counted: what has happened since. places: whether it says where; that takes time.
    """

    def __init__(self, places: bool = False) -> None:
        super().__init__()
        self.counted = Counted()
        self.places = places

    def __enter__(self) -> Counted:  # type: ignore[override]  # what is entered for is the count
        global _places
        _in_force.append(self.counted)
        _places = self.places
        # On an accelerator torch has one kernel for a list of tensors, but not where their class is not its own.
        of_optimizers._foreach_supported_types.append(OnDevice)
        clip_grad._has_foreach_support = lambda tensors, device: True
        torch.load = _load
        super().__enter__()
        return self.counted

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        of_optimizers._foreach_supported_types.remove(OnDevice)
        clip_grad._has_foreach_support, torch.load = _HAS_FOREACH, _LOAD
        _in_force.remove(self.counted)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Check devices, compute on the CPU, count, wrap."""
    leaves, _ = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    target = kwargs.get("device")
    if func is aten.copy_.default or func is aten._copy_from.default:
        on_device = isinstance(args[0], OnDevice)
        crossing = on_device != isinstance(args[1], OnDevice)
    elif func is aten._to_copy.default:
        on_device = isinstance(args[0], OnDevice) if target is None else torch.device(target).type == NAME
        crossing = on_device != isinstance(args[0], OnDevice)
    else:
        on_device = bool(there) if target is None else torch.device(target).type == NAME
        crossing = False
        if there:
            _check(func, args, tensors)

    def bare(item: Any) -> Any:
        if isinstance(item, OnDevice):
            return item.held
        return torch.device("cpu") if isinstance(item, torch.device) else item

    work = ATTENTION.get(func, func)
    out = work(*tree_map(bare, tuple(args)), **tree_map(bare, dict(kwargs)))
    if crossing:
        _copied("to device" if on_device else "to host")
    elif there or on_device:
        _count(func, args, out)
    known = {id(tensor.held): tensor for tensor in there}  # what is changed in place stays who it is

    def clothed(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        if id(item) in known:
            return known[id(item)]
        if not on_device:
            return item
        # In inference mode a view of an ordinary tensor is one too.
        with torch.inference_mode(torch.is_inference_mode_enabled() and not (looks and ordinary)):
            return OnDevice(item)

    looks, ordinary = _looks(func), not any(tensor.is_inference() for tensor in there)
    return tree_map(clothed, out)


def _check(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    strays = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    if not strays:
        return
    if func.namespace == "c10d":
        raise MixedDevices(f"{func} exchanges tensors of both devices")
    indexing = func._schema.name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
    if indexing and isinstance(args[0], OnDevice):
        indices = [index for index in args[1] if isinstance(index, Tensor) and not isinstance(index, OnDevice)]
        for _ in indices:
            _copied("to device")  # a tensor may be indexed by numbers of the CPU, which are sent for it
        strays = [tensor for tensor in strays if all(tensor is not index for index in indices) and tensor.dim()]
    elif torch.Tag.pointwise in func.tags or func in (aten.fill_.Tensor, aten.masked_fill.Tensor):
        strays = [tensor for tensor in strays if tensor.dim()]  # a number of the CPU goes along as an argument
    elif "foreach" in func._schema.name:
        strays = [tensor for tensor in strays if tensor.dim()]
    if strays:
        shapes = ", ".join(f"{tuple(t.shape)} on {'the device' if isinstance(t, OnDevice) else 'cpu'}" for t in tensors)
        raise MixedDevices(f"{func} was given tensors of two devices: {shapes}")


def _looks(func: Any) -> bool:
    """Return whether an operation gives views of what it is given."""
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


def _count(func: Any, args: Sequence[Any], out: Any) -> None:
    """Count an operation; one that makes an empty tensor starts nothing."""
    name = func._schema.name.removeprefix("aten::")
    looks = _looks(func)
    empty = isinstance(out, Tensor) and out.numel() == 0
    for counted in _in_force[-1:]:
        if looks or name in VIEWS:
            counted.views[name] += 1
        elif not empty and name not in NO_KERNEL:
            counted.kernels[name] += 1
            if _places:
                counted.places[f"{_place()} {name}"] += 1
    by_mask = name in ("index", "index_put_", "index_put", "_index_put_impl_") and any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )
    if name in SYNCHRONISING or f"{name}.{func._overloadname}" in SYNCHRONISING or by_mask:
        _synchronised("item" if name == "_local_scalar_dense" else f"{name} by mask" if by_mask else name)


def _synchronised(what: str) -> None:
    for counted in _in_force[-1:]:
        counted.synchronisations[what] += 1
        if _places:
            counted.places[f"{_place()} SYNC {what}"] += 1


def _copied(direction: str) -> None:
    for counted in _in_force[-1:]:
        counted.copies[direction] += 1
        if _places:
            counted.places[f"{_place()} COPY {direction}"] += 1


def _place() -> str:
    """Return the innermost line of the suite that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(str(ROOT)) and file != __file__:
            return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None at the outermost
    return "backward"


def _empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype | None = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _empty(
    size: Sequence[int],
    dtype: torch.dtype | None = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    memory_format: object = None,
) -> Tensor:
    return OnDevice(torch.empty(size, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    held = source.held if isinstance(source, OnDevice) else source
    (target.held if isinstance(target, OnDevice) else target).copy_(held)
    if isinstance(source, OnDevice) != isinstance(target, OnDevice):
        _copied("to device" if isinstance(target, OnDevice) else "to host")
    return target


registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)
_library = torch.library.Library("aten", "IMPL")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")
for key in ("PrivateUse1", "AutogradPrivateUse1"):
    _library.impl("scaled_dot_product_attention", attention, key)
torch.serialization.add_safe_globals([restored])
register_autocast(NAME)
