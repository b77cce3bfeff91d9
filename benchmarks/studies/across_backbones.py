"""Methods across the committed backbones: packs finished runs, and makes the table and figure of a document of them.

python bench.py run --no-short --methods csp coop --backbone tiny-icons-siglip --results R     # and tiny-icons
python -m benchmarks.studies.across_backbones --collect R       # into results/across_backbones
python -m benchmarks.studies.across_backbones --update docs/across_backbones.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.across import Across, families, measure
from benchmarks.report.across_figure import across
from benchmarks.report.across_table import across_table
from benchmarks.report.evidence import Question
from benchmarks.report.render import markdown
from benchmarks.studies.packed_runs import Packed, command_line, unpacked
from benchmarks.studies.program import program
from methods.offers import COMMITTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = Packed(
    "across_backbones",
    wanted=lambda run: run.spec.backbone in COMMITTED,
    of=" and ".join(COMMITTED),
    command="python bench.py run --no-short --backbone ... --results FOLDER",
    figure="figures/across-backbones",
)


def measured(path: Path = RUNS.archive, question: Question | None = None) -> list[Across]:
    """Return what the packed runs say of each family of backbones."""
    with unpacked(path) as found:
        return [measure(family, question or Question()) for family in families(found)]


def text_of(found: Sequence[Across]) -> str:
    """Return what the document says of the packed runs, as Markdown."""
    parts = []
    for one in found:
        origin = RUNS.origin(run for row in one.family.rows for run in row.done)
        parts += [origin, "", f"#{markdown(across_table(one))}".rstrip(), ""]
    return "\n".join([*parts, f"![AUC by backbone, with intervals]({RUNS.figure}.svg)"])


def made(path: Path) -> tuple[str, Figure | None]:
    """Return the document's part and the figure of the first family."""
    found = measured(path)
    return text_of(found), across(found[0]) if found else None


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """Pack runs, or put the table and the figure into a document."""
    command_line(__doc__ or "", RUNS, made, arguments)


if __name__ == "__main__":
    main()
