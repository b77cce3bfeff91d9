"""Tokenizers of Hugging Face as open_clip wraps them: special tokens around a text, padding, and words in sentences."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from open_clip.tokenizer import HFTokenizer, get_clean_fn

from methods.backbone.text import TextSide
from methods.backbone.tokens import tokens_of


class Words:
    """What `transformers` gives, with an id for each word; a word at the beginning of a text is another than within."""

    def __init__(self, start: list[int], end: list[int], pad: int) -> None:
        self.around, self.pad_token_id, self.sep_token_id = (start, end), pad, end[0]
        self.ids: dict[str, int] = {}

    def __call__(self, texts, add_special_tokens=True, max_length=None, **options):
        if isinstance(texts, list):
            rows = [self(text).input_ids for text in texts]
            filled = [row + [self.pad_token_id] * (max_length - len(row)) for row in rows]
            return SimpleNamespace(input_ids=torch.tensor(filled))
        words = [word if at == 0 else f"_{word}" for at, word in enumerate(texts.split())]
        ids = [self.ids.setdefault(word, 10 + len(self.ids)) for word in words]
        start, end = self.around if add_special_tokens else ([], [])
        return SimpleNamespace(input_ids=[*start, *ids, *end])


def wrapped(inner: Words, strip: bool = False) -> HFTokenizer:
    made = HFTokenizer.__new__(HFTokenizer)  # its constructor asks the network
    made.tokenizer, made.context_length, made.tokenizer_mode = inner, 12, ""
    made.clean_fn, made.strip_sep_token = get_clean_fn("canonicalize"), strip
    return made


KINDS = {
    "BERT without SEP (CLIPA)": ([2], [3], 0, True),
    "padded with the end (SigLIP)": ([], [1], 1, False),
    "no start (SigLIP2)": ([], [1], 0, False),
    "roberta-like (worldwide)": ([0], [2], 1, False),
}


@pytest.mark.parametrize(("start", "end", "pad", "strip"), KINDS.values(), ids=KINDS)
def test_ids_are_those_of_open_clip(start, end, pad, strip):
    tokenizer = wrapped(Words(start, end, pad), strip)
    texts = ["A photo of Dog.", "a photo of old dog"]
    side = SimpleNamespace(tokens=tokens_of(tokenizer), context_length=12)
    expected = tokenizer(texts)
    assert torch.equal(TextSide.tokenize(side, texts, 12), expected)
    side.tokenize = lambda texts: TextSide.tokenize(side, texts, 12)
    rows = torch.tensor([[0, 1, 3], [0, 2, 3]])
    joined = TextSide.tokenize_joined(side, ["a photo of", "red", "old", "dog"], rows)
    assert torch.equal(joined, tokenizer(["a photo of red dog", "a photo of old dog"]))
    ending = SimpleNamespace(tokenizer=tokenizer, tokens=side.tokens, reading=SimpleNamespace(place="last"))
    assert TextSide.end_positions(ending, expected).tolist() == [len(start) + 4, len(start) + 5]


def test_a_word_has_the_ids_that_it_has_in_a_sentence():
    tokens = tokens_of(wrapped(Words([], [1], 0)))
    sentence = tokens.encode("a photo of old dog")
    assert tokens.word("old dog") == sentence[3:] != tokens.encode("old dog")
