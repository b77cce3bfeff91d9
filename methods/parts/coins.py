"""The draws of `Tensor.bernoulli_` on a processor, the same bits in two thirds of the time.

torch takes 64 random bits for each, makes a number in [0, 1) of the lower 53 and compares it with the probability, one
value at a time. Here the bits are drawn as integers and compared as such, many at a time. Whether this torch draws so
is tried once; otherwise `bernoulli_` itself draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

_BITS = 53


def coins(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """Return what `bernoulli_(p)` makes of an empty bool tensor of a shape, with torch's own generator.

    like: a tensor of the processor; one without values, or of a subclass, has torch's own operation.
    """
    if type(like) is Tensor and not torch.compiler.is_compiling() and _draws_so():
        return _by_integers(shape, p, None)
    return like.new_empty(shape, dtype=torch.bool).bernoulli_(p)


def _by_integers(shape: Sequence[int], p: float, generator: torch.Generator | None) -> Tensor:
    bits = torch.empty(shape, dtype=torch.int64).random_(generator=generator)
    # The product with a power of 2 is exact, and an integer is below a number if it is below the next integer.
    return bits.bitwise_and_((1 << _BITS) - 1).lt(math.ceil(p * (1 << _BITS)))


@cache
def _draws_so() -> bool:
    generator, found = torch.Generator(), []
    for draw in (
        lambda: torch.empty(999, dtype=torch.bool).bernoulli_(0.9, generator=generator),
        lambda: _by_integers((999,), 0.9, generator),
    ):
        generator.manual_seed(0)
        found.append((draw(), generator.get_state()))
    return all(torch.equal(one, two) for one, two in zip(*found, strict=True))
