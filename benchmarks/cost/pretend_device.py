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

from collections.abc import Mapping, Sequence
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
from benchmarks.cost.pretend_counts import Counted, copied, count, in_force, looks_at, synchronised

aten = torch.ops.aten
NAME = "gpu"
DEVICE = torch.device("cpu")  # set below, once torch knows the name


class MixedDevices(RuntimeError):
    """An operation was given tensors of the CPU and of the device, which a real accelerator refuses."""


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
        synchronised("tolist")
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


_MOVES = (aten.to.device, aten.to.dtype_layout, aten.to.other, aten.to.dtype)
_LOAD = torch.load
_HAS_FOREACH = clip_grad._has_foreach_support


def _load(file: Any, map_location: Any = None, **options: Any) -> Any:
    """`torch.load`, which knows storages of the CPU alone here: what it is to put on the device goes there after."""
    if map_location is None or torch.device(map_location).type != NAME:
        return _LOAD(file, map_location=map_location, **options)
    loaded = _LOAD(file, map_location="cpu", **options)
    return tree_map(lambda item: item.to(DEVICE) if isinstance(item, Tensor) else item, loaded)


class Pretend(TorchDispatchMode):
    """Within, there is the device: factories such as torch.zeros(..., device=DEVICE) make tensors of it.

    counted: what has happened since. places: whether it says where; that takes time.
    """

    def __init__(self, places: bool = False) -> None:
        super().__init__()
        self.counted = Counted(with_places=places)

    def __enter__(self) -> Counted:  # type: ignore[override]  # what is entered for is the count
        in_force.append(self.counted)
        # On an accelerator torch has one kernel for a list of tensors, but not where their class is not its own.
        of_optimizers._foreach_supported_types.append(OnDevice)
        clip_grad._has_foreach_support = lambda tensors, device: True
        torch.load = _load  # type: ignore[assignment]  # whose other arguments go through
        super().__enter__()
        return self.counted

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        of_optimizers._foreach_supported_types.remove(OnDevice)
        clip_grad._has_foreach_support, torch.load = _HAS_FOREACH, _LOAD
        in_force.remove(self.counted)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Check devices, compute on the CPU, count, wrap."""
    leaves, _ = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    target = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    if func is aten.copy_.default or func is aten._copy_from.default:
        on_device = isinstance(args[0], OnDevice)
        crossing = on_device != isinstance(args[1], OnDevice)
    elif func is aten._to_copy.default or func in _MOVES:  # those in inference mode
        target = args[1].device if func is aten.to.other else target
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
        copied("to device" if on_device else "to host")
        if func in _MOVES:
            out = out.clone()  # for the processor it did not move
    elif there or on_device:
        count(func, args, out)
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

    looks, ordinary = looks_at(func), not any(tensor.is_inference() for tensor in there)
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
            copied("to device")  # a tensor may be indexed by numbers of the CPU, which are sent for it
        strays = [tensor for tensor in strays if all(tensor is not index for index in indices) and tensor.dim()]
    elif torch.Tag.pointwise in func.tags or func in (aten.fill_.Tensor, aten.masked_fill.Tensor):
        strays = [tensor for tensor in strays if tensor.dim()]  # a number of the CPU goes along as an argument
    elif "foreach" in func._schema.name:
        strays = [tensor for tensor in strays if tensor.dim()]
    if strays:
        shapes = ", ".join(f"{tuple(t.shape)} on {'the device' if isinstance(t, OnDevice) else 'cpu'}" for t in tensors)
        raise MixedDevices(f"{func} was given tensors of two devices: {shapes}")


def _empty_strided(
    size: Sequence[int], stride: Sequence[int], dtype: torch.dtype | None = None, **others: object
) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size: Sequence[int], dtype: torch.dtype | None = None, **others: object) -> Tensor:
    return OnDevice(torch.empty(size, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    held = source.held if isinstance(source, OnDevice) else source
    (target.held if isinstance(target, OnDevice) else target).copy_(held)
    if isinstance(source, OnDevice) != isinstance(target, OnDevice):
        copied("to device" if isinstance(target, OnDevice) else "to host")
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
