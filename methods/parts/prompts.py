"""Soft prompts: a fixed sentence whose last words are slots for learned vectors (CSP, CoOp, DFSP, Troika, MSCI).

Two pieces that methods combine. `PrimitiveTable` holds one vector per state and per object. `SoftPrompt` is one
family of prompts, such as "a photo of x x" for pairs or "a photo of x" for primitives, with or without a learned
context; it writes rows of a table into its slots and encodes the result.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone

# Spelt "x" as any one-token word would do: the slots' embeddings are always overwritten.
PAIR_TEMPLATE = "a photo of x x"


class PrimitiveTable(nn.Module):
    """One vector per state and per object, fp32 [A + O, T]: rows 0..A-1 the states, then the objects.

    init: "words" starts each row as the mean embedding of the label's BPE tokens; "random" draws normal values with the
    deviation of the "words" table. trainable False keeps the rows as a constant that checkpoints leave out.
    """

    weight: Tensor

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: Vocabulary,
        dropout: float = 0.0,
        init: Literal["words", "random"] = "words",
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.n_states = len(vocabulary.states)
        self.dropout = dropout
        weight = backbone.mean_token_embedding([*vocabulary.states, *vocabulary.objects])
        if init == "random":
            weight = torch.randn_like(weight) * weight.std()
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self) -> Tensor:
        """Return the table, in training mode with dropout: one mask on the whole table, so once per forward pass."""
        return functional.dropout(self.weight, self.dropout, self.training)

    def pair_rows(self, candidates: Candidates) -> Tensor:
        """Return for each candidate the rows of its state and of its object, int64 [K, 2]."""
        rows = torch.as_tensor(candidates.pairs, device=self.weight.device)
        return rows + torch.tensor([0, self.n_states], device=rows.device)


class SoftPrompt(nn.Module):
    """A sentence whose last `slots` words are replaced by given vectors, and whose other words may be learned.

    With the end token at position e the slots are e-slots..e-1 (4 and 5 in "a photo of x x") and the context lies
    between the start token and the first slot. learn_context: make those context vectors a parameter, initialised with
    the sentence's own words (CoOp); otherwise they stay CLIP's. context_length: pad to this many tokens, for a method
    that reads all positions; None pads nothing, which gives the same features because attention is causal.
    """

    words: Tensor

    def __init__(
        self,
        backbone: Backbone,
        template: str = PAIR_TEMPLATE,
        slots: int = 2,
        learn_context: bool = False,
        context_length: int | None = None,
    ) -> None:
        super().__init__()
        ids = backbone.tokenize([template], context_length)[0]
        self.eot = int(ids.argmax())  # the end token has the largest id of all
        self.slots = slots
        with torch.no_grad():
            embeddings = backbone.token_embedding(ids).float()
        self.register_buffer("words", embeddings, persistent=False)  # [L, T], CLIP's own, so not in checkpoints
        self.context = nn.Parameter(embeddings[1 : self.eot - slots].clone()) if learn_context else None

    def forward(self, table: Tensor, rows: Tensor) -> Tensor:
        """Return token vectors [K, L, T] (no positions): rows int64 [K, slots] of `table` [N, T] in the slots."""
        context = self.words[1 : self.eot - self.slots] if self.context is None else self.context
        before = torch.cat([self.words[:1], context]).expand(len(rows), -1, -1)
        return torch.cat([before, table[rows], self.words[self.eot :].expand(len(rows), -1, -1)], dim=1)

    def encode(self, backbone: Backbone, table: Tensor, rows: Tensor) -> Tensor:
        """Return the text features [K, d], not normalised, of `forward`'s prompts.

        Token vectors are made pass by pass, so that all pairs of an open world never lie in memory at once.
        """
        passes = rows.split(backbone.text_chunk)
        return torch.cat([backbone.encode_text(self(table, part), self.eot) for part in passes])
