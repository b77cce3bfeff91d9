"""The ways in which the same run is made again, and the process that makes one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from errors import UserError, did_you_mean

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Variant:
    """One way to round.

    environment: what the process is started with; it is read when torch is imported.
    threads: of the processor.
    moved: the number of the element that is moved by one unit in the last place, from 1; 0 moves none.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    moved: int = 0


VARIANTS: Mapping[str, Variant] = {
    "plain": Variant(),
    "threads-2": Variant(threads=2),
    "aten-default": Variant({"ATEN_CPU_CAPABILITY": "default"}),
    "aten-avx2": Variant({"ATEN_CPU_CAPABILITY": "avx2"}),
    "onednn-avx2": Variant({"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    **{f"last-place-{number}": Variant(moved=number) for number in range(1, 6)},
}
"""By the names of their folders. The last five work on every processor and device."""


def chosen(names: Sequence[str] | None) -> dict[str, Variant]:
    """Return variants by name, all by default; an unknown name is a `UserError`."""
    for name in names or ():
        if name not in VARIANTS:
            raise UserError(
                f"No variant is called '{name}'.",
                f"The variants are {', '.join(VARIANTS)}.",
                did_you_mean(name, list(VARIANTS)) or "Choose among these.",
            )
    return {name: VARIANTS[name] for name in (names or VARIANTS)}


@dataclass(frozen=True)
class Repeats:
    """What is trained again.

    short: with the presets' short training.
    epochs: None leaves the preset's.
    dataset: name of a data set.
    settings: as `bench.py run --set` takes them.
    """

    methods: Sequence[str]
    seeds: Sequence[int] = (0,)
    short: bool = False
    epochs: int | None = None
    dataset: str = "icon_states"
    settings: Sequence[str] = ()

    @property
    def options(self) -> list[str]:
        """These as options of the child's command line."""
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        short = ["--short"] if self.short else []
        settings = ["--set", *self.settings] if self.settings else []
        return [
            "--methods", *self.methods, "--seeds", *map(str, self.seeds), "--dataset", self.dataset, *settings,
            *epochs, *short,
        ]  # fmt: skip


def run_all(repeats: Repeats, variants: Mapping[str, Variant], results: Path) -> int:
    """Do every run that is not there yet, one process for a variant, one after the other; return the worst exit code.

    Processes of their own, because instruction sets are chosen when torch is imported.
    """
    worst = 0
    for name, variant in variants.items():
        command = [sys.executable, "-m", "benchmarks.studies.rounding", "one", "--variant", name]
        command += ["--results", str(results), *repeats.options]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variant.environment}, check=False)
        worst = max(worst, abs(done.returncode))
    return worst
