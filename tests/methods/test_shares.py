"""Shares of a micro-batch: what two processes draw and normalise is what one draws and normalises."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from methods.parts import shares
from methods.parts.branches import Disentangler
from methods.parts.shares import ImageDropout, Share, image_dropout, image_noise


def parts(total: int, *cuts: int) -> list[Share]:
    edges = [0, *cuts, total]
    return [Share(a, b - a, total, join=None) for a, b in pairwise(edges)]


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 0, 2)], ids=["plain", "transposed", "images second"])
def test_processes_draw_the_mask_of_one(axes):
    values = torch.randn(5, 3, 4).permute(axes).contiguous().permute(torch.argsort(torch.tensor(axes)).tolist())
    torch.manual_seed(1)
    whole, after = functional.dropout(values, 0.4), torch.rand(1)
    drawn = []
    for share in parts(5, 2):
        torch.manual_seed(1)
        with shares.in_force(share):
            drawn.append(image_dropout(values[share.rows], 0.4, training=True))
        assert torch.equal(torch.rand(1), after), "what is drawn next is the same too"
    assert torch.equal(torch.cat(drawn), whole)


def test_noise_is_that_of_one_process():
    torch.manual_seed(1)
    whole = torch.randn(5, 3)
    torch.manual_seed(1)
    with shares.in_force(Share(2, 3, 5, join=None)):
        assert torch.equal(image_noise(torch.zeros(3, 3)), whole[2:])


def test_without_a_share_it_is_torchs_dropout():
    values = torch.randn(6, 8)
    layers = ImageDropout(0.3), torch.nn.Dropout(0.3)
    results = []
    for layer in layers:
        torch.manual_seed(2)
        results.append((layer(values), layer.eval()(values)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert repr(layers[0].state_dict()) == repr(layers[1].state_dict())


def test_a_process_without_an_image_holds_a_copy_of_one():
    idle = Share(0, 0, 3, join=None)
    assert idle.rows == slice(0, 1)
    with shares.in_force(idle):
        assert shares.images_of_all(1) == 3
        assert len(shares.own_rows(torch.arange(3))) == 1
    assert shares.images_of_all(1) == 1


def test_one_image_in_all_decides_about_running_statistics_and_not_one_here():
    """An image is alone only if the other processes have none: then there is nothing to take a statistic from."""
    part, image = Disentangler(4), torch.randn(1, 4)
    with shares.in_force(Share(0, 1, 1, join=None)):
        part(image)
    with shares.in_force(Share(0, 1, 2, join=None)), pytest.raises(ValueError, match="more than 1 value"):
        part(image)  # BatchNorm is asked; here nothing brings it the other row
