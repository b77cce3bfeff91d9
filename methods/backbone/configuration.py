"""The configuration beside a weights file: open_clip's own, as it lies in folders of Hugging Face.

It has the name of the weights, or that which open_clip gives it:

    model.safetensors + model.json, or + open_clip_config.json
    {"model_cfg": {"quick_gelu": true, ...}, "preprocess_cfg": {"mean": [...], "std": [...], "resize_mode": ...}}
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.resizing import Resizing
from errors import UserError

CONFIGURATION = "open_clip_config.json"

UNIMPORTANT = ("patch_dropout", "output_tokens", "timm_", "hf_", "tokenizer_mode", "attn_pooler_")
"""Beginnings of settings of a tower that change nothing in a ViT that is not trained."""


def configuration_of(path: Path, stated: Path | None = None) -> tuple[Path, Mapping[str, Any]] | None:
    """Return (path, content) of the configuration of a weights file; None without one.

    stated: the configuration that was named for it; else the one beside it. One that is not there is a `UserError`.
    mean, std and what it says of resizing are checked. One that is no configuration of open_clip is a `UserError`.
    """
    beside = (path.with_suffix(".json"), path.with_name(CONFIGURATION))
    place = next((p for p in beside if p.is_file()), None) if stated is None else stated
    if place is None:
        return None
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(place, path, f"It cannot be read as JSON ({error})") from error
    if isinstance(content, dict) and "embed_dim" in content:
        content = {"model_cfg": content}
    parts = ("model_cfg", "preprocess_cfg")
    if not isinstance(content, dict) or not any(isinstance(content.get(part), dict) for part in parts):
        raise _unusable(place, path, "It holds neither model_cfg nor preprocess_cfg")
    if any(not isinstance(content.get(part) or {}, dict) for part in parts):
        raise _unusable(place, path, "model_cfg and preprocess_cfg have to be JSON objects")
    if not isinstance((content.get("model_cfg") or {}).get("quick_gelu", False), bool):
        raise _unusable(place, path, "quick_gelu is neither true nor false")
    images = {key: value for key, value in (content.get("preprocess_cfg") or {}).items() if value is not None}
    if ("mean" in images) != ("std" in images):
        raise _unusable(place, path, "Of mean and std it has one alone")
    for key in ("mean", "std") if "mean" in images else ():
        images[key] = _channels(images[key], key == "std")
        if images[key] is None:
            raise _unusable(place, path, f"{key} is not three numbers{' above 0' if key == 'std' else ''}")
    try:
        Resizing.of(images)
    except ValueError as error:
        raise _unusable(place, path, str(error)) from error
    return place, {**content, "preprocess_cfg": images}


def require_same_model(theirs: Mapping[str, Any], ours: Mapping[str, Any], definition: str, place: Path) -> None:
    """Raise `UserError` if a configuration beside weights describes another model than the definition.

    Sections that it leaves out are not compared; a setting that a section leaves out has open_clip's default. The
    activation is not compared here.
    """
    said, defined = dict(_settings(theirs)), dict(_settings(ours))
    names = [name for name in said.keys() | defined.keys() if name.partition(".")[0] in theirs]
    differing = sorted(name for name in names if said.get(name) != defined.get(name))
    if differing:
        name, more = differing[0], len(differing) - 1
        raise UserError(
            f"The weights are not those of '{definition}'.",
            f"By {place} {name} is {said.get(name)}, and '{definition}' has {defined.get(name)}"
            + (f", and {more} more differ." if more else "."),
            "Name the open_clip model that the file was made with, or mend the configuration.",
        )


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a model configuration that change its numbers, by name, with open_clip's defaults."""
    import open_clip

    yield "embed_dim", config.get("embed_dim")
    for section, kind in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
        values: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(kind)} | dict(
            config.get(section) or {}
        )
        for name, value in values.items():
            important = not name.startswith(UNIMPORTANT) or name in ("timm_model_name", "hf_model_name")
            if important:
                square = name == "image_size" and isinstance(value, (list, tuple)) and len(set(value)) == 1
                yield f"{section}.{name}", (value[0] if square else value) or None


def _channels(value: Any, positive: bool) -> tuple[float, ...] | None:
    """Return three numbers from three numbers or one; None if it is something else."""
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        return None
    ok = all(math.isfinite(v) and (v > 0 or not positive) for v in values)
    return tuple(float(v) for v in values) if ok else None


def _unusable(place: Path, weights: Path, why: str) -> UserError:
    return UserError(
        f"The configuration {place} of the weights '{weights.name}' cannot be used.",
        f"{why}.",
        'Write {"model_cfg": {...}, "preprocess_cfg": {"mean": [...], "std": [...]}} as open_clip does, or rename it.',
    )
