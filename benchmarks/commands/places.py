"""Files that a command writes beside what it prints: told before it works for minutes where they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError


def require_folder(folder: Path, option: str) -> None:
    """Raise a `UserError` where a folder is not there and cannot be made, or cannot be written in; make nothing.

    option: what names it. A disk that fills up meanwhile is told when it is written to.
    """
    try:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
        if not there.is_dir():
            reason = f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = f"The folder {there} does not let this user write"
        else:
            return
    except OSError as error:
        reason = f"The system says: {error.strerror or error}"
    raise UserError(f"Nothing can be written below {folder}.", f"{reason}.", f"Choose another place for {option}.")


def require_file(file: Path, option: str) -> None:
    """Raise a `UserError` where a file cannot be written, as `require_folder` does for its folder."""
    if file.is_dir():
        raise UserError(f"The file {file} cannot be written.", "It is a folder.", f"Name a file in {option}.")
    require_folder(file.parent, option)


@contextmanager
def writing(place: Path, option: str) -> Iterator[None]:
    """Turn an `OSError` while writing a file or below a folder into a `UserError`. option: what names the place."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place} cannot be written.",
            f"The system says: {error.strerror or error}.",
            f"Choose another place for {option}.",
        ) from error
