"""What runs share: the device, the processes, loaded data sets, digests of weights, frozen features of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.empty_groups import check_not_empty
from benchmarks.evaluation.feasibility import feasibility
from benchmarks.running.choices import Choices, choose_device, choose_precision, one_thread, use_threads
from benchmarks.runs.spec import Precision
from datasets.base import CompositionDataset
from datasets.checking.presence import with_images_there
from datasets.feasibility import Feasibility
from datasets.places import hidden_path, plainly_a_path
from datasets.spelling import spelling_notes
from datasets.system import is_posix
from errors import UserError
from registry import BACKBONES, DATASETS

if TYPE_CHECKING:
    import torch

    from benchmarks.training.distributed import Group
    from benchmarks.training.frozen_features import FeatureStore
    from methods.backbone.clip import Backbone


@dataclass
class Workbench:
    """What runs share: the device, the processes, loaded data sets, digests of weights, frozen features of images.

    datasets: by the names that they were asked for by; so are backbones.
    backbone_digests: (name to record, digest of the weights).
    backbone_facts: where the weights of a backbone that was loaded come from, for records.
    notes: what a user should know of the plan.
    tables: of feasibility, by (data set, setting, backbone).
    """

    choices: Choices
    datasets: dict[str, CompositionDataset] = field(default_factory=dict)
    backbone_digests: dict[str, tuple[str, str]] = field(default_factory=dict)
    backbone_facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: dict[tuple[str, str, str], Feasibility] = field(default_factory=dict)
    device: torch.device = field(init=False)
    group: Group = field(init=False)
    precision: Precision = field(init=False)
    features: FeatureStore = field(init=False)

    def __post_init__(self) -> None:
        from benchmarks.training.distributed import own_device, start_group
        from benchmarks.training.frozen_features import FeatureStore

        if self.choices.how.workers and not is_posix():
            raise UserError(
                f"{self.choices.how.workers} processes that decode images were asked for.",
                "On Windows the process of the run decodes them itself.",
                "Pass --workers 0 or leave it out; the numbers are the same.",
            )
        self.features = FeatureStore(enabled=self.choices.how.feature_cache)
        self.device = own_device(choose_device(self.choices.how.device, self.choices.elsewhere))
        use_threads(self.device, self.choices.threads)
        self.group = start_group(self.device)
        self.precision = choose_precision(self.choices.precision, self.device)

    def dataset(self, name: str) -> CompositionDataset:
        """Return a data set, loaded (or prepared) once, with all its images there but for those that may be missing."""
        if name not in self.datasets:
            dataset: CompositionDataset = DATASETS.get(name)()
            if self.choices.how.allow_missing is not None:
                dataset = with_images_there(dataset, self.choices.how.allow_missing)
            check_not_empty(dataset)
            self.notes += [*dataset.notes, *spelling_notes(dataset.vocabulary)]
            if name in DATASETS.names():
                self._note(hidden_path(name, "data set"))
            self.datasets[name] = dataset
        return self.datasets[name]

    def backbone(self, name: str) -> Backbone:
        """Return a freshly loaded backbone; methods may change what they are given, so none is shared."""
        backbone: Backbone = BACKBONES.get(name)()
        self.backbone_digests[name] = (backbone.name, backbone.digest)
        origin = getattr(backbone, "origin", None)  # a plugin's backbone has none
        if origin is not None and name not in self.backbone_facts:
            self.backbone_facts[name] = origin.facts
            self.notes += origin.notes
        return backbone

    def backbone_identity(self, name: str) -> tuple[str, str]:
        """Return the (name to record, digest of the weights) of a backbone."""
        if name not in self.backbone_digests:
            self._note(hidden_weights(name))
            from methods.backbone.clip import load_backbone
            from methods.backbone.loading import identity

            known = identity(name) if BACKBONES.serves(load_backbone, name) else None
            if known is not None:
                self.backbone_digests[name] = known
            else:
                self.backbone(name)
        return self.backbone_digests[name]

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)

    def feasibility(self, dataset: str, setting: str, backbone: str) -> Feasibility:
        """Return a data set's feasibility scores from the source that a setting names."""
        key = (dataset, setting, backbone)
        if key not in self.tables:
            data = self.dataset(dataset)
            with one_thread():  # the processor makes it, for every device and number of threads
                self.tables[key] = feasibility(
                    data, setting, lambda: self.backbone_identity(backbone)[1], lambda: self.backbone(backbone)
                )
        return self.tables[key]


def hidden_weights(backbone: str) -> str:
    """Return a note on a tag of weights that was taken for one although a file here is called so too, else ""."""
    definition, _, weights = backbone.partition("/")
    if not weights or plainly_a_path(weights) or not Path(weights).is_file():
        return ""
    from methods.backbone.loading import weights_file

    tag = weights_file(backbone) is None
    return f"'{weights}' is taken for the tag; for the file write {definition}/./{weights}." if tag else ""
