"""What makes a run's numbers: the training settings, the full specification, and its digest, the run's identity.

Everything here is a frozen record that refuses unknown keys. Where the values come from is in `settings.py`, and which
runs a suite asks for in `suites.py`. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from benchmarks.runs.open_world_settings import OpenWorld
from datasets.base import World

SCHEMA_VERSION = 1
"""Version of the files in a run folder. Raise it when an older reader or an older file would be misunderstood."""

PROTOCOL_VERSION = 1
"""Version of data handling and evaluation. Raise it when the same settings give other numbers than before."""

LATER_SETTINGS = {"clip_norm": None, "views": None, "selection_batch": None}
"""Training settings that came after records were made, with the value at which a run is what it was before them."""

EXTERNAL = "external:"
"""What the names of methods begin with that were not run here, whose scores came from files."""

NOT_KNOWN = "not known"
"""What a record says of a backbone or its weights that nobody named."""

Profile = Literal["clean", "official"]
Precision = Literal["fp32", "bf16", "fp16"]
Selection = Literal["val_auc", "val_hm", "val_unseen", "val_loss", "last_batch_loss", "last"]


class TrainingConfig(BaseModel):
    """Settings of the training loop, the same for every method. The defaults are here and nowhere else.

    batch_size: images of one optimizer step
    micro_batch: images that go through the network at once, their gradients accumulated (None, or more than there are:
        the whole batch). The sum is the same except where images of a batch influence each other: BatchNorm takes its
        statistics from a micro-batch, and so does a method that mixes images. So it belongs to a run's identity.
    optimizer: "adam" couples its weight decay, "early_adamw" is the AdamW of MSCI's released code (`optimizers.py`)
    clip_norm: largest L2 norm of the gradient of all trained tensors, None clips nothing
    step_size, gamma: epochs and factor of the "step" scheduler, which alone reads them
    selection: the rule by which validation chooses the epoch that counts
    augmentation: what is done to training images, see `datasets/transforms.py`
    selection_batch: images of a validation batch, of which "last_batch_loss" reads the last; None is batch_size
    views: K keeps to the augmented views of the first K epochs, epoch e takes those of epoch e mod K, so that their
        frozen features can be kept; None draws new ones in every epoch
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(20, ge=0)
    batch_size: int = Field(128, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    optimizer: Literal["adam", "adamw", "early_adamw"] = "adam"
    lr: float = Field(5e-5, ge=0)
    weight_decay: float = Field(1e-5, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    scheduler: Literal["constant", "step"] = "constant"
    step_size: int = Field(5, ge=1)
    gamma: float = Field(0.5, gt=0)
    selection: Selection = "val_auc"
    selection_batch: int | None = Field(None, ge=1)
    augmentation: Literal["clip", "crop", "none"] = "clip"
    views: int | None = Field(None, ge=1)

    @field_validator("views")
    @classmethod
    def _views_of_augmented_images(cls, views: int | None, info: ValidationInfo) -> int | None:
        if views is not None and info.data.get("augmentation") == "none":
            raise ValueError("an image has one view only where augmentation is none")
        return views

    @field_validator("micro_batch")
    @classmethod
    def _whole_micro_batches(cls, micro_batch: int | None, info: ValidationInfo) -> int | None:
        batch_size = info.data.get("batch_size")
        if micro_batch is None or batch_size is None:
            return micro_batch
        if micro_batch >= batch_size:
            return None  # the whole batch: one spelling, one identity
        if batch_size % micro_batch != 0:
            raise ValueError(f"it does not divide batch_size, which is {batch_size}")
        return micro_batch


class External(BaseModel):
    """The files that the scores of a record came from, where nothing was run: SHA-256 of each.

    test, val: the score matrices; val is None without validation scores.
    orders: of the lists that name rows and columns of either, in the order of the command line's options; "" where the
    order is the suite's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    test: str
    val: str | None = None
    orders: tuple[str, ...] = ()


class RunSpec(BaseModel):
    """All that changes a run's numbers, and nothing else: no paths, worker counts, devices or dates.

    method_config: the resolved value of every setting of the method.
    dataset_digest, backbone_digest: other data, or other weights, under the same name make another run.
    open_world: None in the closed world, and in the open world where every pair is kept.
    imported: hexadecimal SHA-256 of the checkpoint that the weights were read from, None where the run trains its own;
        nothing is known then of how they were trained.
    external: None where the suite ran the method itself. Where it is not, no setting is known: method_config is empty,
        training says nothing, and backbone and seed are what the user stated.
    threads: of a processor that computes the run; sums round otherwise with another number. Records that were made
        before it was fixed say 1 here, and in their environment what it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    protocol_version: int = PROTOCOL_VERSION
    method: str
    method_config: dict[str, JsonValue]
    training: TrainingConfig
    dataset: str
    dataset_digest: str
    backbone: str
    backbone_digest: str
    world: World = "closed"
    profile: Profile = "clean"
    seed: int = Field(0, ge=0)
    precision: Precision = "fp32"
    ablation: str | None = None
    open_world: OpenWorld | None = None
    threads: int = Field(1, ge=1)
    imported: str | None = None
    external: External | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is not used: the record of a run stays what it was."""
        content: dict[str, Any] = handler(self)
        for key in ("imported", "external"):
            if content.get(key, "") is None:
                del content[key]
        return content

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of the canonical JSON of all fields but unused `LATER_SETTINGS`.

        `open_world` and `threads` are such fields too: without them a run is what it was before there were thresholds
        and a choice of threads.
        """
        content = self.model_dump(mode="json")
        if content["open_world"] is None:
            del content["open_world"]
        if content["threads"] == 1:
            del content["threads"]
        for key, value in LATER_SETTINGS.items():
            if content["training"][key] == value:
                del content["training"][key]
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @property
    def has_weights(self) -> bool:
        """Whether the run trains, or was given weights that were trained elsewhere."""
        return self.training.epochs > 0 or self.imported is not None

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Every setting by its name, as JSON values: of training, of an open world with a threshold, of the method.

        None of scores that came from files.
        """
        if self.external is not None:
            return {}
        values = self.training.model_dump(mode="json")
        if self.open_world is not None:
            values |= self.open_world.model_dump(mode="json", exclude={"feasibility_digest"})
        return {**values, **self.method_config}

    @property
    def run_id(self) -> str:
        """Name of the run and of its folder: readable parts first, then the start of the digest, which decides."""
        parts = [self.method, self.dataset, self.backbone, self.world, self.profile]
        if self.ablation is not None:
            parts.append(self.ablation)
        if self.imported is not None:
            parts.append("imported")
        readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part)[:40].strip("-") for part in parts)
        return f"{readable}-s{self.seed}-{self.digest()[:10]}"


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, ASCII, shortest exact floats, no NaN.

    >>> canonical_json({"b": 1e-3, "a": [True, None]})
    '{"a":[true,null],"b":0.001}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
