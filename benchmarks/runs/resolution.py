"""One resolution per request: all settings of a run, checked, and where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from benchmarks.runs.open_world_settings import OpenWorldSettings
from benchmarks.runs.settings import PRESETS, Layer, Provenance, Values, known_keys, preset_layers, refuse_unknown
from benchmarks.runs.spec import Profile, TrainingConfig
from benchmarks.runs.suites import RunRequest
from datasets.base import World
from errors import UserError
from registry import METHODS

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Given:
    """What is set beside defaults and presets, weakest first.

    file: values of the user's settings file.
    file_name: what messages call that file.
    command_line: values of options.
    ablation: what an ablation switches; it wins over every other source, for it is what the run is about.
    """

    file: Mapping[str, Any] = field(default_factory=dict)
    file_name: str = "the settings file"
    command_line: Mapping[str, Any] = field(default_factory=dict)
    ablation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> list[Layer]:
        """The sources, weakest first."""
        return [
            Layer("file", self.file_name, self.file),
            Layer("command line", "", self.command_line),
            Layer("ablation", "", self.ablation),
        ]


@dataclass(frozen=True)
class Resolved:
    """All settings of a run. Two are equal if their values are, wherever these come from.

    training: of the training loop.
    method: every setting of the method, as JSON values.
    open_world: None in the closed world, where nothing reads it.
    provenance: where each of these values comes from.
    """

    training: TrainingConfig
    method: Values
    open_world: OpenWorldSettings | None
    provenance: Provenance = field(compare=False)

    @property
    def values(self) -> Values:
        """Every value by its key."""
        apart = {} if self.open_world is None else self.open_world.model_dump()
        return {**self.training.model_dump(), **self.method, **apart}


def resolve(
    method: str,
    config_class: type[BaseModel],
    dataset: str,
    *,
    profile: Profile = "clean",
    world: World = "closed",
    given: Given = Given(),
    short: bool = False,
    presets: Path = PRESETS,
) -> Resolved:
    """Return the settings of a method on a data set; a key that is not known and a wrong value are a `UserError`.

    config_class: of the method's own settings.
    short: see `preset_layers`.
    """
    known = known_keys(method, config_class)
    values: Values = {}
    places: Provenance = {}
    for layer in [*preset_layers(method, dataset, profile, known, presets, short=short), *given.layers]:
        refuse_unknown(layer.values, known, method, layer.where or f"the {layer.origin}")
        values.update(layer.values)
        places.update({key: layer.note() for key in layer.values})
    apart = list(OpenWorldSettings.model_fields)
    keys = [key for key in known if key not in apart] + (apart if world == "open" else [])
    provenance = {key: places.get(key, {"origin": "default"}) for key in keys}
    return Resolved(
        training=_validated(TrainingConfig, values, method, provenance),
        method=_validated(config_class, values, method, provenance).model_dump(mode="json"),
        open_world=_validated(OpenWorldSettings, values, method, provenance) if world == "open" else None,
        provenance=provenance,
    )


class Resolver:
    """Resolves requests; those that differ in backbone and seed alone have one `Resolved`.

    given: by method, what the user set; each request's ablation is added.
    """

    def __init__(self, given: Mapping[str, Given] | None = None) -> None:
        self.given = given or {}
        self._found: dict[RunRequest, Resolved] = {}

    def resolved(self, request: RunRequest) -> Resolved:
        """Return the settings of a request."""
        key = replace(request, backbone="", seed=0)
        if key not in self._found:
            self._found[key] = resolve(
                request.method,
                METHODS.get(request.method).Config,
                request.dataset,
                profile=request.profile,
                world=request.world,
                given=replace(self.given.get(request.method, Given()), ablation=request.changes),
                short=request.short,
            )
        return self._found[key]

    def changes_nothing(self, request: RunRequest) -> bool:
        """Return whether an ablation sets what its full model has already: it would be the same run twice."""
        return request.ablation is not None and self.resolved(request) == self.resolved(replace(request, ablation=None))


def _validated(model: type[Model], values: Values, method: str, provenance: Provenance) -> Model:
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
