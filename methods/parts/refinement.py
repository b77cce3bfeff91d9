"""Learned queries that read image regions, and the map from image to text space (Refiner-style, sections 5 and 6).

A bank of K queries per branch goes through a small pre-norm transformer over the image's patches; each branch pools its
rows and adds them to CLIP's image feature. A residual mapper follows. Both start as the identity: what they add begins
at zero. B images, N region tokens, d joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.backbone.heads import attend, head_count
from methods.parts.memo import PerObject
from methods.parts.prompt_families import Branch
from methods.parts.shares import ImageDropout

QueryMask = Literal["comp_only", "full", "none"]
Pool = Literal["attn", "mean", "max"]


class RefinementLayer(nn.Module):
    """Self-attention among queries, cross-attention to regions, feed-forward (hidden width 2 d); pre-norm, residual.

    dropout: on the output of each. Weights start Xavier uniform, biases at zero.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(width, head_count(width), batch_first=True)
        self.across = nn.MultiheadAttention(width, head_count(width), batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.dropout = ImageDropout(dropout)
        for attention in (self.among, self.across):
            for matrix in (*attention.in_proj_weight.data.chunk(3), attention.out_proj.weight):
                nn.init.xavier_uniform_(matrix)
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, regions: Tensor, mask: Tensor) -> Tensor:
        """Return the queries [B, Q, d] after the layer.

        queries: [B, Q, d], or [1, Q, d] while they are the same for all images
        regions: [B, N, d]
        mask: bool [Q, Q], true where a query (row) may see another (column)
        """
        normed = self.norms[0](queries)
        queries = queries + self.dropout(attend(self.among, normed, normed, mask))
        queries = queries + self.dropout(attend(self.across, self.norms[1](queries), regions))
        inner = functional.gelu(self.widen(self.norms[2](queries)))
        return queries + self.dropout(self.narrow(inner))


def visible(query_mask: QueryMask, branch: Branch, other: Branch) -> bool:
    """Return whether the queries of `branch` see those of `other`.

    comp_only: the pair's queries see all, which is our reading of "state-object context"; state and object stay apart.
    """
    return branch == other or query_mask == "full" or (query_mask == "comp_only" and branch == "pair")


class QueryRefiner(nn.Module):
    """The query bank, its layers and the pooling: from regions to one vector r_b per branch, at first zero.

    banks: the branches that have queries
    read: those that a vector is pooled for
    share: one stack of layers for all, or a stack per branch, which then runs over the queries that the branch sees
    """

    def __init__(
        self,
        width: int,
        queries: int,
        layers: int,
        *,
        banks: Sequence[Branch],
        read: Sequence[Branch],
        query_mask: QueryMask,
        share: bool,
        pool: Pool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.banks, self.read = tuple(banks), tuple(read)
        self.n_queries, self.query_mask, self.pool = queries, query_mask, pool
        self._masks: PerObject[Tensor] = PerObject()  # by stack, each of which has its banks
        self.queries = nn.ParameterDict({bank: torch.randn(queries, width) * 0.02 for bank in banks})
        self.norm_regions = nn.LayerNorm(width)
        stacks = ["shared"] if share else list(read)
        self.stacks = nn.ModuleDict(
            {stack: nn.ModuleList(RefinementLayer(width, dropout) for _ in range(layers)) for stack in stacks}
        )
        self.norm_out = nn.LayerNorm(width)
        attended = read if pool == "attn" else ()
        self.pool_weights = nn.ParameterDict({branch: torch.zeros(width) for branch in attended})
        self.outputs = nn.ModuleDict({branch: nn.Linear(width, width) for branch in read})
        for parameter in self.outputs.parameters():
            nn.init.zeros_(parameter)

    def rows(self, tokens: Tensor) -> dict[Branch, Tensor]:
        """Return the query rows [B, K, d] of each bank after the last layer, for region tokens [B, N, d]."""
        regions = self.norm_regions(tokens)
        if "shared" in self.stacks:
            return self._run("shared", self.banks, regions)
        found = {}
        for branch in self.read:
            seen = [bank for bank in self.banks if visible(self.query_mask, branch, bank)]
            found[branch] = self._run(branch, seen, regions)[branch]
        return found

    def _mask(self, banks: Sequence[Branch]) -> Tensor:
        """Return which query (row) may see which (column), bool [Q, Q], on the CPU."""
        allowed = torch.tensor([[visible(self.query_mask, row, column) for column in banks] for row in banks])
        return allowed.repeat_interleave(self.n_queries, 0).repeat_interleave(self.n_queries, 1)

    def _run(self, stack: str, banks: Sequence[Branch], regions: Tensor) -> dict[Branch, Tensor]:
        stack_of = self.stacks[stack]
        mask = self._masks.get(stack_of, regions.device, lambda: self._mask(banks).to(regions.device))
        state = torch.cat([self.queries[bank] for bank in banks])[None]
        if self.training:  # dropout draws for each image; without it the first self-attention is the same for all
            state = state.expand(len(regions), -1, -1)
        layers = cast(nn.ModuleList, stack_of)  # a ModuleDict forgets
        for layer in layers:
            state = layer(state, regions, mask)
        return dict(zip(banks, state.split(self.n_queries, dim=1), strict=True))

    def forward(self, rows: dict[Branch, Tensor]) -> dict[Branch, Tensor]:
        """Return r_b [B, d] of each branch that is read, from what `rows` gave."""
        return {branch: self.outputs[branch](self._pooled(branch, self.norm_out(rows[branch]))) for branch in self.read}

    def _pooled(self, branch: Branch, rows: Tensor) -> Tensor:
        if self.pool == "max":
            return rows.amax(dim=1)
        if self.pool == "mean":
            return rows.mean(dim=1)
        weights = (rows @ self.pool_weights[branch]).softmax(dim=1)
        return (weights[..., None] * rows).sum(dim=1)


class Mapper(nn.Module):
    """v + W2 Dropout(GELU(W1 LayerNorm(v) + b1)) + b2 for vectors [..., width]; W2 and b2 start at zero."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.dropout = ImageDropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return mapped vectors, [..., width]."""
        return vectors + self.up(self.dropout(functional.gelu(self.down(self.norm(vectors)))))


def query_overlap(rows: Sequence[Tensor]) -> Tensor:
    """Return the mean squared cosine of two different queries of a branch, over images, branches and query pairs.

    rows: for each branch [B, K, d]. It keeps the queries of a branch from collapsing; 0 for a single query.
    """
    stacked = functional.normalize(torch.stack(tuple(rows)).float(), dim=-1)  # [branches, B, K, d]
    queries = stacked.shape[-2]
    if queries == 1:
        return stacked.new_zeros(())
    squares = (stacked @ stacked.mT).square().mean(dim=(0, 1))
    return (squares.sum() - squares.trace()) / (queries * (queries - 1))
