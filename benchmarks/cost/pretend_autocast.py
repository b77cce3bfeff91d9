"""Mixed precision of the pretended accelerator: which operations compute in half precision, which in fp32, as on CUDA.

The lists are those of torch's `autocast_mode.h` for CUDA, as far as methods use them; the CPU has other ones. What is
in none of them computes in what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

HALF = (
    *("_convolution", "convolution", "conv1d", "conv2d", "addmm", "addmv", "matmul", "mm", "mv", "bmm", "baddbmm"),
    *("linear", "linalg_vecdot", "scaled_dot_product_attention"),
)
"""Operations that compute in half precision."""
SINGLE = (
    *("exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "softplus", "layer_norm"),
    *("native_layer_norm", "group_norm", "cosine_similarity", "nll_loss", "kl_div", "mse_loss", "logsumexp"),
    *("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "prod", "prod.dim_int", "softmax.int"),
    *("log_softmax.int", "cumsum", "cumprod", "linalg_vector_norm", "sum", "sum.dim_IntList", "norm.ScalarOpt_dim"),
    *("norm.Scalar", "binary_cross_entropy_with_logits", "l1_loss", "dist", "cdist"),
)
"""Operations that compute in fp32."""
WIDEST = ("addcdiv", "addcmul", "dot", "vdot", "index_put", "scatter_add", "tensordot")
"""Operations that compute in the widest type of what they are given."""
KEY = "AutocastPrivateUse1"

_library = torch.library.Library("aten", "IMPL")
_fallback = torch.library.Library("_", "IMPL")


def register_autocast(device: str) -> None:
    """Make autocast known for the device, whose name torch knows already; once in a process."""
    _fallback.fallback(torch.library.fallthrough_kernel, KEY)
    for names, choose in (
        (HALF, lambda tensors: torch.get_autocast_dtype(device)),
        (SINGLE, lambda tensors: torch.float32),
        (WIDEST, _widest),
    ):
        for name in names:
            packet, _, overload = name.partition(".")
            function = getattr(getattr(torch.ops.aten, packet), overload or "default")
            _library.impl(name, _cast(function, choose), KEY)


def _widest(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32 if any(tensor.dtype == torch.float32 for tensor in tensors) else tensors[0].dtype


def _casts(item: Any) -> bool:
    """Return whether autocast changes the type of an argument: real numbers of the device, but for fp64."""
    return isinstance(item, Tensor) and not item.is_cpu and item.is_floating_point() and item.dtype != torch.float64


def _cast(function: Any, choose: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
    def computed(*args: Any, **kwargs: Any) -> Any:
        keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))
        with torch._C._ExcludeDispatchKeyGuard(keys):
            found = [item for item in tree_leaves((args, kwargs)) if _casts(item)]
            if found:
                dtype = choose(found)
                args, kwargs = tree_map(lambda item: item.to(dtype) if _casts(item) else item, (args, kwargs))
            return function(*args, **kwargs)

    return computed
