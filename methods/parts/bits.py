"""Dropout masks kept as bits, eight values to a byte: a thirty-second of what torch keeps of a dropout in fp32.

Drawing a mask again in backward would take as long as drawing it, the better part of a dropout on a CPU. Packing and
unpacking take a few per cent of that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Eight bytes of 0 or 1 are one integer. Times GATHER, its uppermost byte holds them as bits.
_GATHER = 0x0102040810204080
# A byte repeated eight times (SPREAD), of which every place keeps another bit (OWN_BIT).
_SPREAD = 0x0101010101010101
_OWN_BIT = 0x8040201008040201 - (1 << 64)


def pack(mask: Tensor) -> Tensor:
    """Return the bits, uint8 [rows, ceil(width / 8)], of a mask, bool [rows, width]."""
    missing = -mask.shape[-1] % 8
    whole = functional.pad(mask, (0, missing)) if missing else mask
    words = whole.contiguous().view(torch.uint8).view(torch.int64)
    return ((words * _GATHER) >> 56).to(torch.uint8)


def unpack(bits: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return the mask [rows, width] of bits from `pack`, 1 where it was true and 0 elsewhere, in `dtype`."""
    words = bits.to(torch.int64).mul_(_SPREAD).bitwise_and_(_OWN_BIT)
    return words.view(torch.uint8)[:, :width].sign().to(dtype)
