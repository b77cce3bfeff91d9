"""What changes a run's numbers and is no part of its identity: where the runs of a table differ in it, a note says so.

Sums of floating-point numbers depend on the processor, on how many threads share the work, and on the release of torch.
The number of threads is fixed today (`RunSpec.threads`); older records have what their machine and launcher gave them.
The difference begins as rounding and ends, after some hundred steps, in other epochs and in tenths of a point of AUC
(`python -m benchmarks.studies.rounding` measures it; docs/statistics.md, "Rounding").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.runs.records import RunRecord
from errors import counted

FEW = 3  # runs that a note names one by one


def facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what numbers depend on beside a run's identity, by name; without what a record does not say.

    The number of threads counts where a processor does the work.
    """
    kind = environment.get("device")
    processor = environment.get("gpu") or (environment.get("cpu") or {}).get("name")
    threads = environment.get("threads") if kind == "cpu" else None
    found = {
        "devices": " ".join(str(part) for part in (kind, f"({processor})" if processor else None) if part),
        "numbers of threads": threads,
        "instruction sets": environment.get("instructions"),
        "numbers of processes": environment.get("processes"),
        "releases of torch": (environment.get("packages") or {}).get("torch"),
    }
    return {name: str(value) for name, value in found.items() if value}


def mixture_notes(runs: Iterable[RunRecord]) -> list[str]:
    """Return a sentence for each thing in which finished runs differ although their identity does not know it.

    So may the starts of one run, which was stopped and went on elsewhere.
    """
    done = [run for run in runs if run.result is not None and run.spec.external is None]
    values: dict[str, dict[str, list[RunRecord]]] = {}
    several: set[str] = set()
    for run in done:
        starts: dict[str, dict[str, None]] = {}
        for start in run.starts:
            for name, value in facts(start.get("environment") or {}).items():
                starts.setdefault(name, {})[value] = None
        for name, own in starts.items():
            values.setdefault(name, {}).setdefault(", then ".join(own), []).append(run)
            if len(own) > 1:
                several.add(name)
    return [
        f"Computed with different {name} ("
        + "; ".join(f"{value}: {_named(own)}" for value, own in sorted(by.items()))
        + "): such runs differ by more than their seeds and settings."
        for name, by in values.items()
        if len(by) > 1 or name in several
    ]


def elsewhere_note(runs: Sequence[RunRecord], here: Mapping[str, Any]) -> str:
    """Say that finished runs were computed in another way than they would be here; "" if they were not.

    here: the environment of this process, as a record would have it.
    """
    own = facts(here)
    differing: dict[str, dict[str, None]] = {}
    concerned = 0
    for run in runs:
        there = {name: value for name, value in facts(run.environment).items() if own.get(name, value) != value}
        concerned += bool(there)
        for name, value in there.items():
            differing.setdefault(name, {})[value] = None
    if not differing:
        return ""
    said = "; ".join(f"{name}: {', '.join(there)} there, {own[name]} here" for name, there in differing.items())
    return (
        f"{counted(concerned, 'run that is there was', 'runs that are there were')} computed in another way than here "
        f"({said}), so new numbers may differ from theirs."
    )


def _named(runs: Sequence[RunRecord]) -> str:
    """Name runs: each of a few, of many their number and their seeds."""
    if len(runs) <= FEW:
        return ", ".join(
            " ".join(filter(None, (run.spec.method, run.spec.ablation, f"seed {run.spec.seed}"))) for run in runs
        )
    seeds = sorted({run.spec.seed for run in runs})
    return f"{len(runs)} runs, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
