"""Numbers in sentences."""

from __future__ import annotations


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
