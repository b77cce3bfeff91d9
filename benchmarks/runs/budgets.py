"""Was a run trained with the reference's budget, or with the short one of a newcomer's first minutes?

The values say so, and not where a record says that they came from: records from before there were two budgets are told
as well, and so is a run whose settings were all given by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.runs.reading import RunRecord
from benchmarks.runs.settings import OFFICIAL, PRESETS, SHORT, read_toml
from benchmarks.runs.spec import Profile
from datasets.seen_mark import base_of

BY_PRESET = ("default", "preset")
"""Origins of settings that follow from the budget."""


@cache
def budget_settings(
    method: str, dataset: str, profile: Profile = "clean", presets: Path = PRESETS
) -> Mapping[str, tuple[Any, Any]]:
    """Return the preset settings in which the two budgets differ, each as (the reference's, the short one's).

    None stands for the setting's default. Empty where a data set has no short training, or a method no presets.
    """
    path = presets / f"{method}.toml"
    if not path.is_file():
        return {}
    tables = read_toml(path)
    own = [table for name in ("default", base_of(dataset)) if isinstance(table := tables.get(name), dict)]
    short, official = (
        {key: value for table in own for key, value in table.get(inner, {}).items() if key != "source"}
        for inner in (SHORT, OFFICIAL)
    )
    long = {key: value for table in own for key, value in table.items() if key not in ("source", SHORT, OFFICIAL)}
    last = official if profile == "official" else {}
    long, short = {**long, **last}, {**long, **short, **last}
    return {key: (long.get(key), value) for key, value in short.items() if long.get(key) != value}


def trained_short(run: RunRecord, presets: Path = PRESETS) -> bool | None:
    """Return whether a run has the short budget; None where there is one budget only, or the run has neither.

    Settings that a user gave, or that an ablation switches, are left aside.
    """
    spec = run.spec
    if not spec.has_weights or spec.imported is not None:
        return None
    values = spec.settings
    told = {
        key: (values[key] == long, values[key] == short)
        for key, (long, short) in budget_settings(spec.method, spec.dataset, spec.profile, presets).items()
        if key in values and run.provenance.get(key, {"origin": "default"})["origin"] in BY_PRESET
    }
    if not told or not (all(one for one, _ in told.values()) or all(other for _, other in told.values())):
        return None
    return all(other for _, other in told.values())
