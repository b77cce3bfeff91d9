"""A method joins the reference: its budget is held against the rule, and its runs are done, collected and shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs.resolution import resolve
from benchmarks.studies.reference.collection import FOLDER, ROOT, SUITE, collect
from errors import UserError
from registry import METHODS

DATASET = "icon_states"
RULE = ("epochs", "scheduler", "step_size", "gamma", "selection")
"""The settings that docs/protocol.md, "Budget", has alike for every trained method."""


def budget_of(method: str) -> Mapping[str, Any]:
    """Return what of a method's reference settings the budget rule is about."""
    training = resolve(method, METHODS.get(method).Config, DATASET).training
    return {name: getattr(training, name) for name in RULE}


def rule(joining: str = "") -> Mapping[str, Any]:
    """Return what all trained methods but the joining one have; a `UserError` where they do not agree."""
    found = {name: budget_of(name) for name in METHODS.names() if name != joining and METHODS.get(name).info.trains}
    first = next(iter(found))
    for name, budget in found.items():
        if budget != found[first]:
            raise UserError(
                "There is no common budget to join.",
                f"{first} has {_shown(found[first])}, {name} has {_shown(budget)}.",
                f"Give all of them the same values in [{DATASET}] of benchmarks/presets/.",
            )
    return found[first]


def check_budget(method: str) -> None:
    """Refuse a method that trains with another ceiling or schedule than the others, as a `UserError`."""
    METHODS.check(method)
    if not METHODS.get(method).info.trains:
        return
    own, others = budget_of(method), rule(method)
    if own != others:
        raise UserError(
            f"The method '{method}' cannot join the reference.",
            f"It trains with {_shown(own)}, the others with {_shown(others)}.",
            f"Give [{DATASET}] of benchmarks/presets/{method}.toml the same values.",
        )


def join(method: str, results: Path, options: Sequence[str] = (), folder: Path = FOLDER) -> int:
    """Do a method's runs of the suite that are not there yet and collect what is finished; return their exit code.

    results: folder of the records, where a broken-off call goes on.
    options: of `bench.py run`, such as `--seeds 0 1`.
    """
    check_budget(method)
    command = [sys.executable, str(ROOT / "bench.py"), "run", "--suite", SUITE, "--methods", method]
    done = subprocess.run([*command, "--results", str(results), *options], check=False)
    collect([results], folder)
    return done.returncode


def _shown(budget: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in budget.items())
