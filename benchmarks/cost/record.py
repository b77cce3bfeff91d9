"""The record of a profile: what `profile.json` holds. Bytes, seconds, FLOPs; values are never rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.runs.files import write_aside, writing
from errors import UserError

SCHEMA = 1


class Part(BaseModel):
    """A frozen record that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Part):
    """What is measured. batch: images, for training and evaluation; 0 is each method's own. steps: timed ones."""

    methods: tuple[str, ...]
    backbone: str
    labels: str
    world: Literal["closed", "open"] = "closed"
    batch: int = 16
    steps: int = 3
    warmup: int = 1
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    flops_only: bool = False
    recompute: bool = False
    image: tuple[int, int] = (256, 256)
    plugins: tuple[str, ...] = ()


class Labels(Part):
    """Sizes of the label space. candidates: pairs that an image is scored against."""

    states: int
    objects: int
    train_pairs: int
    candidates: int
    train_images: int


class Flops(Part):
    """Counted FLOPs, 2 for a multiplication with its addition; only products of matrices, convolutions and attention.

    train_step: forward and backward of `batch` images against all training pairs; 0 where nothing is trained.
    eval_batch: features and scores of `batch` images against all candidates. prepare: the text of all candidates, once
    per evaluation. parts: see `parts.py`. train_image, eval_image: for one image. train_epoch: of all training images.
    """

    train_step: int
    train_parts: dict[str, int]
    eval_batch: int
    eval_parts: dict[str, int]
    prepare: int
    train_image: float
    eval_image: float
    train_epoch: float


class Estimate(Part):
    """Bytes that `memory_estimate.py` foresees. training, evaluation: the fullest moment of each, weights included."""

    weights: int
    training: int
    evaluation: int


class Spread(Part):
    """Seconds of repeated measurements: the median, the least and the most."""

    median: float
    least: float
    most: float
    count: int


class Timing(Part):
    """What was measured. step: a training step, None where nothing is trained. evaluation: a batch of images.

    step_parts, eval_parts: seconds by part, of steps with a meter in them (medians, scaled by nothing); metered_step:
    the median of such steps. memory_base: bytes in use before the method was built; memory_training,
    memory_evaluation: bytes above that at the fullest moment, None where the system does not tell.
    """

    step: Spread | None
    step_parts: dict[str, float]
    metered_step: float | None
    evaluation: Spread
    eval_parts: dict[str, float]
    prepare: float
    memory_base: int | None
    memory_training: int | None
    memory_evaluation: int | None


class Row(Part):
    """A method. error: why a number is missing, in a sentence. epochs: of its preset."""

    method: str
    batch: int
    preset_batch: int
    epochs: int
    parameters: int | None = None
    flops: Flops | None = None
    estimate: Estimate | None = None
    timing: Timing | None = None
    error: str = ""


class Decoding(Part):
    """Decoding and transforming JPEG images by one process. width, height: pixels of the files; bytes: of one file."""

    width: int
    height: int
    bytes: int
    augmentation: str
    images_per_second: float
    images: int


class Profile(Part):
    """Everything. backbone: the backbone alone, `backbone_only.py`."""

    schema_version: int = SCHEMA
    settings: Settings
    labels: Labels
    environment: dict[str, Any]
    command: tuple[str, ...] = ()
    backbone: Row
    rows: tuple[Row, ...]
    decoding: Decoding | None = None

    def write(self, path: Path) -> None:
        """Write the record as JSON; missing folders are made. A `UserError` where it cannot be written."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        text = self.model_dump_json(indent=1) + "\n"
        write_aside(path, lambda file: file.write(text.encode()))

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read what `write` wrote; a file that is none is a `UserError`."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise UserError(
                f"'{path}' is no profile.",
                f"{type(error).__name__}: {str(error).splitlines()[0]}.",
                "Pass a profile.json that 'python bench.py cost' wrote.",
            ) from error
