"""A process for each method, so that neither its memory nor its failure is another's.

python -m benchmarks.cost.children csp < settings.json     # prints its Timing as JSON
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.cost.record import Row, Settings, Timing

ROOT = Path(__file__).parents[2]


def in_own_process(name: str, settings: Settings) -> Timing | str:
    """Measure a method in a fresh process; return what was measured, or in a sentence why nothing was."""
    command = [sys.executable, "-m", "benchmarks.cost.children", name]
    done = subprocess.run(
        command, input=settings.model_dump_json(), capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode < 0:
        word = signal.Signals(-done.returncode).name
        hint = ", which is what the system does when memory runs out" if word == "SIGKILL" else ""
        return f"Not measured: the process was ended by {word}{hint}."
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"Not measured: {last}"
    return Timing.model_validate_json(lines[-1])


def with_timing(row: Row, settings: Settings) -> Row:
    """Return the row with what was measured, or with the reason why nothing was."""
    found = in_own_process(row.method, settings)
    if isinstance(found, str):
        return row.model_copy(update={"error": " ".join(filter(None, (row.error, found)))})
    return row.model_copy(update={"timing": found})


def main() -> None:
    """Measure the method that the command line names with the settings on standard input."""
    from benchmarks.cost.labels import label_space
    from benchmarks.cost.timing import measure
    from registry import load_plugin

    settings = Settings.model_validate(json.load(sys.stdin))
    for plugin in settings.plugins:
        load_plugin(plugin)
    try:
        print(measure(sys.argv[1], settings, label_space(settings.labels)).model_dump_json())
    except Exception as error:  # the parent shows one line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
