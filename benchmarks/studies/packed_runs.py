"""Runs that are committed as one packed file, and the part of a document that is made of them.

The records are a packed file, as `bench.py pack` writes it, with per-image scores of test alone; a test holds each
document to them byte for byte.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import archive
from benchmarks.report.groups import Group, groups
from benchmarks.report.packing import packed
from benchmarks.report.sources import opened, records_of
from benchmarks.report.style import save
from benchmarks.runs import files
from benchmarks.runs.records import RunRecord, find_runs
from benchmarks.studies.program import page_with
from errors import UserError, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
END = "<!-- end -->"


@dataclass(frozen=True)
class Packed:
    """Runs in one file and the document that shows them.

    name: of the module below benchmarks.studies, for the mark in the document.
    wanted: whether a finished run belongs here.
    of: what they are, for "It holds no finished runs of ...".
    command: that makes such runs.
    figure: beside the document, without an ending.
    """

    name: str
    wanted: Callable[[RunRecord], bool]
    of: str
    command: str
    figure: str

    @property
    def archive(self) -> Path:
        """The packed file."""
        return ROOT / f"results/{self.name}/runs.tar.xz"

    @property
    def begin(self) -> str:
        """The mark in the document before what is made."""
        return f"<!-- made by benchmarks.studies.{self.name} -->"

    def collect(self, results: Sequence[Path], to: Path) -> int:
        """Pack the wanted runs below some folders, test images alone; return their number."""
        runs = [run for root in results for run in find_runs(root)[0] if run.result is not None]
        own = {run.run_id: packed(run, ("test",), shorten=True) for run in runs if self.wanted(run)}
        if not own:
            raise UserError(
                f"There is nothing to collect in '{', '.join(map(str, results))}'.",
                f"It holds no finished runs of {self.of}.",
                f"Run '{self.command}' first.",
            )
        to.parent.mkdir(parents=True, exist_ok=True)
        archive.write(to, [own[run_id] for run_id in sorted(own)])
        return len(own)

    def origin(self, runs: Iterable[RunRecord]) -> str:
        """Say what a part was made from, in a sentence."""
        every = {run.run_id: run.spec.seed for run in runs}
        seeds = sorted(set(every.values()))
        said = f"{counted(len(every), 'run')}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        return f"From {said}, in `results/{self.name}`."


@contextmanager
def unpacked(path: Path) -> Iterator[list[Group]]:
    """Give the groups of a packed file's runs, as long as the context lasts."""
    with opened([path]) as sources:
        yield groups(records_of(sources)[0])


def command_line(
    about: str, of: Packed, made: Callable[[Path], tuple[str, Figure | None]], arguments: Sequence[str] | None
) -> None:
    """Pack runs, or put what is made of them into a document. made: of a packed file, the text and the figure."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--archive", type=Path, default=of.archive, help="the packed file")
    parser.add_argument("--collect", type=Path, nargs="+", help="folders of run records to pack")
    parser.add_argument(
        "--update", type=page_with(of.begin, END), help="document for the table; the figure goes beside it"
    )
    options = parser.parse_args(arguments)
    if options.collect:
        print(f"{counted(of.collect(options.collect, options.archive), 'run')} in {options.archive}")
    if options.update is not None:
        text, figure = made(options.archive)
        files.put_between(options.update, of.begin, END, f"\n{text}\n")
        if figure is not None:
            save(figure, options.update.parent / of.figure, (".svg",))
