"""The parts of a backbone's name: <model>/<tag, "random" or weights file>, and a configuration of the file.

ViT-L-14/w.pt::w_config.json      what --backbone ViT-L-14/w.pt --backbone-config w_config.json means
"""

from __future__ import annotations

from pathlib import Path

CONFIGURED_BY = "::"
"""What stands between a weights file and its configuration."""


def with_configuration(name: str, configuration: Path | str | None) -> str:
    """Return the name of a backbone whose weights file is described by a configuration that is not beside it."""
    return name if configuration is None else f"{name}{CONFIGURED_BY}{configuration}"


def split_configuration(weights: str) -> tuple[str, Path | None]:
    """Return (weights, configuration or None) of a backbone's name or of what follows the slash in it.

    >>> split_configuration("w.pt::w_config.json")[0], split_configuration("openai")
    ('w.pt', ('openai', None))
    """
    file, said, configuration = weights.partition(CONFIGURED_BY)
    return file, Path(configuration).expanduser() if said else None
