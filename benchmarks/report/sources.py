"""Records from several places: folders, and packed files, which are checked and taken apart into a temporary folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.evaluation.empty_groups import shown
from benchmarks.report import archive
from benchmarks.runs.records import Problem, RunRecord, find_runs
from errors import UserError


@dataclass(frozen=True)
class Source:
    """A place of records. named: as the user did. folder: where they lie now, for a packed file a temporary one."""

    named: Path
    folder: Path

    @property
    def is_packed(self) -> bool:
        """Whether the records come from a file."""
        return self.named != self.folder


@contextmanager
def opened(places: Sequence[Path]) -> Iterator[list[Source]]:
    """Hold the records of folders and packed files within the block; a file that is none is a `UserError`.

    A place that is named twice counts once. A single folder that is not there holds no records; of several places each
    has to be there, and so has a file.
    """
    with ExitStack() as stack:
        sources: list[Source] = []
        for place in (every := list(dict.fromkeys(places))):
            if not place.exists() and (len(every) > 1 or place.name.endswith(archive.ENDING)):
                raise UserError(
                    f"There are no records in {place}.",
                    "It is neither a folder nor a file.",
                    "Pass folders of records, or files that 'bench.py pack' wrote.",
                )
            if not place.is_file():
                sources.append(Source(place, place))
                continue
            check_archive(place)
            sources.append(stack.enter_context(laid_out(place, archive.read(place))))
        yield sources


@contextmanager
def laid_out(named: Path, runs: Iterable[archive.Packed]) -> Iterator[Source]:
    """Hold runs of a packed file as folders of a temporary one within the block."""
    with TemporaryDirectory(prefix="czsl-packed-") as folder:
        for run in runs:
            archive.unpack(run, Path(folder))
        yield Source(named, Path(folder))


def check_archive(path: Path) -> None:
    """Refuse a file that is no packed one, as a `UserError`."""
    try:
        if archive.is_archive(path):
            return
        there = "It does not begin as one."
    except OSError as error:
        there = f"The system says: {error.strerror or error}."
    raise UserError(
        f"{path} is no packed file of records.",
        there,
        "Pass a folder of records, or a file that 'bench.py pack' wrote.",
    )


def records_of(sources: Sequence[Source]) -> tuple[list[RunRecord], list[Problem], list[str]]:
    """Return the records of all sources in order, what could not be read, and sentences on runs that clash.

    A run that lies in several sources with the same result is a copy, see `groups.Group`; with other results it is
    named, and the first source counts.
    """
    runs: list[RunRecord] = []
    problems: list[Problem] = []
    clashes: list[str] = []
    first: dict[str, tuple[RunRecord, Source]] = {}
    for source in sources:
        found, bad = find_runs(source.folder)
        problems += [_named(problem, source) for problem in bad]
        for run in found:
            if source.is_packed and run.path.name != run.run_id:
                problems.append(Problem(source.named / run.path.name, f"It holds the run {run.run_id}, not this one."))
                continue
            known = first.setdefault(run.run_id, (run, source)) if run.result is not None else (run, source)
            if known[0] is not run and (text := clash(known, (run, source))):
                clashes.append(text)
                continue
            runs.append(run)
    return runs, problems, clashes


def _named(problem: Problem, source: Source) -> Problem:
    """Return a problem with the place that the user named instead of a temporary one."""
    if not source.is_packed:
        return problem
    path = source.named / problem.path.relative_to(source.folder)
    return replace(problem, path=path, message=problem.message.replace(str(source.folder), str(source.named)))


def clash(one: tuple[RunRecord, Source], other: tuple[RunRecord, Source]) -> str:
    """Say how two records of one run differ; "" where they say the same but for what it cost."""
    contents = [repr(run.finished.model_dump(exclude={"cost"})) for run, _ in (one, other)]
    if contents[0] == contents[1]:
        return ""
    places = [str(source.named) for _, source in (one, other)]
    aucs = [shown(100 * run.finished.metrics.test.auc, "{:.2f}") for run, _ in (one, other)]
    return (
        f"{one[0].run_id} is in {places[0]} (AUC {aucs[0]}) and in {places[1]} (AUC {aucs[1]}) with different results; "
        "the first was taken."
    )


def home_of(sources: Sequence[Source]) -> Path:
    """Return the folder that a report of some sources is written to: the first one, or the folder of the first file."""
    return next((source.named for source in sources if not source.is_packed), sources[0].named.parent)
