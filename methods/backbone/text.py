"""The text side of the backbone: tokens, their embeddings, and features of embeddings a method has written into."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from datasets.base import clean_label
from errors import UserError
from methods.backbone.blocks import Adapters, Extent, walk
from methods.backbone.text_tower import (
    Reading,
    end_positions,
    feature_token,
    padded,
    project,
    reading_of,
    text_part,
)
from methods.backbone.tokens import Tokens, tokens_of

if TYPE_CHECKING:
    from open_clip import CLIP, SimpleTokenizer


class TextSide:
    """Text methods of `Backbone`. K texts, L tokens, T text width, d joint width; nothing is normalised."""

    clip: CLIP
    tokenizer: SimpleTokenizer
    text_chunk: int
    recompute: bool
    shared_prefix: bool

    @property
    def text_width(self) -> int:
        """Width T of the text tower and of the token embedding table."""
        return text_part(self.clip).token_embedding.embedding_dim

    @property
    def context_length(self) -> int:
        """Longest text in tokens, start and end included."""
        return self.reading.context

    @property
    def reading(self) -> Reading:
        """Where the text feature is, what positions see, and how a text is padded."""
        reading = reading_of(self.clip)
        assert reading is not None, "a model that is read otherwise is no backbone"
        return reading

    @cached_property
    def tokens(self) -> Tokens:
        """What is asked of the tokenizer, asked once: one of Hugging Face tells its special tokens by examples."""
        return tokens_of(self.tokenizer)

    def end_positions(self, ids: Tensor) -> Tensor:
        """Return the position of the end token of each row of ids [K, L], int64 [K]."""
        if self.tokenizer is not None and self.reading.place in ("last", "first"):
            return (ids == self.tokens.end[0]).int().argmax(dim=1)  # nothing else tells; the feature is elsewhere
        return end_positions(self.reading, ids, self.pad_id)

    @property
    def pad_id(self) -> int:
        """The id that fills a text up to the context."""
        return 0 if self.tokenizer is None else self.tokens.pad

    def tokenize(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """Return token ids, int64 [K, context_length]: start, the text's tokens, end, padding; on the CPU.

        context_length None means the shortest that holds every text. A text that does not fit is a `UserError`
        (open_clip's own call cuts it silently); a context longer than the model's raises ValueError.
        """
        tokens = self.tokens
        rows = [tokens.row(text) for text in texts]
        needed = max(map(len, rows), default=0)
        length = min(needed, self.context_length) if context_length is None else context_length
        if length > self.context_length:
            raise ValueError(f"context length {length} asked for, the backbone has {self.context_length} positions")
        if needed > length:
            raise UserError(
                f"The text '{texts[[len(row) for row in rows].index(needed)]}' has {needed} tokens with start and end.",
                f"The context length is {length}.",
                "Shorten the label, or use a longer context length where the backbone has one.",
            )
        filled = [row + [tokens.pad] * (length - len(row)) for row in rows]
        return torch.tensor(filled, dtype=torch.int64).reshape(-1, length)

    def tokenize_joined(self, parts: Sequence[str], rows: Tensor) -> Tensor:
        """Return the ids that `tokenize` gives for the texts of joined parts, each part tokenised once.

        rows: int64 [K, n] of `parts`, whose texts are joined by blanks. The ids are int64 [K, length of the longest],
        on the CPU. A text longer than the context is a `UserError`.
        """
        known = self.tokens
        if not known.joins:
            return self.tokenize([" ".join(parts[row] for row in text) for text in rows.tolist()])
        tokens = [torch.tensor(known.encode(part), dtype=torch.int64) for part in parts]
        table = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # [parts, longest part]
        counts = torch.tensor(list(map(len, tokens)))[rows]  # [K, n]
        ends = 1 + counts.sum(dim=1)
        needed = int(ends.max()) + 1 if len(rows) else 0
        if needed > self.context_length:
            self.tokenize([" ".join(parts[row] for row in rows[int(ends.argmax())].tolist())])  # which says so
        ids = torch.zeros(len(rows), needed, dtype=torch.int64)
        ids[:, :1] = known.start[0]
        starts = 1 + counts.cumsum(dim=1) - counts
        for column in range(rows.shape[1]):
            for step in range(table.shape[1]):
                texts = torch.nonzero(counts[:, column] > step).squeeze(1)
                ids[texts, starts[texts, column] + step] = table[rows[texts, column], step]
        ids[torch.arange(len(rows)), ends] = known.end[0]
        return ids

    def token_embedding(self, ids: Tensor) -> Tensor:
        """Return the rows [..., T] of the token embedding table for ids [...]; no positions are added."""
        table = text_part(self.clip).token_embedding
        return table(ids.to(table.weight.device))

    @torch.no_grad()
    def mean_token_embedding(self, names: Sequence[str]) -> Tensor:
        """Return for each label the mean of its BPE tokens' embeddings, fp32 [N, T]: CSP's initial vectors.

        Labels are cleaned as in prompts ("." to a space, lower case). Start, end and padding are left out, positions
        are not added. A label without any token is a `UserError`.
        """
        means = []
        for name in names:
            ids = self.tokens.word(clean_label(name))
            if not ids:
                raise UserError(
                    f"The label '{name}' has no text.",
                    "A label starts as the mean of its tokens' embeddings.",
                    "Give it a name of at least one letter.",
                )
            means.append(self.token_embedding(torch.tensor(ids)).float().mean(dim=0))
        return torch.stack(means)

    def run_text_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, adapters: Adapters | None = None
    ) -> Tensor:
        """Run text blocks start..stop-1 on tokens [K, L, T] that hold their positions; any causal mask cut to L."""
        mask, length = text_part(self.clip).attn_mask, tokens.shape[1]
        mask = None if mask is None else mask[:length, :length]
        return self._through_blocks(tokens, Extent(start, stop, adapters), mask)

    def _through_blocks(self, tokens: Tensor, extent: Extent, mask: Tensor | None) -> Tensor:
        for _, after in walk(self.clip, "text", tokens, extent, mask):
            tokens = after
        return tokens

    def project_text(self, tokens: Tensor) -> Tensor:
        """Return text tokens [..., T] after ln_final and the projection, [..., d]."""
        return project(self.clip, tokens)

    @overload
    def encode_text(
        self,
        embeddings: Tensor,
        eot: Tensor | int,
        *,
        chunk: int | None = None,
        checkpoint: bool | None = None,
        all_tokens: Literal[False] = False,
        adapters: Adapters | None = None,
    ) -> Tensor: ...

    @overload
    def encode_text(
        self,
        embeddings: Tensor,
        eot: Tensor | int,
        *,
        chunk: int | None = None,
        checkpoint: bool | None = None,
        all_tokens: Literal[True],
        adapters: Adapters | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def encode_text(
        self,
        embeddings: Tensor,
        eot: Tensor | int,
        *,
        chunk: int | None = None,
        checkpoint: bool | None = None,
        all_tokens: bool = False,
        adapters: Adapters | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the text features [K, d] of token vectors [K, L, T] (without positions), any L up to the context.

        eot: position of the end token, one for all or int64 [K]. all_tokens: return (features, tokens [K, L, T] before
        ln_final) instead. chunk, checkpoint: prompts per pass, and whether a pass is computed again in backward; None
        takes `text_chunk` and `recompute`. Neither changes more than rounding. Where the padding takes part, texts are
        filled up to the context.
        """
        chunk = self.text_chunk if chunk is None else chunk
        checkpoint = self.recompute if checkpoint is None else checkpoint
        reading, length = self.reading, embeddings.shape[1]
        if isinstance(eot, int) and not all_tokens and reading.short:
            embeddings = embeddings[:, : eot + 1]  # exact: under the causal mask nothing after the end token reaches it
        device = embeddings.device
        ends = torch.full((), eot, device=device) if isinstance(eot, int) else eot.to(device)
        ends, pad = ends.expand(len(embeddings)), text_part(self.clip).token_embedding.weight[self.pad_id]

        def encode(vectors: Tensor, ends: Tensor) -> tuple[Tensor, ...]:
            entering, mask = padded(self.clip, reading, vectors, ends, pad)
            tokens = self._through_blocks(entering, Extent(adapters=adapters), mask)
            features = self.project_text(feature_token(reading, tokens, ends))
            return (features, tokens[:, :length]) if all_tokens else (features,)

        passes = []
        for vectors, their_ends in zip(embeddings.split(chunk), ends.split(chunk), strict=True):
            if checkpoint and torch.is_grad_enabled():
                passes.append(recompute(encode, vectors, their_ends, use_reentrant=False))
            else:
                passes.append(encode(vectors, their_ends))
        features, *tokens = (torch.cat(parts) for parts in zip(*passes, strict=True))
        return (features, tokens[0]) if all_tokens else features

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        """Return CLIP's ordinary text features [K, d] of full sentences, not normalised, without gradient."""
        return self.encode_ids(self.tokenize(texts))

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Tensor:
        """Return CLIP's ordinary text features [K, d] of token ids [K, L], not normalised, without gradient.

        They go in passes of `text_chunk`, so memory does not grow with K beyond the ids and the features.
        """
        passes = []
        for part in ids.split(self.text_chunk):
            ends = self.end_positions(part)
            embeddings = self.token_embedding(part[:, : int(ends.max()) + 1] if self.reading.short else part)
            passes.append(self.encode_text(embeddings, ends.to(embeddings.device)))
        return torch.cat(passes)
