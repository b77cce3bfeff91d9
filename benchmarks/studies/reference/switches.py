"""Differences between paper, released code and suite that are settings and not ablations, each measured by one run.

The suite's full models are what they are held against, on the same seed.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.reproduce import given_settings
from benchmarks.runs.budgets import trained_short
from benchmarks.runs.overrides import setting_text
from benchmarks.runs.records import RunRecord
from benchmarks.runs.resolution import resolve
from benchmarks.runs.spec import Precision
from datasets.base import World
from registry import METHODS

SEED = 0


@dataclass(frozen=True)
class Switch:
    """A run of a full model with settings of its own. settings: as `--set` takes them, with the method's name."""

    method: str
    settings: tuple[str, ...] = ()
    world: World = "closed"
    precision: Precision = "fp32"

    @property
    def words(self) -> tuple[str, ...]:
        """What the switch is on the command line, beside the method."""
        world = () if self.world == "closed" else ("--world", self.world)
        precision = () if self.precision == "fp32" else ("--precision", self.precision)
        return (*(("--set", *self.settings) if self.settings else ()), *world, *precision)

    @property
    def command(self) -> str:
        """The command that runs it."""
        return shlex.join(["python", "bench.py", "run", "--methods", self.method, "--seeds", str(SEED), *self.words])

    def is_of(self, run: RunRecord) -> bool:
        """Return whether a run is this one."""
        spec = run.spec
        return (
            (spec.method, spec.world, spec.precision) == (self.method, self.world, self.precision)
            and (spec.profile, spec.seed, spec.ablation) == ("clean", SEED, None)
            and sorted(own_settings(run)) == sorted(self.settings)
        )


SWITCHES = {
    "masking": Switch("csp", ("csp.masking=official",), world="open"),
    "threshold": Switch("dfsp", ("dfsp.threshold=0.4",), world="open"),
    "val_loss_csp": Switch("csp", ("csp.selection=val_loss",)),
    "val_loss_dfsp": Switch("dfsp", ("dfsp.selection=val_loss",)),
    "last_epoch": Switch("csp", ("csp.selection=last",)),
    "bf16_csp": Switch("csp", precision="bf16"),
    "bf16_dfsp": Switch("dfsp", precision="bf16"),
    "early_adamw": Switch("msci", ("msci.optimizer=early_adamw",)),
    "heads": Switch("msci", ("msci.stage_1_heads=16", "msci.stage_2_heads=16")),
    "score_weights": Switch("msci", ("msci.test_score_weights=[0.1, 0.9, 0.9]",)),
}
"""By the names that docs/deviations.md has for them."""

SECOND_BEST = {
    "coop": Switch("coop", ("coop.lr=0.01",)),
    "csp": Switch("csp", ("csp.lr=0.001",)),
    "dfsp": Switch("dfsp", ("dfsp.lr=0.001",)),
    "msci": Switch("msci", ("msci.lr=0.002", "msci.dropout=0.0")),
    "refiner_style": Switch("refiner_style", ("refiner_style.lr=0.001",)),
    "troika": Switch("troika", ("troika.dropout=0.0",)),
    "caila": Switch("caila", ("caila.image_dropout=0.5",)),
    "cams": Switch("cams", ("cams.lr=0.001",)),
    "vp_cmjl": Switch("vp_cmjl", ("vp_cmjl.lr=0.001",)),
}
"""By method: the setting that came second on validation when the method was tuned (docs/tuning)."""

_SECOND = "second_"
_BESIDE = SWITCHES | {_SECOND + method: switch for method, switch in SECOND_BEST.items()}


def own_settings(run: RunRecord) -> list[str]:
    """Return the settings that a run was given and that the presets do not give it anyway, as `--set` takes them."""
    spec = run.spec
    given = given_settings(run)
    if not given:
        return []
    plain = resolve(
        spec.method, METHODS.get(spec.method).Config, spec.dataset, profile=spec.profile, world=spec.world,
        short=trained_short(run) is True,
    ).values  # fmt: skip
    usual = {f"{spec.method}.{key}={setting_text(value)}" for key, value in plain.items()}
    return [text for text in given if text not in usual]


def switch_of(run: RunRecord) -> str | None:
    """Return the name of the switch whose run this is: of `SWITCHES`, or "second_" and a method of `SECOND_BEST`."""
    return next((name for name, switch in _BESIDE.items() if switch.is_of(run)), None)


def absent(runs: Sequence[RunRecord]) -> list[Switch]:
    """Return the switches whose runs are not among finished ones."""
    done = {switch_of(run) for run in runs if run.result is not None}
    return [switch for name, switch in _BESIDE.items() if name not in done]
