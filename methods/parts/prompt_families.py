"""The three families of soft prompts of the three-branch methods: one for pairs, one for states, one for objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from datasets.base import Candidates, Vocabulary
from methods.backbone.clip import Backbone
from methods.backbone.text import TextSide
from methods.parts.memo import PerObject
from methods.parts.prompts import PAIR_TEMPLATE, PRIMITIVE_TEMPLATE, PrimitiveTable, SoftPrompt

Branch = Literal["pair", "state", "object"]
BRANCHES: tuple[Branch, ...] = ("pair", "state", "object")


class PromptFamilies(nn.Module):
    """Prompts for pairs ("a photo of x x"), for states and for objects ("a photo of x"), with learned contexts.

    Each family has a context of its own, all start as "a photo of"; the words come from one table, so that a state is
    the same vector in its own prompt and in those of its pairs (Troika section 3.2, MSCI section 4). Each is a switch.

    shared_context: one context parameter for all families
    shared_words: False gives states and objects a table of their own beside that of the pairs
    learn_context: False keeps CLIP's own words
    stray_word: prompts for states and objects are "a photo of x x" too, whose first x stays CLIP's own word and whose
        second is the slot (VP-CMJL's released configuration of C-GQA)
    branches: the families to build
    dropout, init: see `PrimitiveTable`
    """

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: Vocabulary,
        dropout: float = 0.0,
        *,
        init: Literal["words", "random"] = "words",
        learn_context: bool = True,
        shared_context: bool = False,
        shared_words: bool = True,
        stray_word: bool = False,
        branches: Collection[Branch] = BRANCHES,
    ) -> None:
        super().__init__()
        self.sizes = {"state": len(vocabulary.states), "object": len(vocabulary.objects)}
        self._rows: dict[Branch, PerObject[Tensor]] = {branch: PerObject() for branch in BRANCHES}
        self.table = PrimitiveTable(backbone, vocabulary, dropout, init)
        apart = not shared_words and "pair" in branches and len(branches) > 1
        self.own_table = PrimitiveTable(backbone, vocabulary, dropout, init) if apart else None
        template, fixed = (PAIR_TEMPLATE, 1) if stray_word else (PRIMITIVE_TEMPLATE, 0)
        self.families = nn.ModuleDict(
            {
                branch: SoftPrompt(backbone, PAIR_TEMPLATE, 2, learn_context)
                if branch == "pair"
                else SoftPrompt(backbone, template, 1, learn_context, fixed=fixed)
                for branch in BRANCHES
                if branch in branches
            }
        )
        if shared_context:
            first = next(iter(self.families.values()))
            for family in self.families.values():
                family.context = first.context

    def rows(self, branch: Branch, candidates: Candidates) -> Tensor:
        """Return the table rows of each prompt of a family: int64 [K, 2] for pairs, [A, 1] states, [O, 1] objects.

        The families of states and objects hold every word of the vocabulary, whatever the candidates.
        """
        if branch == "pair":
            return self.table.pair_rows(candidates)
        start, device = 0 if branch == "state" else self.sizes["state"], self.table.weight.device
        stop = start + self.sizes[branch]
        return self._rows[branch].get(self.table, device, lambda: torch.arange(start, stop, device=device)[:, None])

    def forward(self, backbone: TextSide, candidates: Candidates, dropout: bool = True) -> dict[Branch, Tensor]:
        """Return the text features of each family, not normalised: pair [K, d], state [A, d], object [O, d].

        In training one dropout mask on a table serves all families that read it; dropout False has none in any mode.
        """
        words = self.table() if dropout else self.table.weight
        own_words = words
        if self.own_table is not None:
            own_words = self.own_table() if dropout else self.own_table.weight
        families = cast(Mapping[Branch, SoftPrompt], self.families)  # a ModuleDict forgets
        return {
            branch: family.encode(backbone, words if branch == "pair" else own_words, self.rows(branch, candidates))
            for branch, family in families.items()
        }
