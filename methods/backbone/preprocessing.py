"""What configurations of open_clip say of a model's images: mean, deviation, resizing and size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.resizing import KEYS, USUAL, Resizing
from errors import UserError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

IMAGES = ("mean", "std", *KEYS)
"""What a configuration says of images."""


def require_same_images(
    images: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any], path: Path, at: Path, definition: str
) -> None:
    """Raise `UserError` if a configuration asks for other images than the tag whose file it is beside."""
    for said, source in images.items():
        for key in IMAGES:
            if key not in asked:
                continue
            if key in ("mean", "std"):
                how, theirs, own = "normalised", list(source[key]), list(asked[key])
            else:
                how, theirs = "resized", getattr(resizing_of(source, definition, said), key)
                own = getattr(resizing_of(asked, definition, str(at)), key)
            if theirs != own:
                raise UserError(
                    f"What is known of '{path.name}' does not agree on how its images are {how}.",
                    f"By {said} {key} is {theirs}, by {at} it is {own}.",
                    "Mend the configuration, or take it away.",
                )


def resizing_of(source: Mapping[str, Any], definition: str, said: str) -> Resizing:
    """Return how a configuration asks images to be resized; a way that is not known here is a `UserError`.

    said: whose configuration it is.
    """
    try:
        return Resizing.of(source)
    except ValueError as error:
        raise UserError(
            f"The images of '{definition}' cannot be resized as {said} asks.",
            f"There {error}.",
            "Choose other weights, or give them as a file with what they need beside it (docs/weights.md).",
        ) from error


def other_size(source: Mapping[str, Any], config: Mapping[str, Any], definition: str, name: str) -> list[str]:
    """Return a note where a configuration says another size than the model's, which counts, in open_clip as well."""
    own, asked = (
        value[0] if isinstance(value, (list, tuple)) else value
        for value in (config["vision_cfg"].get("image_size", 224), source.get("size"))
    )
    if asked in (None, own):
        return []
    return [f"Images are brought to the {own} pixels of '{definition}', not to the {asked} that {name} says."]


def of_all_tags(definition: str, path: Path, normalised: bool) -> tuple[str, Mapping[str, Any]]:
    """Return (whose it is, what they say) where the pretrained tags of a definition agree.

    normalised: on mean and deviation; else on how images are resized. Where they do not, or where there is no tag, it
    is a `UserError`.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(definition)
    found: dict[str, list[str]] = {}
    for tag in tags:
        source = open_clip.get_pretrained_cfg(definition, tag)
        resized = str(resizing_of(source, definition, f"the tag {tag}"))
        said = f"{list(source['mean'])} and {list(source['std'])}" if normalised else resized
        found.setdefault(said, []).append(tag)
    if len(found) == 1:
        said = f"all {len(tags)} pretrained tags of '{definition}'" if len(tags) > 1 else f"the tag {tags[0]}"
        return said, open_clip.get_pretrained_cfg(definition, tags[0])
    kinds = [f"{kind} ({', '.join(own[:2])})" for kind, own in found.items()]
    openai: dict[str, object] = {"mean": OPENAI_MEAN, "std": OPENAI_STD}
    if not normalised:
        openai |= {"resize_mode": USUAL.resize_mode, "interpolation": USUAL.interpolation}
    raise UserError(
        f"Nothing says with which mean and deviation of images '{path.name}' was trained."
        if normalised
        else f"Nothing says how the images were resized that '{path.name}' was trained with.",
        f"The pretrained tags of '{definition}' have {'; or '.join(kinds)}."
        if kinds
        else f"open_clip has no pretrained tag of '{definition}' to take them from.",
        f"Put a file '{path.with_suffix('.json')}' beside it with what it was trained with, for OpenAI's "
        f"{json.dumps({'preprocess_cfg': openai})}.",
    )
