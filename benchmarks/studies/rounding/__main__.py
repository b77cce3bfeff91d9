"""Trains repeats that differ in rounding alone and sums them up; `--help` says more."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.studies.program import program
from benchmarks.studies.rounding import __doc__ as about
from benchmarks.studies.rounding.variants import Repeats, chosen, run_all


@program
def main() -> None:
    """Parse and do what is asked."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.rounding", description=about, formatter_class=form
    )
    commands = parser.add_subparsers(dest="command", required=True)
    everything = commands.add_parser("run", help="train every variant that is not there yet")
    everything.add_argument("--variants", nargs="+", help="some of them; all by default")
    single = commands.add_parser("one", help="train one variant in this process")
    single.add_argument("--variant", required=True)
    for command in (everything, single):
        command.add_argument("--methods", nargs="+", required=True)
        command.add_argument("--seeds", nargs="+", type=int, default=[0])
        command.add_argument("--dataset", default="icon_states")
        command.add_argument("--short", action="store_true", help="the presets' short training")
        command.add_argument("--epochs", type=int, help="instead of the preset's")
        command.add_argument("--set", nargs="+", default=[], help="settings as 'bench.py run' takes them: csp.lr=1e-3")
    summed = commands.add_parser("summary", help="print the table of what is there")
    summed.add_argument(
        "--to", type=Path, help="JSON file to add the deviations to, which documents and intervals read"
    )
    for command in (everything, single, summed):
        command.add_argument("--results", type=Path, required=True, help="folder with a folder for each variant")
    options = parser.parse_args()
    sys.exit(_done(options))


def _done(options: argparse.Namespace) -> int:
    if options.command == "summary":
        from benchmarks.report.render import markdown
        from benchmarks.runs import files
        from benchmarks.studies.rounding.summary import by_epoch, content, spreads, table

        found = spreads(options.results)
        print(markdown(table(found)), markdown(by_epoch(found)), sep="\n")
        if options.to is not None:
            kept = files.read_json(options.to) if options.to.exists() else {}
            files.write_json(options.to, {**kept, **content(found)})
        return 0
    repeats = Repeats(options.methods, options.seeds, options.short, options.epochs, options.dataset, options.set)
    if options.command == "run":
        return run_all(repeats, chosen(options.variants), options.results)
    from benchmarks.studies.rounding.training import train

    train(repeats, options.variant, chosen([options.variant])[options.variant], options.results)
    return 0


if __name__ == "__main__":
    main()
