"""The parts of a report are made each for itself: what cannot be made is left out with its reason, the rest stands."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.runs import files
from errors import UserError

T = TypeVar("T")

LOG = "report-errors.txt"
"""The tracebacks of a report's failures, beside its page; not there when nothing failed."""


@dataclass(frozen=True)
class Failure:
    """A part that could not be made.

    where: the title of its section. what: the part's. reason: in a sentence. trace: the traceback, "" where the reason
    says all.
    """

    where: str
    what: str
    reason: str
    trace: str = ""

    def __str__(self) -> str:
        """What stands on the page in the part's place."""
        return f"{self.what}: left out. {self.reason}"


@dataclass(frozen=True, eq=False)
class Failures:
    """What could not be made of one report, in order; each part once.

    found: of all sections.
    where: the title of the section whose parts are attempted.
    """

    found: list[Failure] = field(default_factory=list)
    where: str = ""

    def within(self, where: str) -> Failures:
        """Return the failures of the same report, for the parts of one section."""
        return replace(self, where=where)

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """Return what `make` gives; None if it raises, which is then among the failures."""
        try:
            return make()
        except UserError as error:
            failure = Failure(self.where, what, str(error))
        except Exception as error:  # a report of many groups is worth more than one of its parts
            first = (str(error).strip().splitlines() or [""])[0][:200]
            said = f"{type(error).__name__}: {first}" if first else type(error).__name__
            reason = f"It cannot be made ({said}). The file {LOG} has the traceback; please report it."
            failure = Failure(self.where, what, reason, traceback.format_exc())
        if (self.where, what) not in {(known.where, known.what) for known in self.found}:
            self.found.append(failure)
        return None

    @property
    def sentences(self) -> list[str]:
        """What the page says of those of the section."""
        return [str(failure) for failure in self.found if failure.where == self.where]

    def write(self, root: Path) -> None:
        """Write the tracebacks below `root`; without any, remove those of a report before."""
        traces = [f"{failure.where}: {failure}\n\n{failure.trace}" for failure in self.found if failure.trace]
        path = root / LOG
        if traces:
            files.write_aside(path, lambda file: file.write("\n\n".join(traces).encode("utf-8", "replace")))
        else:
            path.unlink(missing_ok=True)


def attempt(failures: Failures | None, what: str, make: Callable[[], T]) -> T | None:
    """Return what `make` gives. If it raises: None, and there is a failure more; without `failures` the error."""
    return make() if failures is None else failures.attempt(what, make)
