"""Words that may be a name or a path: a name wins, unless the word is plainly a path."""

from __future__ import annotations

from pathlib import Path


def plainly_a_path(word: str) -> bool:
    """Return whether a word can only mean a place: it has a separator, or is ".", ".." or begins with "~".

    >>> [plainly_a_path(word) for word in ("csp", "./csp", "runs/csp", "..", "~", "runs\\\\csp")]
    [False, True, True, True, True, True]
    """
    return "/" in word or "\\" in word or word in (".", "..") or word.startswith("~")


def hidden_path(word: str, kind: str, taken: Path | None = None) -> str:
    """Return a note on a word that was taken for a name although something here is called so too; "" where nothing is.

    kind: of what the name stands for, such as "method"
    taken: where that lies, if it has a place of its own
    """
    path = Path(word)
    if plainly_a_path(word) or not path.exists() or (taken is not None and taken.resolve() == path.resolve()):
        return ""
    what = "folder" if path.is_dir() else "file"
    return f"'{word}' is taken for the {kind}; for the {what} of that name write ./{word}."
