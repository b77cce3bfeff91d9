"""Labels that differ as texts and are one label to a text encoder, such as "Wet" and "wet".

Two classes of one prompt cannot be told apart by it, and each has a part of the images. What is one prompt follows what
CLIP's tokenizer does to a text before it looks up tokens: it repairs encodings, composes accents (NFC), straightens
quotes, ligatures and wide letters, undoes HTML, and reads any white space as one blank and capitals as small letters.
"""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable

import ftfy

from datasets.base import Pair, Vocabulary, clean_label
from errors import counted, some

ZERO_WIDTH_SPACE = "\u200b"
KINDS = ("state", "object")


def prompt_text(label: str) -> str:
    """Return a label as the tokenizer reads it, without characters that nobody sees.

    >>> prompt_text("Traffic.\\u00a0Light"), prompt_text("cafe\\u0301")
    ('traffic light', 'café')
    """
    text = html.unescape(html.unescape(ftfy.fix_text(clean_label(label))))
    seen = "".join(c for c in text if not _is_invisible(c))
    return unicodedata.normalize("NFC", " ".join(seen.split()).lower())


def same_prompts(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of two or more labels that are one prompt, each sorted, in the order of their first labels."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        keys = _keys(label)
        met = {id(groups[key]): groups[key] for key in keys if key in groups}
        joined = [label, *(other for group in met.values() for other in group)]
        for key in keys.union(*map(_keys, joined[1:])):
            groups[key] = joined
    distinct = {id(group): tuple(sorted(group)) for group in groups.values()}
    return sorted(group for group in distinct.values() if len(group) > 1)


def merged_labels(labels: Iterable[str]) -> dict[str, str]:
    """Return for each label of a group of one prompt the spelling to write instead; other labels are left out.

    labels: one for each image. The most frequent spelling is taken, among equals the one that is written as prompts
    are, then the first in code-point order.
    """
    counts = Counter(labels)
    chosen: dict[str, str] = {}
    for group in same_prompts(counts):
        best = min(group, key=lambda label: (-counts[label], label != prompt_text(label), label))
        chosen |= {label: best for label in group if label != best}
    return chosen


def merged_pairs(pairs: Iterable[Pair]) -> tuple[list[Pair], list[str]]:
    """Return the pairs of all images with each label in one spelling, and sentences on what was merged."""
    pairs = list(pairs)
    words = [merged_labels(pair[place] for pair in pairs) for place in (0, 1)]
    said = [
        f"The {kind} {shown(label)} ({counted(number, 'image')}) is merged into {shown(words[place][label])}."
        for place, kind in enumerate(KINDS)
        for label, number in sorted(Counter(pair[place] for pair in pairs).items())
        if label in words[place]
    ]
    states, objects = words
    return [(states.get(state, state), objects.get(obj, obj)) for state, obj in pairs], said


def spellings(pairs: Iterable[Pair]) -> list[str]:
    """Return a text for each group of one prompt among states and among objects; pairs: of each image."""
    pairs = list(pairs)
    found = []
    for place, kind in enumerate(KINDS):
        counts = Counter(pair[place] for pair in pairs)
        for group in same_prompts(counts):
            found.append(
                f"{kind} " + " = ".join(f"{shown(label)} ({counted(counts[label], 'image')})" for label in group)
            )
    return found


def spelling_notes(vocabulary: Vocabulary) -> list[str]:
    """Return sentences on the labels of a data set that are one prompt, and on those that are nearly one."""
    kinds = tuple(zip(KINDS, (vocabulary.states, vocabulary.objects), strict=True))
    one = [(kind, group) for kind, words in kinds for group in same_prompts(words)]
    near = [(kind, group) for kind, words in kinds for group in near_prompts(words)]
    said = []
    for groups, what in (
        (one, "are one prompt to a text encoder"),
        (near, "differ in a hyphen, an underscore or a blank alone"),
    ):
        if groups:
            texts = [f"{kind} {' = '.join(map(shown, group))}" for kind, group in groups]
            said.append(f"Labels that {what}, and are several classes here: {some(texts, 5, '; ', '; and ')}.")
    return said


def near_prompts(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of labels of several prompts that differ in hyphens, underscores and blanks alone, sorted."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        bare = "".join(c for c in prompt_text(label) if unicodedata.category(c) not in ("Pd", "Pc", "Zs"))
        groups.setdefault(bare, []).append(label)
    return [tuple(group) for group in groups.values() if len(set(map(_key, group))) > 1]


def shown(label: str) -> str:
    """Return a label in quotes, with characters that cannot be seen, or not told apart, as escapes.

    >>> print(shown("traffic\\u00a0light"), shown("café"), shown("cafe\\u0301"))
    'traffic\\xa0light' 'café' 'cafe\\u0301'
    """
    composed = unicodedata.normalize("NFC", label) == label
    parts = (
        c.encode("unicode_escape").decode()
        if not c.isprintable() or _is_invisible(c) or (unicodedata.combining(c) and not composed)
        else c
        for c in label
    )
    return f"'{''.join(parts)}'"


def _keys(label: str) -> set[str]:
    """Return the keys of a label, two where a zero-width space may stand for a blank or for nothing."""
    return {_key(label), _key(label.replace(ZERO_WIDTH_SPACE, " "))}


def _key(label: str) -> str:
    """Return what is equal for labels of the same tokens: letters in a row are one, other characters one each."""
    return " ".join("".join(c if c.isalpha() else f" {c} " for c in prompt_text(label)).split())


def _is_invisible(character: str) -> bool:
    """Return whether a character has neither ink nor width: formats such as a soft hyphen, and variation selectors."""
    return unicodedata.category(character) == "Cf" or unicodedata.name(character, "").startswith("VARIATION SELECTOR")
