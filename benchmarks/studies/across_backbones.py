"""Methods across the committed backbones: packs finished runs, and makes the table and figure of a document of them.

    python bench.py run --no-short --methods csp coop --backbone tiny-icons-siglip --results R     # and tiny-icons
    python -m benchmarks.studies.across_backbones --collect R       # into results/across_backbones
    python -m benchmarks.studies.across_backbones --update docs/across_backbones.md

The records are a packed file, as `bench.py pack` writes it; a test holds the document to them byte for byte.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import archive
from benchmarks.report.across import Across, families, measure
from benchmarks.report.across_figure import across
from benchmarks.report.across_table import across_table
from benchmarks.report.evidence import Question
from benchmarks.report.groups import groups
from benchmarks.report.packing import packed
from benchmarks.report.render import markdown
from benchmarks.report.style import save
from benchmarks.runs import files
from benchmarks.runs.records import find_runs
from errors import UserError, counted
from methods.offers import COMMITTED

BEGIN, END = "<!-- made by benchmarks.studies.across_backbones -->", "<!-- end -->"
ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "results/across_backbones/runs.tar.xz"
FIGURE = "figures/across-backbones"


def collect(results: Sequence[Path], to: Path = ARCHIVE) -> int:
    """Pack the finished runs of committed backbones below some folders, test images alone; return their number."""
    runs = [run for root in results for run in find_runs(root)[0] if run.result is not None]
    own = {run.run_id: packed(run, ("test",), shorten=True) for run in runs if run.spec.backbone in COMMITTED}
    if not own:
        raise UserError(
            f"There is nothing to collect in '{', '.join(map(str, results))}'.",
            f"It holds no finished runs of {' and '.join(COMMITTED)}.",
            "Run 'python bench.py run --no-short --backbone ... --results FOLDER' first.",
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    archive.write(to, [own[run_id] for run_id in sorted(own)])
    return len(own)


def measured(path: Path = ARCHIVE, question: Question | None = None) -> list[Across]:
    """Return what the packed runs say of each family of backbones."""
    with TemporaryDirectory() as folder:
        for run in archive.read(path):
            archive.unpack(run, Path(folder))
        runs = find_runs(folder)[0]
        return [measure(family, question or Question()) for family in families(groups(runs))]


def text_of(found: Sequence[Across]) -> str:
    """Return what the document says of the packed runs, as Markdown."""
    parts = []
    for one in found:
        runs = [run for row in one.family.rows for run in row.done]
        seeds = sorted({run.spec.seed for run in runs})
        said = f"{counted(len(runs), 'run')}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        parts += [f"From {said}, in `results/across_backbones`.", "", f"#{markdown(across_table(one))}".rstrip(), ""]
    return "\n".join([*parts, f"![AUC by backbone, with intervals]({FIGURE}.svg)"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack runs, or put the table and the figure into a document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="the packed file")
    parser.add_argument("--collect", type=Path, nargs="+", help="folders of run records to pack")
    parser.add_argument("--update", type=Path, help="put the table into this document and the figure beside it")
    options = parser.parse_args(arguments)
    try:
        if options.collect:
            print(f"{counted(collect(options.collect, options.archive), 'run')} in {options.archive}")
        if options.update is not None:
            found = measured(options.archive)
            files.put_between(options.update, BEGIN, END, f"\n{text_of(found)}\n")
            for one in found[:1]:
                save(across(one), options.update.parent / FIGURE, (".svg",))
    except UserError as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main()
