"""Soft prompts: a fixed sentence whose last words are slots for learned vectors (CSP, CoOp, DFSP, Troika, MSCI).

Two pieces that methods combine. `PrimitiveTable` holds one vector per state and per object. `SoftPrompt` is one
family of prompts, such as "a photo of x x" for pairs or "a photo of x" for primitives, with or without a learned
context; it writes rows of a table into its slots and encodes the result. `prompt_families.py` puts the families of the
three-branch methods together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from datasets.base import Candidates, Vocabulary
from methods.backbone import prefix
from methods.backbone.clip import Backbone
from methods.backbone.text import TextSide
from methods.parts.memo import PerObject
from methods.parts.shares import common_dropout

# Spelt "x" as any one-token word would do: the slots' embeddings are always overwritten.
PAIR_TEMPLATE = "a photo of x x"
PRIMITIVE_TEMPLATE = "a photo of x"


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
        self._rows: PerObject[Tensor] = PerObject()
        weight = backbone.mean_token_embedding([*vocabulary.states, *vocabulary.objects])
        if init == "random":
            weight = torch.randn_like(weight) * weight.std()
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self) -> Tensor:
        """Return the table, in training mode with dropout: one mask on the whole table, so once per forward pass."""
        return common_dropout(self.weight, self.dropout, self.training)

    def pair_rows(self, candidates: Candidates) -> Tensor:
        """Return for each candidate the rows of its state and of its object, int64 [K, 2]: one tensor for a list."""
        device, starts = self.weight.device, np.array([0, self.n_states])
        return self._rows.get(candidates, device, lambda: torch.as_tensor(candidates.pairs + starts, device=device))


class SoftPrompt(nn.Module):
    """A sentence whose last `slots` words are replaced by given vectors, and whose other words may be learned.

    With the end token at position e the slots are e-slots..e-1 (4 and 5 in "a photo of x x") and the context lies
    between the start token and the first slot.

    learn_context: make those context vectors a parameter, initialised with the sentence's own words (CoOp); otherwise
        they stay CLIP's
    fixed: how many words before the slots stay CLIP's own though the context is learned
    context_length: pad to this many tokens, for a method that reads all positions; None pads nothing, which gives the
        same features because attention is causal
    """

    words: Tensor

    def __init__(
        self,
        backbone: Backbone,
        template: str = PAIR_TEMPLATE,
        slots: int = 2,
        learn_context: bool = False,
        context_length: int | None = None,
        fixed: int = 0,
    ) -> None:
        super().__init__()
        ids = backbone.tokenize([template], context_length)[0]
        self.eot = int(backbone.end_positions(ids[None]))
        self.slots = slots
        self._plans: PerObject[tuple[Tensor, Tensor]] = PerObject()
        with torch.no_grad():
            embeddings = backbone.token_embedding(ids).float()
        self.register_buffer("words", embeddings, persistent=False)  # [L, T], CLIP's own, so not in checkpoints
        self.context = nn.Parameter(embeddings[1 : self.eot - slots - fixed].clone()) if learn_context else None

    def beginning(self) -> Tensor:
        """Return the vectors [e - slots, T] of what comes before the first slot, from the start token on."""
        if self.context is None:
            return self.words[: self.eot - self.slots]
        return torch.cat([self.words[:1], self.context, self.words[1 + len(self.context) : self.eot - self.slots]])

    def forward(self, table: Tensor, rows: Tensor) -> Tensor:
        """Return token vectors [K, L, T] (no positions): rows int64 [K, slots] of `table` [N, T] in the slots."""
        before = self.beginning().expand(len(rows), -1, -1)
        return torch.cat([before, table[rows], self.words[self.eot :].expand(len(rows), -1, -1)], dim=1)

    def encode(self, backbone: TextSide, table: Tensor, rows: Tensor) -> Tensor:
        """Return the text features [K, d], not normalised, of `forward`'s prompts.

        Token vectors are made pass by pass, so that all pairs of an open world never lie in memory at once.
        """
        return torch.cat([features for features, _ in self.passes(backbone, table, rows)])

    def passes(
        self, backbone: TextSide, table: Tensor, rows: Tensor, all_tokens: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield for every `backbone.text_chunk` prompts their features [C, d] and, if asked for, tokens [C, L, T].

        The tokens are those of all positions after the last block, before ln_final; L is the padded length.
        """
        if backbone.shared_prefix and prefix.can_share(backbone):
            yield from self._shared_passes(backbone, table, rows, all_tokens)
            return
        for part in rows.split(backbone.text_chunk):
            if all_tokens:
                yield backbone.encode_text(self(table, part), self.eot, all_tokens=True)
            else:
                yield backbone.encode_text(self(table, part), self.eot), None

    def _plan(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the table's rows in first slots, int64 [R], and which each prompt has [K]; a single slot has none."""
        if self.slots > 1:
            first, parents = rows[:, 0].unique(return_inverse=True)
            return first, parents
        return rows[:0, 0], torch.zeros_like(rows[:, 0])

    def _shared_passes(
        self, backbone: TextSide, table: Tensor, rows: Tensor, all_tokens: bool
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Encode the context once and, with several slots, the first slot once for each of its rows."""
        begun = prefix.extend(backbone, None, None, self.beginning()[None], tokens=all_tokens)
        first, parents = self._plans.get(rows, rows.device, lambda: self._plan(rows))
        own = rows
        if self.slots > 1:
            begun = prefix.extend(backbone, begun, torch.zeros_like(first), table[first][:, None], tokens=all_tokens)
            own = rows[:, 1:]
        end = self.words[self.eot :] if all_tokens else self.words[self.eot : self.eot + 1]

        def encode(part: Tensor, of: Tensor) -> tuple[Tensor, Tensor | None]:
            vectors = torch.cat([table[part], end.expand(len(part), -1, -1)], dim=1)
            return prefix.finish(backbone, begun, of, vectors, part.shape[1], all_tokens=all_tokens)

        for part, of in zip(own.split(backbone.text_chunk), parents.split(backbone.text_chunk), strict=True):
            if backbone.recompute and torch.is_grad_enabled():
                yield recompute(encode, part, of, use_reentrant=False)
            else:
                yield encode(part, of)


class FixedPrompt(SoftPrompt):
    """A family whose slots keep the template's own words, so that all of its prompts are one, encoded once.

    What CAMS' released code makes of "a photo of x" for states: [context] x, whatever the state.
    """

    def encode(self, backbone: TextSide, table: Tensor, rows: Tensor) -> Tensor:
        """Return the feature [K, d], not normalised, that each row of `rows` has alike; the table is not read."""
        own = self.words[self.eot - self.slots : self.eot]
        one = super().encode(backbone, own, torch.arange(self.slots, device=own.device)[None])
        return one.expand(len(rows), -1)
