"""Reading DFSP's golden files: random weights that are drawn again, and gradients of which only a summary is kept.

The official implementation was run with random weights: normal values in the order of `meta["drawn"]` from numpy's
`RandomState` (whose stream is frozen) with `meta["seed"]`, rounded to 6 significant bits; a SHA-256 says that they are
the same. Of a gradient of more than 200 elements these are kept: its L2 norm, its dot products with eight vectors
(`RandomState(424200 + k).standard_normal(size)`), and the elements at `linspace(0, size - 1, 256)[::4]`, truncated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor


def draw(seed: int, drawn: Iterable[tuple[str, Sequence[int]]]) -> dict[str, np.ndarray]:
    """Return the official random weights, fp32, by official name."""
    stream = np.random.RandomState(seed)
    return {name: _rounded(_spread(name, stream.standard_normal(shape))) for name, shape in drawn}


def _spread(name: str, normal: np.ndarray) -> np.ndarray:
    if normal.ndim == 2:
        scaled = normal * normal.shape[1] ** -0.5
        return 1.2 * scaled if name.endswith("in_proj_weight") else scaled
    return float(name.endswith("weight")) + 0.1 * normal if ".ln_" in name else 0.05 * normal


def _rounded(values: np.ndarray) -> np.ndarray:
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 2**6) / 2**6, exponent).astype(np.float16).astype(np.float32)


def parameters(official: SimpleNamespace) -> dict[str, Tensor]:
    """Return the official parameters that take part in the forward pass, fp32, by official name."""
    stored = {key.removeprefix("param/"): value for key, value in official.arrays.items() if key.startswith("param/")}
    if "drawn" not in official.meta:
        return stored
    drawn = draw(official.meta["seed"], official.meta["drawn"])
    digest = hashlib.sha256(b"".join(values.tobytes() for values in drawn.values())).hexdigest()
    assert digest == official.meta["drawn_sha256"], "the random weights are not those of the official run"
    return stored | {name: torch.from_numpy(values) for name, values in drawn.items()}


def check_gradients(
    official: SimpleNamespace, ours: Mapping[str, Tensor], near: Callable, largest_zero: float = 1e-6
) -> None:
    """Compare gradients by official name with the file's; every gradient of the file must be there and no other.

    Limits: 3e-4 of the largest entry, norms 1e-4 relative, projections 3e-4 of the norm. A gradient that is zero in
    exact arithmetic holds rounding noise alone and is compared with zero.
    """
    arrays, summarised = official.arrays, official.meta.get("gradsummary", [])
    whole = [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]
    assert {*whole, *summarised} == set(ours)
    zero = official.meta["gradient_is_mathematically_zero"]
    for name in (*whole, *summarised):
        if name in zero:
            near(f"gradient {name}", ours[name], torch.zeros_like(ours[name]), largest_zero)
        elif name in whole:
            near(f"gradient {name}", ours[name], arrays[f"grad/{name}"], 3e-4, relative=True)
        else:
            row = summarised.index(name)
            numbers, samples = arrays["gradsummary/numbers"][row], arrays["gradsummary/samples"][row].double()
            _check_summary(name, ours[name].flatten().double(), numbers, samples, near)


def _check_summary(name: str, gradient: Tensor, numbers: Tensor, samples: Tensor, near: Callable) -> None:
    norm, largest = numbers[0], gradient.abs().max()
    vectors = [np.random.RandomState(424200 + k).standard_normal(len(gradient)) for k in range(len(numbers) - 1)]
    projections = torch.from_numpy(np.stack(vectors)) @ gradient
    places = np.linspace(0, len(gradient) - 1, 256).astype(np.int64)[:: 256 // len(samples)]
    near(f"gradient norm {name}", gradient.norm() / norm, torch.ones_like(norm), 1e-4)
    near(f"gradient projections {name}", projections / norm, numbers[1:] / norm, 3e-4)
    near(f"gradient samples {name}", gradient[places] / largest, samples / largest, 3e-4)
