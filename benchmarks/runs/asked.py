"""What a run was asked for by words that its identity does not hold: where its data, weights and word vectors lie.

A specification knows data, weights and word vectors by name and digest, so that the same files elsewhere are the same
run. Whoever does the run again has to say where they lie; a record keeps that beside each start, outside of the digest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from benchmarks.runs.open_world_settings import FILE_SOURCES
from methods.backbone_names import split_configuration, with_configuration
from registry import BACKBONES, DATASETS

OWN = "folder:"
"""What the names of own images begin with."""


class Asked(BaseModel):
    """What the command line said of a run. Every path is absolute; links in it are kept as they were named.

    dataset: the name of a data set, a folder or a CSV file.
    backbone: a name, with the path of the weights where these are a file.
    feasibility: the setting of that name in the open world, "none" in the closed one.
    allow_missing: up to how many missing images were allowed.
    plugins: files of `--plugin`.
    checkpoint: the file that the weights were imported from, None where the run trains its own.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    backbone: str
    feasibility: str = "none"
    allow_missing: int = 0
    plugins: tuple[str, ...] = ()
    checkpoint: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_imported(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = handler(self)
        if content.get("checkpoint", "") is None:
            del content["checkpoint"]
        return content


class Named(Protocol):
    """A planned run, as far as its words go; see `Asked` for what they mean."""

    @property
    def dataset(self) -> str: ...

    @property
    def backbone(self) -> str: ...

    @property
    def feasibility(self) -> str: ...

    @property
    def checkpoint(self) -> Path | None: ...


def asked_of(planned: Named, allow_missing: int | None, plugins: Sequence[Path]) -> Asked:
    """Return what was asked for a planned run, with absolute paths."""
    from datasets import is_path

    dataset, feasibility = planned.dataset, planned.feasibility
    source, colon, file = feasibility.partition(":")
    if colon and source in FILE_SOURCES:
        feasibility = f"{source}:{absolute(file)}"
    return Asked(
        dataset=absolute(dataset) if dataset not in DATASETS.names() and is_path(dataset) else dataset,
        backbone=_with_absolute_weights(planned.backbone),
        feasibility=feasibility,
        allow_missing=allow_missing or 0,
        plugins=tuple(absolute(path) for path in plugins),
        checkpoint=None if planned.checkpoint is None else absolute(planned.checkpoint),
    )


def absolute(path: str | Path) -> str:
    """Return a path from the root, "~" resolved and links kept as they are named."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would replace links


def _with_absolute_weights(backbone: str) -> str:
    """Return a backbone's name with the path of its weights from the root, where they are a file."""
    from methods.backbone.loading import weights_file

    file = None if backbone in BACKBONES.names() else weights_file(backbone)
    if file is None:
        return backbone
    definition, _, weights = backbone.partition("/")
    _, stated = split_configuration(weights)
    return with_configuration(f"{definition}/{absolute(file)}", None if stated is None else absolute(stated))
