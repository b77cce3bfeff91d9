"""What a run was asked for by words that its identity does not hold: where its data, weights and word vectors lie.

A specification knows data, weights and word vectors by name and digest, so that the same files elsewhere are the same
run. Whoever does the run again has to say where they lie; a record keeps that beside each start, outside of the digest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from benchmarks.running.execute import PlannedRun
    from benchmarks.runs.records import RunRecord

OWN = "folder:"
"""What the names of own images begin with."""

VECTORS = "glove:"
"""What stands before the file in a feasibility setting that names one."""


class Asked(BaseModel):
    """What the command line said of a run. Every path is absolute; links in it are kept as they were named.

    dataset: the name of a data set, a folder or a CSV file.
    backbone: a name, with the path of the weights where these are a file.
    feasibility: the setting of that name in the open world, "none" in the closed one.
    allow_missing: up to how many missing images were allowed.
    plugins: files of `--plugin`.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    backbone: str
    feasibility: str = "none"
    allow_missing: int = 0
    plugins: tuple[str, ...] = ()


def asked_of(planned: PlannedRun, allow_missing: int | None, plugins: Sequence[Path]) -> Asked:
    """Return what was asked for a planned run, with absolute paths."""
    from datasets import is_path

    dataset, feasibility = planned.dataset, planned.feasibility
    if feasibility.startswith(VECTORS):
        feasibility = VECTORS + absolute(feasibility.removeprefix(VECTORS))
    return Asked(
        dataset=absolute(dataset) if dataset not in DATASETS.names() and is_path(dataset) else dataset,
        backbone=_with_absolute_weights(planned.backbone),
        feasibility=feasibility,
        allow_missing=allow_missing or 0,
        plugins=tuple(absolute(path) for path in plugins),
    )


def unknown_places(run: RunRecord) -> list[tuple[str, str]]:
    """Return what a run needs whose place its record does not tell, each with the option that tells it, in words.

    Only older records, and those that were made for other machines, lack anything.
    """
    spec, lacking = run.spec, []
    if run.asked is None:
        if spec.dataset.startswith(OWN):
            lacking.append((f"the images of {spec.dataset}", "--dataset <their folder or CSV file>"))
        if spec.backbone not in BACKBONES.names() and "." in spec.backbone.partition("/")[2]:  # no tag has a dot
            model = spec.backbone.partition("/")[0]
            lacking.append((f"the weights of {spec.backbone}", f"--backbone {model}/<path of the weights file>"))
        if spec.open_world is not None and spec.open_world.feasibility == "glove":
            lacking.append(("its word vectors", "--set feasibility=glove:<file>"))
        unknown = [
            f"the {kind} {name}"
            for kind, name, registry in (("method", spec.method, METHODS), ("data set", spec.dataset, DATASETS))
            if name not in registry.names() and not name.startswith(OWN)
        ]
        if unknown:
            lacking.append((f"the file that registers {' and '.join(unknown)}", "--plugin <that file>"))
    return lacking


def absolute(path: str | Path) -> str:
    """Return a path from the root, "~" resolved and links kept as they are named."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would replace links


def _with_absolute_weights(backbone: str) -> str:
    """Return a backbone's name with the path of its weights from the root, where they are a file."""
    from methods.backbone.loading import weights_file

    file = None if backbone in BACKBONES.names() else weights_file(backbone)
    return backbone if file is None else f"{backbone.partition('/')[0]}/{absolute(file)}"
