"""How a data set's name asks for a share of its seen pairs, `seen_share.py`: the name alone, nothing to import."""

from __future__ import annotations

MARK = "@seen="
"""What divides the data set's own name from the share."""


def has_share(name: str) -> bool:
    """Return whether a data set's name asks for a share of seen pairs.

    In the name of a folder on a path the mark is part of it.

    >>> has_share("photos@seen=0.3"), has_share("photos@seen=0.3/split.csv")
    (True, False)
    """
    return MARK in name and not {"/", "\\"} & set(name.rpartition(MARK)[2])


def base_of(name: str) -> str:
    """Return a data set's name without the share.

    >>> base_of("icon_states@seen=0.3"), base_of("icon_states")
    ('icon_states', 'icon_states')
    """
    return name.rpartition(MARK)[0] if has_share(name) else name
