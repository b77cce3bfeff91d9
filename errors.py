"""The one exception for a user's mistake, near-name suggestions, and numbers in sentences.

Every layer may raise `UserError`; only `bench.py` catches it, prints it without a traceback and exits with a code
that is not 0. Errors of our own making are left to be ordinary exceptions with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend: what was asked, what is there, what to do next, one sentence each.

    >>> print(UserError("No data set is called 'icons'.", "There is icon_states.", "Pass --dataset icon_states."))
    No data set is called 'icons'. There is icon_states. Pass --dataset icon_states.
    """

    def __init__(self, asked: str, there: str = "", next_step: str = "") -> None:
        self.asked = asked
        self.there = there
        self.next_step = next_step
        super().__init__(" ".join(part for part in (asked, there, next_step) if part))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the up to three known names most like `name`, best first; empty when none is near.

    >>> nearest("mcsi", ["msci", "csp", "troika"])
    ['msci']
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[hit] for hit in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest known name, or "" when none is near."""
    hits = nearest(name, known)
    return f"Did you mean {' or '.join(repr(hit) for hit in hits)}?" if hits else ""


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun; several: the words for other numbers than one, by default with an "s".

    >>> counted(1, "image"), counted(1200, "image"), counted(2, "run is", "runs are")
    ('1 image', '1,200 images', '2 runs are')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def limited(limit: int, number: int) -> str:
    """Return how many of a number of things a list with a limit shows.

    >>> limited(10, 3), limited(10, 10), limited(10, 1200)
    ('3', '10', '10 of 1,200')
    """
    return f"{number:,}" if number <= limit else f"{limit:,} of {number:,}"


def some(texts: Iterable[str], limit: int = 10, separator: str = ", ", last: str = " and ") -> str:
    """Return the first texts and how many more there are; last: what stands before that number.

    >>> some("abc", 3), some("abc", 2), some("abc", 1, "; ", "; and ")
    ('a, b, c', 'a, b and 1 more', 'a; and 2 more')
    """
    texts = list(texts)
    more = f"{last}{len(texts) - limit:,} more" if len(texts) > limit else ""
    return separator.join(texts[:limit]) + more
