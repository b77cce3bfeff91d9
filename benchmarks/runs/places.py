"""Where the files of a recorded run lie now: its weights by digest, and what its record does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runs.asked import OWN
from benchmarks.runs.open_world_settings import FILE_SOURCES
from benchmarks.runs.records import RunRecord
from datasets.cache import home
from errors import UserError
from methods.backbone_names import with_configuration
from registry import BACKBONES, DATASETS, METHODS

if TYPE_CHECKING:
    from methods.backbone.clip import Backbone


def load_backbone_of(run: RunRecord, asked: str) -> tuple[str, Backbone]:
    """Return (name to load it by, backbone) of a run, with the weights that the run had.

    A weights file is looked for where the run had it, in CZSL_HOME/weights, in CZSL_HOME and in the current folder.
    Weights that are not there, or others, are a `UserError` that begins with `asked`.
    """
    spec = run.spec
    if not _is_a_file(spec.backbone):
        backbone = BACKBONES.get(spec.backbone)()
        if backbone.digest == spec.backbone_digest:
            return spec.backbone, backbone
        there = (
            f"{spec.backbone} here has the digest {backbone.digest[:12]}, the run's had {spec.backbone_digest[:12]}."
        )
        raise UserError(asked, there, "Use the weights that the run was made with.")
    definition, _, name = spec.backbone.partition("/")
    found: list[str] = []
    looked = list(dict.fromkeys(path.absolute() for path in _places(run, name)))
    for path in filter(Path.is_file, looked):
        place = with_configuration(f"{definition}/{path}", recorded_configuration(run))
        try:
            backbone = BACKBONES.get(place)()
        except UserError as error:  # it may be another file of this name; the message says what was found
            found.append(f"At {path}: {error.asked.rstrip('.')}: {error.there.rstrip('.')}")
            continue
        if backbone.digest == spec.backbone_digest:
            return place, backbone
        found.append(f"{path} here has the digest {backbone.digest[:12]}")
    first = str(looked[0])
    raise UserError(
        asked,
        f"The weights '{name}' with the digest {spec.backbone_digest[:12]} are not at {first}"
        + "".join(f"; {what}" for what in found)
        + ".",
        f"Put that file there or into {home() / 'weights'}, with any configuration that lay beside it, or give the "
        "command in the folder that holds it.",
    )


def recorded_place(run: RunRecord) -> str | None:
    """Return the absolute path that the run's weights file had; None without a file, or in a record without it."""
    for start in reversed(run.starts):
        if file := (start["environment"].get("backbone") or {}).get("file"):
            return str(file)
    return None


def as_asked(run: RunRecord) -> str:
    """Return the name to ask for a run's backbone by: the recorded one, of a weights file with its folder."""
    recorded = recorded_place(run)
    if recorded is None:
        return run.spec.backbone if run.asked is None else run.asked.backbone
    definition, _, name = run.spec.backbone.partition("/")
    there = next((path.absolute() for path in _places(run, name) if path.is_file()), recorded)
    return with_configuration(f"{definition}/{there}", recorded_configuration(run))


def recorded_configuration(run: RunRecord) -> str | None:
    """Return the absolute path of the configuration that was named for the run's weights file, else None."""
    for start in reversed(run.starts):
        if file := (start["environment"].get("backbone") or {}).get("configuration"):
            return str(file)
    return None


def _is_a_file(name: str) -> bool:
    from methods.backbone.clip import load_backbone
    from methods.backbone.loading import names_a_file
    from methods.offers import COMMITTED

    return name not in COMMITTED and BACKBONES.serves(load_backbone, name) and names_a_file(name)


def _places(run: RunRecord, name: str) -> Iterator[Path]:
    place = recorded_place(run)
    if place is not None:
        yield Path(place)
    for folder in (home() / "weights", home(), Path()):
        yield folder / name


def unknown_places(run: RunRecord) -> list[tuple[str, str]]:
    """Return what a run needs whose place its record does not tell, each with the option that tells it, in words.

    Only older records, and those that were made for other machines, lack anything.
    """
    spec, lacking = run.spec, []
    if spec.external is not None:
        return []  # what is to be given again are files of scores, and any place does
    if run.asked is None:
        if spec.dataset.startswith(OWN):
            lacking.append((f"the images of {spec.dataset}", "--dataset <their folder or CSV file>"))
        if spec.backbone not in BACKBONES.names() and "." in spec.backbone.partition("/")[2]:  # no tag has a dot
            model = spec.backbone.partition("/")[0]
            lacking.append((f"the weights of {spec.backbone}", f"--backbone {model}/<path of the weights file>"))
        source = None if spec.open_world is None else spec.open_world.feasibility
        if source in FILE_SOURCES:
            what = "its word vectors" if source == "glove" else "its table of feasibility"
            lacking.append((what, f"--set feasibility={source}:<file>"))
        unknown = [
            f"the {kind} {name}"
            for kind, name, registry in (("method", spec.method, METHODS), ("data set", spec.dataset, DATASETS))
            if name not in registry.names() and not name.startswith(OWN)
        ]
        if unknown:
            lacking.append((f"the file that registers {' and '.join(unknown)}", "--plugin <that file>"))
    return lacking
