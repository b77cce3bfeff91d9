"""Which runs are asked for: suites in `benchmarks/suites/*.toml` and their expansion into single runs.

A request is light: names and a seed. What makes it a `RunSpec` (resolved settings, digests of data and weights) is
added when the run is prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from benchmarks.runs.settings import read_toml
from benchmarks.runs.spec import Profile
from datasets.base import World
from datasets.seen_mark import MARK
from errors import UserError, did_you_mean
from registry import BACKBONES, DATASETS, METHODS

SUITES = Path(__file__).parents[1] / "suites"


@dataclass(frozen=True)
class RunRequest:
    """One run by its names. short: with the presets' short training instead of the reference's."""

    method: str
    dataset: str
    backbone: str
    world: World
    profile: Profile
    seed: int
    ablation: str | None = None
    short: bool = False

    @property
    def changes(self) -> Mapping[str, Any]:
        """The settings that the ablation switches."""
        declared = {ablation.name: ablation.changes for ablation in METHODS.get(self.method).info.ablations}
        return {} if self.ablation is None else declared[self.ablation]


class Suite(BaseModel):
    """A named set of runs: every combination of the lists, and the runs of further parts.

    methods: "all" is every registered method.
    seen_shares: run each data set with these shares of its pairs seen as well, see `datasets.seen_share`.
    ablations: switches to run beside each method's full model; "all" is every switch that the method declares.
    short: train with the presets' short settings, where a data set has them: minutes, and no ranking to go by.
    also: further parts, each a suite of its own. A run that several parts ask for is made once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    methods: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    datasets: tuple[str, ...] = Field(("icon_states",), min_length=1)
    seen_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    backbones: tuple[str, ...] = Field(("tiny-icons",), min_length=1)
    worlds: tuple[World, ...] = Field(("closed",), min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    profile: Profile = "clean"
    ablations: Literal["none", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "none"
    short: bool = False
    also: tuple[Suite, ...] = ()

    def replace(self, **changes: Any) -> Suite:
        """Return the suite with other values, checked; a change to None leaves what is there.

        The changes are made in the parts of `also` too, with two exceptions. Of the methods asked for, a part keeps
        those that it has. A part is dropped where it has none of these methods, another profile, or not all of the
        worlds asked for.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        changed = _checked({**self.model_dump(exclude={"also"}), **given}, "the command line")
        parts = (part.replace(**_of_part(part, given)) for part in self.also if _is_of(part, given))
        return changed.model_copy(update={"also": tuple(parts)})


def suite_names(folder: Path = SUITES) -> list[str]:
    """Return the names of the suites, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_suite(name: str, folder: Path = SUITES) -> Suite:
    """Return a suite by name; an unknown name or a wrong file is a `UserError`."""
    names = suite_names(folder)
    if name not in names:
        raise UserError(
            f"No suite is called '{name}'.",
            f"The suites are {', '.join(names)}.",
            did_you_mean(name, names) or "Choose one of these.",
        )
    path = folder / f"{name}.toml"
    return _checked(read_toml(path), f"{folder.name}/{path.name}")


def expand(suite: Suite) -> list[RunRequest]:
    """Return the runs of a suite, each once; a name that is not registered is a `UserError`.

    Seeds come outermost, so that a suite broken off half-way has compared all methods on the first seeds.
    """
    methods = _methods(suite)
    shares = ["", *(f"{MARK}{share:g}" for share in sorted(suite.seen_shares, reverse=True))]
    datasets = [f"{dataset}{share}" for dataset in suite.datasets for share in shares]
    for registry, names in ((METHODS, methods), (DATASETS, datasets), (BACKBONES, suite.backbones)):
        for name in names:
            registry.check(name)
    switches = {method: _switches(method, suite.ablations) for method in methods}
    combinations = product(suite.seeds, datasets, suite.backbones, suite.worlds, methods)
    requests = [
        RunRequest(method, dataset, backbone, world, suite.profile, seed, ablation, suite.short)
        for seed, dataset, backbone, world, method in combinations
        for ablation in switches[method]
    ]
    return list(dict.fromkeys([*requests, *(request for part in suite.also for request in expand(part))]))


def _methods(suite: Suite) -> list[str]:
    return METHODS.names() if "all" in suite.methods else list(suite.methods)


def _of_part(part: Suite, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes that a part of a suite takes over: of the methods those that it has."""
    wanted = given.get("methods", "all")
    own = [name for name in _methods(part) if "all" in wanted or name in wanted]
    return {**given, "methods": own} if "methods" in given else dict(given)


def _is_of(part: Suite, given: Mapping[str, Any]) -> bool:
    """Return whether a part has any run of those that changes ask for."""
    return (
        bool(_of_part(part, given).get("methods", True))
        and given.get("profile", part.profile) == part.profile
        and set(given.get("worlds", part.worlds)) <= set(part.worlds)
    )


def _switches(method: str, wanted: str | tuple[str, ...]) -> list[str | None]:
    """Return None, the full model, and the names of the ablations wanted; an unknown name is a `UserError`."""
    if wanted == "none":
        return [None]
    declared = [ablation.name for ablation in METHODS.get(method).info.ablations]
    for name in () if wanted == "all" else wanted:
        if name not in declared:
            raise UserError(
                f"The method {method} has no ablation '{name}'.",
                f"It has {', '.join(declared) or 'none'}.",
                did_you_mean(name, declared) or "Choose among these.",
            )
    return [None, *(declared if wanted == "all" else wanted)]


def _checked(content: dict[str, Any], where: str) -> Suite:
    for key in content:
        if key not in Suite.model_fields:
            raise UserError(
                f"A suite has no key '{key}' (from {where}).",
                f"The keys are {', '.join(Suite.model_fields)}.",
                did_you_mean(key, Suite.model_fields) or "Leave it out.",
            )
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"The value {first['input']!r} of '{first['loc'][0]}' in a suite (from {where}) is refused.",
            f"{first['msg']}.",
            "Give another value.",
        ) from error
