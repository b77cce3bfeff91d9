"""What is known of how a backbone's weights were trained: activation and images, and who says so.

A pretrained tag says all of it. A file says what its digest (a known tag's), a configuration beside it, or OpenAI's
marks in it say; what nobody says is taken from the definition where that leaves no doubt, with a note, and else asked
for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.resizing import KEYS, USUAL, Resizing
from errors import UserError
from methods.backbone.configuration import configuration_of, require_same_model
from methods.backbone.preprocessing import (
    OPENAI_MEAN,
    OPENAI_STD,
    of_all_tags,
    other_size,
    require_same_images,
    resizing_of,
)
from methods.backbone.weights_file import WeightsFile

KINDS = {True: "QuickGELU", False: "the exact GELU"}


@dataclass(frozen=True)
class Origin:
    """How weights were trained, for the record of a run.

    activation: what the model computes, "QuickGELU" or "the exact GELU", or that towers have those of their definition.
    mean, std: of images, per channel.
    resizing: how images are brought to the model's size.
    activation_from, preprocessing_from: who says so, in words.
    resizing_from: who says how images are resized, where that is somebody else than `preprocessing_from`, else None.
    file: absolute path of a weights file, else None.
    configuration: absolute path of the configuration that was named for it, None where nobody named one.
    notes: sentences that a user should read.
    """

    activation: str
    activation_from: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing_from: str
    file: Path | None = None
    notes: tuple[str, ...] = ()
    resizing: Resizing = USUAL
    resizing_from: str | None = None
    configuration: Path | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The fields that a record keeps, as JSON; the usual way of resizing is not written down."""
        kept = {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, ())}
        kept["resizing"] = self.resizing.configuration()
        if self.resizing == USUAL:
            del kept["resizing"]
        return json.loads(json.dumps(kept, default=str))

    def digest(self, weights: str) -> str:
        """Return the digest of weights together with the preprocessing that their name does not say.

        It is that of the weights alone where images are resized as for OpenAI's weights, and are normalised as for
        these or as a tag says. The tags that are resized otherwise have another digest than in records of the time
        when all were resized alike.
        """
        named = self.file is None or (self.mean, self.std) == (OPENAI_MEAN, OPENAI_STD)
        text = weights + ("" if named else f" mean {self.mean} std {self.std}")
        text += "" if self.resizing == USUAL else f" resized {self.resizing}"
        return weights if text == weights else hashlib.sha256(text.encode()).hexdigest()


def of_random(config: Mapping[str, Any]) -> Origin:
    """Return the origin of random weights of a definition."""
    return Origin(_activation(config), "the definition", OPENAI_MEAN, OPENAI_STD, "open_clip's default")


def of_tag(config: Mapping[str, Any], source: Mapping[str, Any], definition: str, tag: str) -> Origin:
    """Return the origin of a pretrained tag; another activation of the definition, or a resizing that is not known
    here, is a `UserError`.
    """
    require_activation(_quick(source), config, definition, tag)
    said = f"the tag {tag}"
    mean, std = tuple(source["mean"]), tuple(source["std"])
    resizing = resizing_of(source, definition, said)
    notes = tuple(other_size(source, config, definition, said))
    return Origin(_activation(config), said, mean, std, said, notes=notes, resizing=resizing)


def of_file(
    config: Mapping[str, Any], file: WeightsFile, definition: str, given: str, stated: Path | None = None
) -> Origin:
    """Return the origin of a weights file used in a definition.

    given: the weights as they were asked for. stated: a configuration that was named for it, which counts in place of
    one beside it. A definition that contradicts what is known of the file, sources that
    contradict each other, a configuration that cannot be used, or a preprocessing that nobody says, is a
    `UserError`.
    """
    import open_clip

    beside = configuration_of(file.path, stated)
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
        require_same_images(images, asked, file.path, place, definition)
        images[place.name] = asked
        notes += other_size(asked, config, definition, place.name)
    if file.marked:
        activations["OpenAI's marks in the file"] = True
        images["OpenAI's marks in the file"] = {"mean": OPENAI_MEAN, "std": OPENAI_STD}

    if activations:
        said = _agreed(activations, file.path)
        require_activation(activations[said], config, definition, given, said)
    else:
        notes.append(_unknown_activation(config, definition, file.path))
    # Who says the mean says by that how images are resized too: what is left out has open_clip's default.
    normalised = next(((said, source) for said, source in images.items() if "mean" in source), None)
    resized = next(((said, source) for said, source in images.items() if source.keys() & {"mean", *KEYS}), None)
    if normalised is None:
        normalised = of_all_tags(definition, file.path, normalised=True)
        how = "normalised" if resized else "normalised and resized"
        notes.append(f"Nothing beside '{file.path.name}' says how its images were {how}: as {normalised[0]}.")
    if resized is None:
        resized = of_all_tags(definition, file.path, normalised=False)
    from_whom, source = normalised
    return Origin(
        _activation(config),
        next(iter(activations), "unknown: taken from the definition"),
        tuple(source["mean"]),
        tuple(source["std"]),
        from_whom,
        file.path,
        tuple(notes),
        resizing_of(resized[1], definition, resized[0]),
        None if resized[0] == from_whom else resized[0],
        None if stated is None else stated.absolute(),
    )


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


def _unknown_activation(config: Mapping[str, Any], definition: str, path: Path) -> str:
    sibling, kinds = _sibling(definition, not _quick(config)), (_activation(config), KINDS[not _quick(config)])
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


def _sibling(definition: str, quick: bool) -> str | None:
    """Return the definition that differs in its activation alone; None where open_clip has none."""
    import open_clip

    name = f"{definition.removesuffix('-quickgelu')}{'-quickgelu' if quick else ''}"
    return name if name != definition and name in open_clip.list_models() else None


def _activation(config: Mapping[str, Any]) -> str:
    """Return what a definition computes, in words: a timm tower has activations of its own, whatever the text has."""
    own = config["vision_cfg"].get("timm_model_name") or any(
        config[side].get("act_kwargs") for side in ("vision_cfg", "text_cfg")
    )
    return "that of the definition" if own else KINDS[_quick(config)]


def _quick(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quick_gelu"))
