"""Where the settings of a run come from, and which source wins: default < preset < file < command line.

A key is flat and belongs to `TrainingConfig`, to `OpenWorldSettings` or to the method's own `Config`; no name may be in
two of them. Presets lie in `benchmarks/presets/<method>.toml`:

    [default]                   # for every data set
    source = "README of the released code"
    lr = 5e-5
    [mit_states]                # then the data set's own values
    [default.official]          # then, in the official profile only, what the released code does differently
    [mit_states.official]

What a user sets by file or command line comes sorted by method from `overrides.py`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError

from benchmarks.runs.spec import OpenWorldSettings, Profile, TrainingConfig
from errors import UserError, did_you_mean

PRESETS = Path(__file__).parents[1] / "presets"

Origin = Literal["default", "preset", "file", "command line", "ablation"]
Provenance = dict[str, dict[str, str]]
"""For each key: `origin`, and for a preset or file also `where` it stands and the `source` text of its table."""

Values = dict[str, Any]

_RESERVED = ("source", "official")  # words with a meaning of their own in a preset file


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


def resolve(
    method_name: str, config_class: type[BaseModel], dataset_name: str, **sources: Any
) -> tuple[TrainingConfig, Values, Provenance]:
    """Return the training settings, the method's full settings (as JSON values) and where each value came from.

    sources: see `layers`.
    """
    values, provenance = _joined(layers(method_name, config_class, dataset_name, **sources))
    provenance = {key: provenance.get(key, {"origin": "default"}) for key in known_keys(method_name, config_class)}
    training = _validated(TrainingConfig, values, method_name, provenance)
    config = _validated(config_class, values, method_name, provenance)
    elsewhere = OpenWorldSettings.model_fields
    return training, config.model_dump(mode="json"), {k: note for k, note in provenance.items() if k not in elsewhere}


def resolve_open_world(
    method_name: str, config_class: type[BaseModel], dataset_name: str, **sources: Any
) -> tuple[OpenWorldSettings, Provenance]:
    """Return the settings of the open world and where each value came from. sources: see `layers`."""
    values, found = _joined(layers(method_name, config_class, dataset_name, **sources))
    provenance = {key: found.get(key, {"origin": "default"}) for key in OpenWorldSettings.model_fields}
    return _validated(OpenWorldSettings, values, method_name, provenance), provenance


def layers(
    method: str,
    config_class: type[BaseModel],
    dataset: str,
    *,
    profile: Profile = "clean",
    file_values: Mapping[str, Any] | None = None,
    command_line_values: Mapping[str, Any] | None = None,
    file_name: str = "the settings file",
    ablation: Mapping[str, Any] | None = None,
    presets: Path = PRESETS,
) -> list[Layer]:
    """Return every source of a run's values, weakest first; a key that is not known is a `UserError`.

    ablation: what an ablation switches; it wins over every other source, for it is what the run is about.
    """
    known = known_keys(method, config_class)
    found = [
        *preset_layers(method, dataset, profile, known, presets),
        Layer("file", file_name, file_values or {}),
        Layer("command line", "", command_line_values or {}),
        Layer("ablation", "", ablation or {}),
    ]
    for layer in found:
        refuse_unknown(layer.values, known, method, layer.where or f"the {layer.origin}")
    return found


def _joined(found: Iterable[Layer]) -> tuple[Values, Provenance]:
    """Return the value that wins for each key, and its place."""
    values: Values = {}
    provenance: Provenance = {}
    for layer in found:
        values.update(layer.values)
        provenance.update({key: layer.note() for key in layer.values})
    return values, provenance


def preset_layers(
    method: str, dataset: str, profile: Profile, known: Sequence[str], presets: Path = PRESETS
) -> list[Layer]:
    """Return the preset tables that apply, weakest first; a missing file or table is no error, a wrong key is one."""
    path = presets / f"{method}.toml"
    if not path.is_file():
        return []
    tables: dict[str, Any] = {}
    for name, table in read_toml(path).items():
        tables[name] = table
        if isinstance(table, dict) and "official" in table:
            tables[f"{name}.official"] = table.pop("official")
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
    order = ["default", dataset]
    if profile == "official":
        order += ["default.official", f"{dataset}.official"]
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


def _validated(model: type[BaseModel], values: Values, method: str, provenance: Provenance) -> Any:
    """Return the model built from its share of `values`; the first thing wrong becomes a `UserError`.

    Validation is strict and from JSON: TOML's `true` is no number and a string no float, but a list may be a tuple.
    """
    fields = model.model_fields
    own = {key: _none_spelt(value, fields[key].annotation) for key, value in values.items() if key in fields}
    for key, value in own.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            reason = "It is no finite number, text, list or table"
            raise _refusal(model, key, value, reason, method, provenance) from error
    try:
        return model.model_validate_json(json.dumps(own), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(
                f"The settings of {method} do not fit together.", f"{_sentence(message)}.", "Change one of them."
            ) from error
        key = str(first["loc"][0])
        raise _refusal(model, key, own.get(key), message, method, provenance) from error


def _none_spelt(value: Any, annotation: Any) -> Any:
    """Return "none" for a null where the setting's choices have that word and no null: `--set augmentation=none`."""
    if value is not None:
        return value
    choices = _choices(annotation)
    return "none" if "none" in choices and type(None) not in choices else None


def _choices(annotation: Any) -> list[Any]:
    """Return the members of a union and the words of its literals."""
    parts = get_args(annotation)
    if not parts:
        return [annotation]
    return [choice for part in parts for choice in _choices(part)]


def _refusal(
    model: type[BaseModel], key: str, value: Any, message: str, method: str, provenance: Provenance
) -> UserError:
    place = provenance[key].get("where") or f"the {provenance[key]['origin']}"
    return UserError(
        f"The value {value!r} of '{key}' for {method} (from {place}) is refused.",
        f"{_sentence(message)}.",
        f"Give another; the default is {model.model_fields[key].default!r}.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")
