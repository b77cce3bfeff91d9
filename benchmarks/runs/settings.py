"""Where the settings of a run come from, and which source wins: default < preset < file < command line.

A key is flat and belongs to `TrainingConfig`, to `OpenWorldSettings` or to the method's own `Config`; no name may be in
two of them. Presets lie in `benchmarks/presets/<method>.toml`:

    [default]                   # for every data set
    source = "README of the released code"
    lr = 5e-5
    [mit_states]                # then the data set's own values
    [mit_states.short]          # then, where short training is asked for, that of a newcomer's first minutes
    [default.official]          # then, in the official profile only, what the released code does differently
    [mit_states.official]

What a user sets by file or command line comes sorted by method from `overrides.py`; `resolution.py` joins all of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from benchmarks.runs.open_world_settings import OpenWorldSettings
from benchmarks.runs.spec import Profile, TrainingConfig
from datasets.seen_mark import base_of
from errors import UserError, did_you_mean

PRESETS = Path(__file__).parents[1] / "presets"

Origin = Literal["default", "preset", "file", "command line", "ablation"]
Provenance = dict[str, dict[str, str]]
"""For each key: `origin`, and for a preset or file also `where` it stands and the `source` text of its table."""

Values = dict[str, Any]

OFFICIAL, SHORT = "official", "short"
_LAID_OVER = (OFFICIAL, SHORT)
"""Tables inside the table of a data set."""
_RESERVED = ("source", *_LAID_OVER)  # words with a meaning of their own in a preset file


@dataclass(frozen=True)
class Layer:
    """Values from one place. where: the file and table, or the option; source: what the table says of its origin."""

    origin: Origin
    where: str
    values: Mapping[str, Any]
    source: str = ""

    def note(self) -> dict[str, str]:
        """Return what the record keeps of this place."""
        note = {"origin": self.origin, "where": self.where, "source": self.source}
        return {key: text for key, text in note.items() if text}


def known_keys(method: str, config_class: type[BaseModel]) -> list[str]:
    """Return every key a run of `method` can be given; a name of the method's that is taken is a `UserError`."""
    own = set(config_class.model_fields)
    common = {*TrainingConfig.model_fields, *OpenWorldSettings.model_fields}
    taken = sorted(own & {*common, *_RESERVED})
    if taken:
        raise UserError(
            f"The method {method} has settings of its own called {', '.join(taken)}.",
            "The settings of every run and the words of preset files have these names already.",
            f"Rename them in {config_class.__module__}.{config_class.__qualname__}.",
        )
    return sorted({*own, *common})


def preset_layers(
    method: str, dataset: str, profile: Profile, known: Sequence[str], presets: Path = PRESETS, *, short: bool = False
) -> list[Layer]:
    """Return the preset tables that apply, weakest first; a missing file or table is no error, a wrong key is one.

    short: whether the data set's table of short training is laid over its own, where it has one.
    """
    path = presets / f"{method}.toml"
    if not path.is_file():
        return []
    tables: dict[str, Any] = {}
    for name, table in read_toml(path).items():
        tables[name] = table
        for inner in _LAID_OVER:
            if isinstance(table, dict) and inner in table:
                tables[f"{name}.{inner}"] = table.pop(inner)
    layers = {}
    for name, table in tables.items():  # every table is checked, also those this run does not use
        if not isinstance(table, dict):
            raise UserError(
                f"The preset file {path.name} has '{name}' as a value.",
                "Presets are grouped in a table per data set, such as [mit_states] and [mit_states.official].",
                "Move the value into [default] or into a data set's table.",
            )
        where = f"{presets.name}/{path.name} [{name}]"
        source = str(table.pop("source", ""))
        refuse_unknown(table, known, method, where)
        layers[name] = Layer("preset", where, table, source)
    own = base_of(dataset)  # fewer seen pairs have no settings of their own
    order = ["default", own]
    if short:
        order += [f"default.{SHORT}", f"{own}.{SHORT}"]
    if profile == "official":
        order += [f"default.{OFFICIAL}", f"{own}.{OFFICIAL}"]
    return [layers[name] for name in order if name in layers]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; an unreadable or malformed one is a `UserError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read.", f"The system says: {error.strerror or error}.", "Check its path."
        ) from error
    except ValueError as error:  # bad TOML and bad UTF-8 alike
        raise UserError(f"The file {path} is not valid TOML.", f"{error}.", "Mend it at that place.") from error


def refuse_unknown(values: Iterable[str], known: Sequence[str], method: str, where: str) -> None:
    """Raise a `UserError` for the first key that is not known; where: the file, table or option it came from."""
    for key in values:
        if key not in known:
            raise UserError(
                f"No setting of {method} is called '{key}' (from {where}).",
                f"The settings are {', '.join(known)}.",
                did_you_mean(key, known) or "Leave it out or use one of these.",
            )
