"""Methods against the share of seen pairs: packs finished runs, and makes the tables and figure of a document of them.

python bench.py run --suite scaling --no-short --results R
python -m benchmarks.studies.scaling --collect R                # into results/scaling
python -m benchmarks.studies.scaling --update docs/scaling.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.evidence import Question
from benchmarks.report.render import markdown
from benchmarks.report.scaling import Scaled, caption, families, measure, scaling
from benchmarks.report.scaling_table import scaling_tables
from benchmarks.runs.records import RunRecord
from benchmarks.studies.packed_runs import Packed, command_line, unpacked
from benchmarks.studies.program import program
from datasets.seen_mark import base_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATASET = "icon_states"


def _wanted(run: RunRecord) -> bool:
    return base_of(run.spec.dataset) == DATASET and run.spec.world == "closed"


RUNS = Packed(
    "scaling",
    wanted=_wanted,
    of=f"{DATASET}, closed world",
    command="python bench.py run --suite scaling --no-short --results FOLDER",
    figure="figures/scaling",
)


def measured(path: Path = RUNS.archive, question: Question | None = None) -> list[Scaled]:
    """Return what the packed runs say of each family of shares."""
    with unpacked(path) as found:
        return [measure(family, question or Question()) for family in families(found)]


def text_of(found: Sequence[Scaled]) -> str:
    """Return what the document says of the packed runs, as Markdown."""
    parts = []
    for one in found:
        runs = (run for group in one.family.groups.values() for row in group.full for run in row.done)
        tables = "\n".join(f"#{markdown(table)}".rstrip() + "\n" for table in scaling_tables(one))
        parts += [RUNS.origin(runs), "", tables]
    figure = f"![AUC and U against the share of seen pairs]({RUNS.figure}.svg)"
    return "\n".join([*parts, figure, *(["", caption(found[0].family)] if found else [])])


def made(path: Path) -> tuple[str, Figure | None]:
    """Return the document's part and the figure of the first family."""
    found = measured(path)
    return text_of(found), scaling(found[0]) if found else None


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """Pack runs, or put the tables and the figure into a document."""
    command_line(__doc__ or "", RUNS, made, arguments)


if __name__ == "__main__":
    main()
