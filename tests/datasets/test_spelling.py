"""Which labels are one prompt: held against the tokenizer itself."""

from __future__ import annotations

import unicodedata
from itertools import combinations

import open_clip
import pytest

from datasets.base import Vocabulary, clean_label
from datasets.published import shipped_lists
from datasets.spelling import merged_labels, merged_pairs, same_prompts, shown, spelling_notes, spellings

LABELS = ["traffic light", "café table", "mid-calf boot", "dog's ear", "rock & roll", "straße", "24 7", "wet"]
CHANGES = {
    "upper case": str.upper,
    "title": str.title,
    "full stop": lambda label: label.replace(" ", "."),
    "no-break space": lambda label: label.replace(" ", "\u00a0"),
    "narrow no-break space": lambda label: label.replace(" ", "\u202f"),
    "wide space": lambda label: label.replace(" ", "\u3000"),
    "line separator": lambda label: label.replace(" ", "\u2028"),
    "tab": lambda label: label.replace(" ", "\t"),
    "two spaces": lambda label: label.replace(" ", "  "),
    "space at the end": lambda label: label + " ",
    "decomposed": lambda label: unicodedata.normalize("NFD", label),
    "HTML": lambda label: label.replace("&", "&amp;").replace("é", "&eacute;"),
    "curly quote": lambda label: label.replace("'", "\u2019"),
    "blanks at the hyphen": lambda label: label.replace("-", " - "),
    "wide letters": lambda label: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in label),
    "wrong encoding": lambda label: label.encode().decode("cp1252", "ignore"),
    "byte order mark": lambda label: "\ufeff" + label,
    "underscore": lambda label: label.replace(" ", "_"),
    "no space": lambda label: label.replace(" ", ""),
    "quotes": lambda label: f'"{label}"',
}
UNSEEN = {
    "soft hyphen": lambda label: label[:2] + "\u00ad" + label[2:],
    "zero-width space within": lambda label: label[:2] + "\u200b" + label[2:],
    "zero-width space for a blank": lambda label: label.replace(" ", "\u200b"),
    "zero-width space and a blank": lambda label: label.replace(" ", " \u200b"),
    "word joiner": lambda label: label + "\u2060",
    "direction mark": lambda label: "\u200e" + label,
    "variation selector": lambda label: label + "\ufe0f",
}


def test_labels_are_one_prompt_exactly_if_their_tokens_are_the_same():
    tokenizer = open_clip.SimpleTokenizer()
    labels = sorted({change(label) for label in LABELS for change in (str, *CHANGES.values())} - {"dog'sear"})
    tokens = {label: tokenizer.encode(clean_label(label)) for label in labels}
    group_of = {label: group for group in same_prompts(labels) for label in group}
    for one, other in combinations(labels, 2):
        same = one in group_of and other in group_of[one]
        assert same == (tokens[one] == tokens[other]), (ascii(one), ascii(other))


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN)
def test_characters_that_nobody_sees_make_no_other_label(change):
    for label in LABELS:
        assert change(label) == label or same_prompts([label, change(label), "other"]) == [
            tuple(sorted([label, change(label)]))
        ]


def test_a_zero_width_space_joins_what_it_stands_between():
    assert same_prompts(["a b", "a\u200bb", "ab", "c"]) == [("a b", "ab", "a\u200bb")]


@pytest.mark.parametrize(
    "labels", [["deep-fried", "deep fried"], ["a_b", "a b"], ["x2", "x\u00b2"], ["ss", "ß"], ["e", "é"]]
)
def test_labels_of_other_prompts_are_left_alone(labels):
    assert same_prompts(labels) == []


def test_the_most_frequent_spelling_is_taken_and_among_equals_the_one_of_prompts():
    assert merged_labels(["Wet", "wet", "Wet"]) == {"wet": "Wet"}
    assert merged_labels(["Wet", "wet", "WET"]) == {"WET": "wet", "Wet": "wet"}
    assert merged_labels(["cafe\u0301", "café"]) == {"cafe\u0301": "café"}
    assert merged_labels(["wet", "dry"]) == {}
    pairs, said = merged_pairs([("Wet", "wet"), ("wet", "cat"), ("wet", "Cat")])
    assert pairs == [("wet", "wet"), ("wet", "cat"), ("wet", "cat")]
    assert said == [
        "The state 'Wet' (1 image) is merged into 'wet'.",
        "The object 'Cat' (1 image) is merged into 'cat'.",
    ]
    assert spellings(pairs) == []


def test_labels_are_shown_so_that_they_can_be_told_apart():
    assert shown("traffic\u00a0light") == "'traffic\\xa0light'"
    assert (shown("café"), shown("cafe\u0301"), shown("日本")) == ("'café'", "'cafe\\u0301'", "'日本'")


@pytest.mark.parametrize("name", ["mit_states", "ut_zappos", "cgqa"])
def test_published_lists_have_each_label_in_one_spelling(name):
    vocabulary = Vocabulary.from_pairs([pair for pairs in shipped_lists(name).values() for pair in pairs])
    assert spelling_notes(vocabulary) == []


def test_the_first_groups_are_named():
    words = tuple(sorted(word for letter in "abcdefg" for word in (letter, letter.upper())))
    (note,) = spelling_notes(Vocabulary(words, ("cat",)))
    assert "state 'A' = 'a'; " in note and note.endswith("and 2 more.")
