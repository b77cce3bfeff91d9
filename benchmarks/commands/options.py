"""Options: those that several commands share, and those that a dataclass declares.

A command takes a dataclass as one parameter, and `spread` gives Typer an option for each of its fields. A field says
what its option is by `Annotated`, as a parameter would, or, in a room that knows nothing of command lines, by the
`metadata` of `dataclasses.field`:

    help: the help text
    name: the option, where it is not called as the field
    min: the least number
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from benchmarks.running.choices import Choices, How
from errors import UserError
from methods.backbone_names import with_configuration

if TYPE_CHECKING:
    from benchmarks.runs.suites import RunRequest


class World(StrEnum):
    """Candidate pairs: the split's own, or every state x object."""

    closed = "closed"
    open = "open"


class Profile(StrEnum):
    """What is computed: what the paper says, or what the released code does."""

    clean = "clean"
    official = "official"


class OnExisting(StrEnum):
    """What to do about runs that are there already."""

    resume = "resume"
    skip = "skip"
    redo = "redo"


def option_name(field: Field[Any]) -> str:
    """Return how the option of a field is called."""
    return str(field.metadata.get("name", f"--{field.name.replace('_', '-')}"))


def option_of(field: Field[Any]) -> OptionInfo:
    """Return the option that the metadata of a field declares."""
    name = option_name(field)
    both = f"{name}/--no-{name.removeprefix('--')}" if isinstance(field.default, bool) else name
    option: OptionInfo = typer.Option(both, help=field.metadata["help"], min=field.metadata.get("min"))
    return option


HOW = {field.name: option_of(field) for field in fields(How)}
"""The options of how runs are computed."""

Device = Annotated[str, HOW["device"]]
Recompute = Annotated[bool, HOW["recompute"]]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16.")]
Results = Annotated[Path, typer.Option(help="Folder of run records.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="Python file that registers methods or data.")]
Short = Annotated[
    bool | None,
    typer.Option(
        "--short/--no-short",
        help="Short training for a first look, no ranking to go by; --no-short: the reference's. The suite says.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatasetName = Annotated[str, typer.Argument(help="A data set's name, see 'list datasets'.")]


@dataclass(frozen=True)
class Wanted:
    """What `run` and `status` change of a suite and of the settings of its runs; None leaves what is there."""

    methods: Annotated[list[str] | None, typer.Option(help="Methods, e.g. --methods msci csp, or 'all'.")] = None
    dataset: Annotated[str | None, typer.Option(help="Data set.")] = None
    seeds: Annotated[list[int] | None, typer.Option(help="Seeds, e.g. --seeds 0 1 2.")] = None
    ablations: Annotated[list[str] | None, typer.Option(help="Switches beside the full model, see 'show'.")] = None
    worlds: Annotated[
        list[World] | None, typer.Option("--worlds", "--world", help="Candidate pairs; for both: --worlds closed open.")
    ] = None
    profile: Annotated[Profile | None, typer.Option(help="The paper, or the released code's accidents.")] = None
    backbone: Annotated[str | None, typer.Option(help="CLIP, e.g. ViT-L-14-quickgelu/openai.")] = None
    short: Short = None
    backbone_config: Annotated[
        Path | None, typer.Option(help="JSON of what the weights file of --backbone was trained with.")
    ] = None
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs, instead of the preset's.")] = None
    views: Annotated[int | None, typer.Option(min=1, help="Train on so many augmented views of an image.")] = None
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set csp.lr=1e-3.")] = None
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; --set wins over it.")] = None
    precision: Precision = "auto"
    threads: Annotated[int, typer.Option(min=1, help="Of the processor; another number than 1 is another run.")] = 1

    def requests(self, suite: str) -> list[RunRequest]:
        """Return the runs of a suite with these changes; names are checked, and torch is not imported."""
        from benchmarks.runs.suites import expand, load_suite

        if self.backbone_config is not None and self.backbone is None:
            raise UserError(
                f"The configuration '{self.backbone_config}' was given without the weights that it describes.",
                "A configuration says what the weights in a file were trained with.",
                "Pass --backbone <model>/<weights file> with it.",
            )
        changed = load_suite(suite).replace(
            methods=several(self.methods),
            ablations=several(self.ablations),
            datasets=None if self.dataset is None else (self.dataset,),
            seeds=None if self.seeds is None else tuple(self.seeds),
            worlds=tuple(dict.fromkeys(world.value for world in self.worlds)) if self.worlds else None,
            profile=None if self.profile is None else self.profile.value,
            backbones=None if self.backbone is None else (self.weights(self.backbone),),
            short=self.short,
        )
        return expand(changed)

    def weights(self, backbone: str) -> str:
        """Return the name of a backbone, with the configuration of its weights file where one was given."""
        return with_configuration(backbone, self.backbone_config)

    def choices(self, results: Path) -> Choices:
        """Return what is chosen beside the names, for records in a folder."""
        return Choices(
            results=results,
            overrides=tuple(self.set_ or ()),
            config_file=self.config,
            epochs=self.epochs,
            views=self.views,
            precision=self.precision,
            threads=self.threads,
        )


def several(names: list[str] | None) -> str | tuple[str, ...] | None:
    """Return the names of a list option as a suite has them: "all" and "none" are words, no names at all is None."""
    if not names:
        return None
    return names[0] if names in (["all"], ["none"]) else tuple(names)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each field in place of every parameter that is a dataclass."""
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, type] = {}
    parameters: list[Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            bundles[name] = hints[name]
            parameters += _options(hints[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def from_options(**given: object) -> None:
        for name, bundle in bundles.items():
            given[name] = bundle(**{field.name: given.pop(field.name) for field in fields(bundle)})
        command(**given)

    # What Typer reads of a function.
    from_options.__dict__["__signature__"] = inspect.Signature(parameters)
    from_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return from_options


def _options(bundle: type) -> Iterator[Parameter]:
    hints = get_type_hints(bundle, include_extras=True)
    for field in fields(bundle):
        hint = hints[field.name]
        kind = hint if get_origin(hint) is Annotated else Annotated[hint, option_of(field)]
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
