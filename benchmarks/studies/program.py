"""What the programs of the studies share: how they end where their user made a mistake, and where they write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from benchmarks.runs import files
from errors import UserError

Arguments = ParamSpec("Arguments")


def program(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Make of a study's `main` one that tells a `UserError` on standard error, without traceback, and exits with 2."""

    @wraps(main)
    def told(*arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            main(*arguments, **named)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)

    return told


def page_with(begin: str, end: str) -> Callable[[str], Path]:
    """Return the type of an option that names a document with a place between two lines.

    A document without is a `UserError` while options are parsed, before anything is computed for it.
    """

    def checked(path: str) -> Path:
        files.around(Path(path), begin, end)
        return Path(path)

    return checked
