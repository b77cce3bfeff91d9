"""Collects the committed records, expands them, and builds the documents that show them; `--help` says more."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks.runs.records import find_runs
from benchmarks.studies.program import program
from benchmarks.studies.reference import __doc__ as about
from benchmarks.studies.reference.collection import FOLDER, archives, collect, expand_to, missing
from benchmarks.studies.reference.switches import absent
from errors import UserError


@program
def main() -> None:
    """Parse and do what is asked."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.reference", description=about, formatter_class=form
    )
    parser.add_argument("--archives", type=Path, default=FOLDER, help="folder of archives (results/reference)")
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("collect", help="put finished runs of the suite into the archives")
    taking.add_argument("--results", type=Path, nargs="+", required=True, help="folders of run records")
    giving = commands.add_parser("expand", help="write the archives as ordinary record folders")
    giving.add_argument("--to", type=Path, required=True, help="folder for them")
    giving.add_argument("--only", default="*", help="archives by pattern, e.g. 'msci-*'")
    beside = commands.add_parser("switches", help="print the commands of the runs beside the suite that are missing")
    beside.add_argument("--results", type=Path, nargs="+", default=[], help="folders of run records that may have them")
    commands.add_parser("build", help="make docs/results.md, its figures, and the tables of the READMEs")
    commands.add_parser("check", help="build elsewhere and name the files that are not byte for byte what is here")
    joining = commands.add_parser("join", help="do a method's runs of the suite, collect them and build")
    joining.add_argument("method", help="its name; further options are those of 'bench.py run'")
    joining.add_argument("--results", type=Path, required=True, help="folder of its run records")
    options, further = parser.parse_known_args()
    if further and options.command != "join":
        parser.error(f"not understood: {' '.join(further)}")
    code = 0
    if options.command == "collect":
        _collect(options.results, options.archives)
    elif options.command == "expand":
        print(f"{len(expand_to(options.to, options.archives, options.only))} runs below {options.to}")
    elif options.command == "join":
        from benchmarks.studies.reference.documents import build
        from benchmarks.studies.reference.joining import join

        code = join(options.method, options.results, further, options.archives)
        print(*build(options.archives), sep="\n")
    elif options.command == "check":
        from benchmarks.studies.reference.documents import differing

        found = differing(options.archives)
        print(*found or ["Every page and figure is what the records make."], sep="\n")
        code = int(bool(found))
    elif options.command == "switches":
        runs = [run for root in options.results for run in find_runs(root)[0]]
        print(*(switch.command for switch in absent(runs)), sep="\n")
    else:
        from benchmarks.studies.reference.documents import build

        print(*build(options.archives), sep="\n")
    sys.exit(code)


def _collect(results: list[Path], folder: Path) -> None:
    from tempfile import TemporaryDirectory

    for root in results:
        if not root.is_dir():
            raise UserError(
                f"There are no records in '{root}'.",
                "It is no folder.",
                "Pass the folder that 'bench.py run --suite reference' was given as --results.",
            )
    if not collect(results, folder):
        raise UserError(
            f"There is nothing to collect in '{', '.join(map(str, results))}'.",
            "It holds no finished run of the suite or of a switch.",
            "Run 'python bench.py run --suite reference' first, or pass another folder.",
        )
    for problem in (problem for root in results for problem in find_runs(root)[1]):
        print(f"Not read: {problem.path}: {problem.message}", file=sys.stderr)
    for path in archives(folder):
        print(f"{path.stat().st_size:9,}  {path.name}")
    print(f"{sum(path.stat().st_size for path in archives(folder)):9,}  in all")
    with TemporaryDirectory() as there:
        expand_to(Path(there), folder)
        absent = missing(find_runs(there)[0])
    counts = Counter((run.method, "ablations" if run.ablation else f"{run.world} {run.profile}") for run in absent)
    for (method, what), count in counts.items():
        print(f"missing: {count} of {method}, {what}")


if __name__ == "__main__":
    main()
