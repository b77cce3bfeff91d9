"""Where every command prints, and who may."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console

from benchmarks.training.processes import rank
from datasets.places import hidden_path

# No markup: what is printed holds brackets of its own, such as the [mit_states] of a preset file.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


@contextmanager
def first_speaks() -> Iterator[None]:
    """Of several processes that make a run, let only the first print, by whatever means.

    A traceback that leaves the block is shown by each process.
    """
    if rank() == 0:
        yield
        return
    # Left open, because log handlers that are made in the block keep it.
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def load_plugins(paths: Sequence[Path] | None) -> None:
    """Load `--plugin` files; one that fails is named on standard error, and shown as broken by `list`."""
    from registry import load_plugin

    for path in paths or ():
        problem = load_plugin(path)
        if problem is not None:
            err.print(f"The plugin {path} was skipped: {problem}.", style="yellow", soft_wrap=True)


def print_hidden(name: str) -> None:
    """Say where a data set's name hides a file or folder that is called so too."""
    from registry import DATASETS

    if name in DATASETS.names() and (note := hidden_path(name, "data set")):
        err.print(note, style="yellow", soft_wrap=True)
