"""How pictures are brought to a model's size: what a configuration of open_clip says of it, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

ResizeMode = Literal["shortest", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

KEYS = ("resize_mode", "interpolation", "fill_color")
"""Names of the settings in a configuration of open_clip."""


@dataclass(frozen=True)
class Resizing:
    """How a picture becomes a square of the model's size.

    resize_mode: "shortest" brings the shorter side to the size and cuts out the centre; "longest" brings the longer
        side to the size and fills up the rest on both sides; "squash" brings both sides to the size.
    interpolation: of all three, with antialiasing as Pillow does it.
    fill_color: 0 to 255, of all three channels, before they are normalised; for "longest" alone.
    margin: for "shortest" alone, how many times the size the shorter side becomes before the centre is cut out. No
        configuration of open_clip says it.

    The defaults are open_clip's, and OpenAI's.
    """

    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill_color: int = 0
    margin: float = 1.0

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Resizing:
        """Return what a pretrained configuration of open_clip asks for; what it leaves out has open_clip's default.

        "random", an interpolation of training in open_clip, is bicubic in its evaluation, and here. A value that
        open_clip has not is a ValueError that says so in a sentence without its full stop.
        """
        said = {key: configuration[key] for key in (*KEYS, "mode") if configuration.get(key) is not None}
        if said.pop("mode", "RGB") != "RGB":
            raise ValueError(f"mode is {configuration['mode']!r}, and pictures are 'RGB' here")
        if said.get("interpolation") == "random":
            said["interpolation"] = "bicubic"
        for key, kind in (("resize_mode", ResizeMode), ("interpolation", Interpolation)):
            if key in said and said[key] not in get_args(kind):
                *first, last = (f"'{value}'" for value in get_args(kind))
                raise ValueError(f"{key} is {said[key]!r}, and can be {', '.join(first)} or {last}")
        fill = said.get("fill_color", 0)
        if isinstance(fill, bool) or not isinstance(fill, int) or not 0 <= fill <= 255:
            raise ValueError(f"fill_color is {fill!r}, and can be a whole number from 0 to 255")
        return cls(cast(ResizeMode, said.get("resize_mode", "shortest")), said.get("interpolation", "bicubic"), fill)

    def configuration(self) -> dict[str, Any]:
        """Return what `of` reads, by open_clip's names; `margin` has none."""
        return {key: getattr(self, key) for key in KEYS}

    def __str__(self) -> str:
        filled = f", filled up with {self.fill_color}" if self.resize_mode == "longest" else ""
        cut = f", {self.margin:.3g} times the size" if self.margin != 1 else ""
        return f"{self.resize_mode}, {self.interpolation}{filled}{cut}"


USUAL = Resizing()
"""What OpenAI's weights, and most others, were trained with."""
