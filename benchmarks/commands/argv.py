"""The words of a command line as Typer reads them: lists and flags may be written in more ways than it knows."""

from __future__ import annotations

import re
from dataclasses import fields

from benchmarks.commands.options import option_name
from benchmarks.running.choices import How

LIST_OPTIONS = ("--methods", "--seeds", "--ablations", "--worlds", "--set", "--plugin", "--slurm", "--top-k", "--grid")
"""Options that take several values: after one option, by repeating it, and (those of `COMMA_OPTIONS`) with commas."""
LISTS_OF = {"report": ("--results",)}
"""What else takes several values, by the command: elsewhere a word after it may be an argument."""
WITHOUT_ARGUMENTS = ("run", "report", "status", "cost", "profile", "score")
"""Commands of options alone: there every word after a list option is a value of it, or a mistake in one."""
SHAPES = {"--plugin": r".*\.py", "--set": ".*=.*", "--grid": ".*=.*", "--slurm": ".*=.*", "--seeds": r"[-+\d,]+"}
"""What further values look like, as regular expressions: in other commands, a word that does not is an argument."""
COMMA_OPTIONS = ("--methods", "--seeds", "--ablations", "--worlds")
FLAGS = ("--dry-run", "--flops-only", *(option_name(f) for f in fields(How) if isinstance(f.default, bool)))
"""Options that are on or off; a word after one may say which."""
FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def spread_lists(arguments: list[str]) -> list[str]:
    """Repeat list options for each of their values, which is how Typer reads them.

    The first word after such an option is its value whatever it looks like; see `SHAPES` for those that follow.

    >>> spread_lists(["run", "--methods", "msci", "csp", "--seeds", "0,1", "--set=lr=1"])
    ['run', '--methods', 'msci', '--methods', 'csp', '--seeds', '0', '--seeds', '1', '--set', 'lr=1']
    >>> spread_lists(["compare", "--plugin", "own.py", "dfsp", "csp"])
    ['compare', '--plugin', 'own.py', 'dfsp', 'csp']
    """
    spread: list[str] = []
    option: str | None = None
    values = 0
    command = arguments[0] if arguments else ""
    lists, shapes = (*LIST_OPTIONS, *LISTS_OF.get(command, ())), {} if command in WITHOUT_ARGUMENTS else SHAPES
    for position, argument in enumerate(arguments):
        if argument == "--":
            return spread + arguments[position:]
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            if option is not None and values == 0:
                spread.append(option)  # an option without a value: Typer says so
            option, values = (name, 0) if name in lists else (None, 0)
            if option is None:
                spread.append(argument)
                continue
            if not equals:
                continue
            argument = value
        if option is not None and values and not re.fullmatch(shapes.get(option, ".*"), argument, re.DOTALL):
            option = None
        if option is None:
            spread.append(argument)
            continue
        parts = [part for part in argument.split(",") if part] if option in COMMA_OPTIONS else [argument]
        for part in parts:
            spread += [option, part]
            values += 1
    return [*spread, option] if option is not None and values == 0 else spread


def plain_flags(arguments: list[str]) -> list[str]:
    """Turn a flag with a word into the flag alone or its negation, which is how Typer reads them.

    >>> plain_flags(["run", "--dry-run", "False", "--recompute=yes"])
    ['run', '--no-dry-run', '--recompute']
    """
    plain: list[str] = []
    for argument in arguments:
        name, equals, word = argument.partition("=")
        if not equals and plain and plain[-1] in FLAGS and argument.lower() in FLAG_WORDS:
            name, word = plain.pop(), argument
        elif not (equals and name in FLAGS and word.lower() in FLAG_WORDS):
            plain.append(argument)
            continue
        plain.append(name if FLAG_WORDS[word.lower()] else f"--no-{name.removeprefix('--')}")
    return plain
