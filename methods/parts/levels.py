"""Local and global image tokens: what a group of vision blocks gives, squeezed into one set of tokens (MSCI)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from errors import UserError
from methods.parts.shares import image_dropout

Pooling = Literal["linear", "max", "mean"]


def block_range(asked: int | None, blocks: int, what: str) -> int:
    """Return how many of a tower's blocks a level reads: `asked`, or where that is None a sixth, but at least two.

    A sixth is four of 24 blocks, MSCI's choice on two of its three data sets; a level of one block has nothing to
    aggregate. More than there are is a `UserError` that calls the setting `what`.
    """
    if asked is None:
        return min(blocks, max(2, round(blocks / 6)))
    if asked > blocks:
        raise UserError(
            f"The setting {what} asks for {asked} vision blocks.",
            f"The backbone has {blocks}.",
            f"Choose at most {blocks}, or leave {what} out.",
        )
    return asked


class Aggregator(nn.Module):
    """Squeezes the tokens of n blocks into one set, token by token (MSCI section 5).

    "linear": Dropout(ReLU(LayerNorm(W [F_1; ...; F_n] + b))), channels concatenated in the order of the blocks. "max"
    and "mean" take the largest or the mean entry and learn nothing. Of a single block the tokens are taken as they are.
    """

    def __init__(self, width: int, n_blocks: int, pooling: Pooling = "linear", dropout: float = 0.1) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = dropout
        learned = n_blocks > 1 and pooling == "linear"
        self.linear = nn.Linear(n_blocks * width, width) if learned else None
        self.norm = nn.LayerNorm(width) if learned else None

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return [B, T, width] of one [B, T, width] per block."""
        if len(tokens) == 1:
            return tokens[0]
        if self.linear is None or self.norm is None:
            stacked = torch.stack(list(tokens))
            return stacked.amax(dim=0) if self.pooling == "max" else stacked.mean(dim=0)
        hidden = functional.relu(self.norm(self.linear(torch.cat(list(tokens), dim=-1))))
        return image_dropout(hidden, self.dropout, self.training)
