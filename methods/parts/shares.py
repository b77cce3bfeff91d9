"""One process's share of the images of a micro-batch: what a method must know when several processes train one run.

A method sees the images of its own process alone. Three things are about all of them: the random numbers that each
image draws for itself, the statistics of BatchNorm, and how work is cut where that decides which number falls where.
With one process there is no share in force, and everything here is what torch does.

All that a method draws in training it draws through this module: `image_dropout`, `ImageDropout` and `image_noise` for
values with a row per image, `common_dropout`, `CommonDropout` and `common_draws` for what all images have in common
(prompts, text features). A draw of torch's own is the same in every process, so that images of different processes
would get the same numbers; `benchmarks/training/distributed.py` refuses a method that makes one, which
`methods/parts/own_draws.py` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.parts.coins import coins


@dataclass(frozen=True)
class Share:
    """The images first .. first + count - 1 of the `total` of a micro-batch.

    A process without an image of its own (count 0) goes through with a copy of image `first`, which counts for nothing,
    so that it takes part in whatever the others exchange. join: from the rows of this process to those of all, [total,
    ...]; gradients flow back through it to the process a row came from.
    """

    first: int
    count: int
    total: int
    join: Callable[[Tensor, Share], Tensor]

    @property
    def held(self) -> int:
        """How many images this process goes through, the one that counts for nothing included."""
        return max(1, self.count)

    @property
    def rows(self) -> slice:
        """Where the images that this process holds stand among all."""
        return slice(self.first, self.first + self.held)


# Not a ContextVar: backward, where activations are computed again, may run in a thread that would not see it.
_in_force: Share | None = None


_drawing = 0  # how many functions of this module are about to draw


def drawing() -> bool:
    """Return whether what is drawn now is drawn through this module."""
    return _drawing > 0


@contextmanager
def common_draws() -> Iterator[None]:
    """Say that what is drawn within is for values that all images have in common: every process draws the same.

    How much is drawn must not depend on the number of images.
    """
    global _drawing
    _drawing += 1
    try:
        yield
    finally:
        _drawing -= 1


@contextmanager
def in_force(share: Share | None) -> Iterator[None]:
    """Let what is within compute on a share of the images; the forward pass and the backward pass belong in it."""
    global _in_force
    before, _in_force = _in_force, share
    try:
        yield
    finally:
        _in_force = before


def images_of_all(own: int) -> int:
    """Return how many images the whole micro-batch has, where this process holds `own`."""
    return own if _in_force is None else _in_force.total


def all_rows(values: Tensor) -> Tensor:
    """Return the rows of all processes, [total, ...], of one row per image of this one."""
    return values if _in_force is None else _in_force.join(values, _in_force)


def own_rows(values: Tensor) -> Tensor:
    """Return this process's rows of what `all_rows` gave."""
    return values if _in_force is None else values[_in_force.rows]


def image_dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """Return dropout of values [B, ...] whose first axis are the images of the batch.

    A process draws for all images of the micro-batch and takes what falls on its own: the numbers that one process
    would draw. Values that all images have in common take `common_dropout`.
    """
    with common_draws():
        if _in_force is None or not training or p == 0:
            return functional.dropout(values, p, training)
        return values * own_rows(functional.dropout(torch.ones_like(_for_all(values)), p))


def image_mask(values: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Return where `image_dropout` would keep values of a shape [B, ...]: bool, drawn as it draws.

    values: any tensor [B, ...] of the device that the mask is for.
    """
    whole = (images_of_all(shape[0]), *shape[1:])
    with common_draws():
        if values.is_cpu:
            # What torch's dropout draws there, without the tensors of numbers that it makes of it.
            return own_rows(coins(whole, 1 - p, values))
        return own_rows(functional.dropout(values.new_ones(whole), p) != 0)


def image_noise(values: Tensor) -> Tensor:
    """Return standard normal numbers of the shape of values [B, ...], drawn as `image_dropout` draws."""
    with common_draws():
        return own_rows(torch.randn_like(_for_all(values)))


def common_dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """Return torch's dropout of values [...] that all images have in common; every process draws the same for them."""
    with common_draws():
        return functional.dropout(values, p, training)


def _for_all(values: Tensor) -> Tensor:
    """Return an empty tensor like `values`, but of all images; they fill memory in the same order, as draws do."""
    if _in_force is None:
        return values
    order = sorted(range(values.dim()), key=values.stride, reverse=True)  # stable: the images stay first among equals
    shape = (_in_force.total, *values.shape[1:])
    return torch.empty_permuted(shape, order, dtype=values.dtype, device=values.device)


class ImageDropout(nn.Dropout):
    """`image_dropout` as a layer."""

    def forward(self, values: Tensor) -> Tensor:
        """Return dropout of values [B, ...]."""
        return image_dropout(values, self.p, self.training)


class CommonDropout(nn.Dropout):
    """`common_dropout` as a layer."""

    def forward(self, values: Tensor) -> Tensor:
        """Return dropout of values [...] that all images have in common."""
        return common_dropout(values, self.p, self.training)
