"""What is known of how a backbone's weights were trained: activation, mean and deviation of images, and who says so.

A pretrained tag says both. A file says what its digest (a known tag's), a configuration beside it, or OpenAI's marks in
it say; what nobody says is taken from the definition where that leaves no doubt, with a note, and else asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from methods.backbone.configuration import configuration_beside, require_same_model
from methods.backbone.weights_file import WeightsFile

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

KINDS = {True: "QuickGELU", False: "the exact GELU"}
RESIZING = {"resize_mode": "shortest", "interpolation": "bicubic"}
"""How images are brought to the model's size (`datasets/transforms.py`)."""


@dataclass(frozen=True)
class Origin:
    """How weights were trained, for the record of a run.

    activation: what the model computes, "QuickGELU" or "the exact GELU". mean, std: of images, per channel.
    activation_from, preprocessing_from: who says so, in words. file: absolute path of a weights file, else None.
    notes: sentences that a user should read.
    """

    activation: str
    activation_from: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing_from: str
    file: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """The fields that a record keeps, as JSON."""
        kept = {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, ())}
        return json.loads(json.dumps(kept, default=str))

    def digest(self, weights: str) -> str:
        """Return the digest of weights together with the preprocessing of a file, which its name does not say.

        It is that of the weights alone for a tag, and for a file with OpenAI's mean and deviation.
        """
        if self.file is None or (self.mean, self.std) == (OPENAI_MEAN, OPENAI_STD):
            return weights
        return hashlib.sha256(f"{weights} mean {self.mean} std {self.std}".encode()).hexdigest()


def of_random(config: Mapping[str, Any]) -> Origin:
    """Return the origin of random weights of a definition."""
    return Origin(KINDS[_quick(config)], "the definition", OPENAI_MEAN, OPENAI_STD, "open_clip's default")


def of_tag(config: Mapping[str, Any], source: Mapping[str, Any], definition: str, tag: str) -> Origin:
    """Return the origin of a pretrained tag; a definition with another activation is a `UserError`."""
    require_activation(_quick(source), config, definition, tag)
    said = f"the tag {tag}"
    mean, std = tuple(source["mean"]), tuple(source["std"])
    return Origin(KINDS[_quick(source)], said, mean, std, said, notes=tuple(_resized(source, f"{definition}/{tag}")))


def of_file(config: Mapping[str, Any], file: WeightsFile, definition: str, given: str) -> Origin:
    """Return the origin of a weights file used in a definition.

    given: the weights as they were asked for. A definition that contradicts what is known of the file, sources that
    contradict each other, a configuration that cannot be used, or a mean and deviation that nobody says, is a
    `UserError`.
    """
    import open_clip

    beside = configuration_beside(file.path)
    activations: dict[str, bool] = {}  # by who says so, the most certain first
    images: dict[str, Mapping[str, Any]] = {}
    notes: list[str] = []
    if file.tags:
        source = open_clip.get_pretrained_cfg(*file.tags[0])
        said = f"the tag {file.tags[0][1]}, whose file it is"
        activations[said], images[said] = _quick(source), source
    if beside is not None:
        place, content = beside
        model, asked = content.get("model_cfg") or {}, content["preprocess_cfg"]
        require_same_model(model, config, definition, place)
        if "quick_gelu" in model or "vision_cfg" in model:
            activations[place.name] = _quick(model)
        if "mean" in asked:
            _require_same_images(images, asked, file.path, place)
            images.setdefault(place.name, asked)
        else:
            notes += _resized(asked, place.name)
    if file.marked:
        activations["OpenAI's marks in the file"] = True
        images["OpenAI's marks in the file"] = {"mean": OPENAI_MEAN, "std": OPENAI_STD}

    if activations:
        said = _agreed(activations, file.path)
        require_activation(activations[said], config, definition, given, said)
    else:
        notes.append(_unknown_activation(config, definition, file.path))
    if images:
        from_whom, source = next(iter(images.items()))
        mean, std = tuple(source["mean"]), tuple(source["std"])
    else:
        mean, std, from_whom, source = _of_all_tags(definition, file.path)
        notes.append(f"Nothing beside '{file.path.name}' says how its images were normalised: as {from_whom}.")
    notes += _resized(source, from_whom)
    activation_from = next(iter(activations), "unknown: taken from the definition")
    return Origin(KINDS[_quick(config)], activation_from, mean, std, from_whom, file.path, tuple(notes))


def _agreed(activations: Mapping[str, bool], path: Path) -> str:
    """Return the first who says with which activation a file was trained; if another disagrees, it is a `UserError`."""
    first = next(iter(activations))
    for said, trained in activations.items():
        if trained != activations[first]:
            raise UserError(
                f"What is known of '{path.name}' does not agree on its activation.",
                f"By {first} it is {KINDS[activations[first]]}, by {said} it is {KINDS[trained]}.",
                "Mend quick_gelu in the configuration beside it.",
            )
    return first


def _require_same_images(
    images: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any], path: Path, at: Path
) -> None:
    """Raise `UserError` if a configuration asks for another mean or deviation than the tag whose file it is beside."""
    for said, source in images.items():
        for key in ("mean", "std"):
            if tuple(source[key]) != asked[key]:
                raise UserError(
                    f"What is known of '{path.name}' does not agree on how its images are normalised.",
                    f"By {said} {key} is {list(source[key])}, by {at} it is {list(asked[key])}.",
                    "Mend the configuration, or take it away.",
                )


def _unknown_activation(config: Mapping[str, Any], definition: str, path: Path) -> str:
    sibling, kinds = _sibling(definition, not _quick(config)), (KINDS[_quick(config)], KINDS[not _quick(config)])
    other = f", and '{sibling}' is for {kinds[1]}." if sibling else "."
    return f"Nothing says with which activation '{path.name}' was trained: '{definition}' computes {kinds[0]}{other}"


def require_activation(
    trained: bool, config: Mapping[str, Any], definition: str, weights: str, said: str | None = None
) -> None:
    """Refuse weights in a definition with another activation; open_clip only warns, and every feature changes.

    said: who says how they were trained, None for the tag that `weights` is.
    """
    if trained == _quick(config):
        return
    other = _sibling(definition, trained)
    raise UserError(
        f"The weights '{weights}' were trained with {KINDS[trained]}, but '{definition}' computes "
        f"{KINDS[not trained]}.",
        (f"That is known by {said}; " if said else "")
        + (f"open_clip defines the fitting model as '{other}'." if other else "open_clip has no fitting definition."),
        f"Pass '{other}/{weights}'." if other else "Choose other weights.",
    )


def _of_all_tags(definition: str, path: Path) -> tuple[tuple[float, ...], tuple[float, ...], str, Mapping[str, Any]]:
    """Return (mean, std, whose they are, how images are resized) where the tags of a definition agree on the first."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(definition)
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    resizing: dict[str, set[str]] = {key: set() for key in RESIZING}
    for tag in tags:
        source = open_clip.get_pretrained_cfg(definition, tag)
        found.setdefault((tuple(source["mean"]), tuple(source["std"])), []).append(tag)
        for key, values in resizing.items():
            values.add(source.get(key, RESIZING[key]))
    if len(found) == 1:
        ((mean, std),) = found
        said = f"all {len(tags)} pretrained tags of '{definition}'" if len(tags) > 1 else f"the tag {tags[0]}"
        return mean, std, said, {key: " or ".join(sorted(values)) for key, values in resizing.items()}
    kinds = [f"{list(mean)} and {list(std)} ({', '.join(own[:2])})" for (mean, std), own in found.items()]
    openai = json.dumps({"preprocess_cfg": {"mean": OPENAI_MEAN, "std": OPENAI_STD}})
    raise UserError(
        f"Nothing says with which mean and deviation of images '{path.name}' was trained.",
        f"The pretrained tags of '{definition}' have {'; or '.join(kinds)}."
        if kinds
        else f"open_clip has no pretrained tag of '{definition}' to take them from.",
        f"Put a file '{path.with_suffix('.json')}' beside it with what it was trained with, for OpenAI's {openai}.",
    )


def _resized(source: Mapping[str, Any], name: str) -> list[str]:
    """Return a note where weights were trained with images that were resized otherwise than here."""
    asked = [
        f"{key} '{source[key]}' instead of '{ours}'" for key, ours in RESIZING.items() if source.get(key, ours) != ours
    ]
    return [f"Images are resized otherwise than {name} asks: {' and '.join(asked)}."] if asked else []


def _sibling(definition: str, quick: bool) -> str | None:
    """Return the definition that differs in its activation alone; None where open_clip has none."""
    import open_clip

    name = f"{definition.removesuffix('-quickgelu')}{'-quickgelu' if quick else ''}"
    return name if name != definition and name in open_clip.list_models() else None


def _quick(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quick_gelu"))
