"""The commands together, and the way in.

The command line parses, calls the rooms below, prints, and nothing else. torch is imported by the commands that need
it, so `--help` and `list` start at once.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.text import Text

from benchmarks.commands.argv import plain_flags, spread_lists
from benchmarks.commands.bridging import export, import_
from benchmarks.commands.cache import cache
from benchmarks.commands.console import err, first_speaks
from benchmarks.commands.cost import cost, profile
from benchmarks.commands.data import data
from benchmarks.commands.finished import compare, predict
from benchmarks.commands.launching import cancel
from benchmarks.commands.listing import list_, show
from benchmarks.commands.reporting import report
from benchmarks.commands.run import run
from benchmarks.commands.status import status
from benchmarks.training import stopping
from errors import UserError

app = typer.Typer(
    help="Benchmark suite for compositional zero-shot learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, report, status, cancel, compare, predict, cost, export):
    app.command()(command)
app.command(name="profile", hidden=True)(profile)
app.command(name="import")(import_)
app.command(name="list")(list_)
app.command()(show)
app.add_typer(data, name="data")
app.add_typer(cache, name="cache")


@first_speaks()
def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2, a signal 128 + number."""
    try:
        with stopping.listening():
            app(spread_lists(plain_flags(sys.argv[1:])), standalone_mode=True)
    except stopping.Stopped as stop:
        err.print(f"Stopped by {stop.word}. Nothing finished is lost; the same command goes on.")
        sys.exit(stop.exit_code)
    except UserError as error:
        err.print(Text.assemble(("Error:", "red"), f" {error}"), soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
