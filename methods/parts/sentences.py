"""Ordinary sentences about pairs, states and objects: "a photo of a red car", "a photo of a red object" (CAILA).

No word is learned for itself; whoever trains the token table trains all of them. The words before the label are encoded
once and a state once for all its pairs (`methods/backbone/prefix.py`). Labels may have several tokens, so prompts go
through together that have as many tokens before and after their state. K prompts, d joint width, T text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from datasets.base import Candidates, Vocabulary, clean_label
from methods.backbone import prefix
from methods.backbone.blocks import Adapters
from methods.backbone.clip import Backbone
from methods.parts.memo import PerObject
from methods.parts.prompt_families import Branch

BEGINNING = "a photo of a"


@dataclass(frozen=True)
class Endings:
    """Prompts that go through together. Tokens are rows of `Sentences.ids`.

    parents: int64 [C], which first words each prompt has
    rest: int64 [C, m], what comes after these, the end token last
    columns: int64 [C], which prompts these are
    """

    parents: Tensor
    rest: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Family:
    """Prompts whose first words have as many tokens: int64 [R, n], or None where all begin with the rest."""

    first: Tensor | None
    endings: tuple[Endings, ...]


class Sentences(nn.Module):
    """The sentences of a vocabulary. A label that is in `words` is spelt as there, another one as in all prompts.

    ids: int64 [U], every token that the sentences hold, once. What a method does to the token table it does to these
    rows of it (`token_vectors`).
    """

    ids: Tensor
    beginning: Tensor

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, words: Mapping[str, str]) -> None:
        super().__init__()
        states, objects = (
            [words.get(name, clean_label(name)) for name in names] for names in (vocabulary.states, vocabulary.objects)
        )
        tokens = backbone.tokens
        beginning, end, encode = [*tokens.start, *tokens.encode(BEGINNING)], tokens.end, tokens.word
        of_states, of_objects, of_any = [*map(encode, states)], [*map(encode, objects)], encode("object")
        state, thing = (max(labels, key=lambda label: len(encode(label))) for labels in (states, objects))
        # This refuses what does not fit into the context.
        backbone.tokenize([f"{BEGINNING} {state} {thing}", f"{BEGINNING} {state} object"])
        used = sorted({*beginning, *end, *of_any, *(token for ids in (*of_states, *of_objects) for token in ids)})
        place = {token: row for row, token in enumerate(used)}
        self.register_buffer("ids", torch.tensor(used), persistent=False)
        self.register_buffer("beginning", torch.tensor([place[token] for token in beginning]), persistent=False)
        self._states = [[place[token] for token in ids] for ids in of_states]
        self._objects = [[place[token] for token in (*ids, *end)] for ids in of_objects]
        self._alone = [[place[token] for token in (*ids, *of_any, *end)] for ids in of_states]
        self._plans = {branch: PerObject[list[Family]]() for branch in ("pair", "state", "object")}

    def token_vectors(self, backbone: Backbone) -> Tensor:
        """Return the rows `ids` of the token table, [U, T]: read once for all prompts, since a gradient is as large as
        the whole table each time that it is read."""
        return backbone.token_embedding(self.ids)

    def encode(
        self,
        backbone: Backbone,
        branch: Branch,
        candidates: Candidates,
        vectors: Tensor,
        adapters: Adapters | None = None,
        *,
        beginning_learns: bool = False,
    ) -> Tensor:
        """Return the text features [K, d], not normalised: of the candidates' pairs, of all states, or of all objects.

        vectors: of `token_vectors`. beginning_learns: whether a gradient reaches the vectors of "a photo of a" where
        they stand at the beginning; through a label they learn in any case.
        """
        plan = self._plans[branch].get(candidates, self.ids.device, lambda: self._plan(branch, candidates))
        begin = vectors[self.beginning]
        begin = begin if beginning_learns else begin.detach()
        shared = backbone.shared_prefix and prefix.can_share(backbone)
        passes = self._shared if shared else self._in_full
        features = torch.cat([part for family in plan for part in passes(backbone, family, begin, vectors, adapters)])
        return features[torch.cat([ends.columns for family in plan for ends in family.endings]).argsort()]

    def _plan(self, branch: Branch, candidates: Candidates) -> list[Family]:
        """Sort the prompts by how many tokens their parts have."""
        if branch == "pair":
            words = [(state, self._objects[thing]) for state, thing in candidates.pairs.tolist()]
        else:
            words = [(-1, rest) for rest in (self._alone if branch == "state" else self._objects)]
        columns: dict[int, dict[int, list[int]]] = {}  # of each length of the first words and of the rest
        for column, (state, rest) in enumerate(words):
            length = len(self._states[state]) if state >= 0 else 0
            columns.setdefault(length, {}).setdefault(len(rest), []).append(column)
        return [self._family(words, by_rest) for by_rest in columns.values()]

    def _family(self, words: Sequence[tuple[int, list[int]]], by_rest: Mapping[int, Sequence[int]]) -> Family:
        def here(rows: Sequence[object]) -> Tensor:
            return torch.tensor(rows, dtype=torch.int64, device=self.ids.device)

        states = sorted({words[column][0] for columns in by_rest.values() for column in columns})
        row = {state: at for at, state in enumerate(states)}
        endings = tuple(
            Endings(
                here([row[words[column][0]] for column in columns]),
                here([words[column][1] for column in columns]),
                here(columns),
            )
            for columns in by_rest.values()
        )
        return Family(None if states == [-1] else here([self._states[state] for state in states]), endings)

    def _shared(
        self, backbone: Backbone, family: Family, begin: Tensor, vectors: Tensor, adapters: Adapters | None
    ) -> Iterator[Tensor]:
        """Encode the beginning once, and first words once for all prompts that have them."""
        begun = prefix.extend(backbone, None, None, begin[None], adapters=adapters)
        if family.first is not None:
            every = torch.zeros_like(family.first[:, 0])
            begun = prefix.extend(backbone, begun, every, vectors[family.first], adapters=adapters)

        def encode(rest: Tensor, parents: Tensor) -> Tensor:
            last = rest.shape[1] - 1
            return prefix.finish(backbone, begun, parents, vectors[rest], last, adapters=adapters)[0]

        again = backbone.recompute and torch.is_grad_enabled()
        for rest, parents in _passes(family, backbone.text_chunk):
            yield recompute(encode, rest, parents, use_reentrant=False) if again else encode(rest, parents)

    def _in_full(
        self, backbone: Backbone, family: Family, begin: Tensor, vectors: Tensor, adapters: Adapters | None
    ) -> Iterator[Tensor]:
        for rest, parents in _passes(family, backbone.text_chunk):
            words = rest if family.first is None else torch.cat([family.first[parents], rest], dim=1)
            prompts = torch.cat([begin.expand(len(words), -1, -1), vectors[words]], dim=1)
            yield backbone.encode_text(prompts, prompts.shape[1] - 1, adapters=adapters)


def _passes(family: Family, chunk: int) -> list[tuple[Tensor, Tensor]]:
    return [
        (rest, parents)
        for ends in family.endings
        for rest, parents in zip(ends.rest.split(chunk), ends.parents.split(chunk), strict=True)
    ]
