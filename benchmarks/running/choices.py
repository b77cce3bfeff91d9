"""What the command line chose beside the names of runs, how they are to be computed, and the device that means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from benchmarks.runs.spec import Precision
from errors import UserError

if TYPE_CHECKING:
    import torch

OnExisting = Literal["resume", "skip", "redo"]


@dataclass(frozen=True)
class How:
    """How runs are computed; nothing here is part of a run's identity.

    A field is an option of the command line, of the name, help and least number that its metadata gives, and an entry
    of job files: adding one takes a field here and the place that uses it.

    device: "auto" or torch's name.
    workers: None chooses by the device.
    recompute: see `Backbone.recompute`.
    allow_missing: None does not look for images.
    track: what draws curves of the training, None for nothing.
    """

    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps."})
    workers: int | None = field(default=None, metadata={"help": "Processes that decode images.", "min": 0})
    recompute: bool = field(default=False, metadata={"help": "Save memory: compute activations again in backward."})
    compiled: bool = field(
        default=False, metadata={"help": "Have torch.compile make the training step.", "name": "--compile"}
    )
    feature_cache: bool = field(default=True, metadata={"help": "Keep frozen image features on disk."})
    allow_missing: int | None = field(default=0, metadata={"help": "Leave out up to so many missing images.", "min": 0})
    track: str | None = field(default=None, metadata={"help": "Draw curves of the training: tensorboard."})

    def __post_init__(self) -> None:
        if self.track not in (None, "tensorboard"):
            raise UserError(
                f"Nothing is called '{self.track}' that draws curves.",
                "There is tensorboard.",
                "Pass --track tensorboard.",
            )


@dataclass(frozen=True)
class Choices:
    """What the command line chose beside the names. None leaves the preset's or the default's value.

    results: folder of the records.
    overrides: texts of `--set`.
    config_file: TOML file of settings.
    epochs: of training.
    views: see `TrainingConfig`.
    precision: "auto" or a name.
    threads: of a processor that computes runs.
    on_existing: what to do about runs that are there.
    elsewhere: another machine does the runs, so the device is not looked for here.
    plugins: files of `--plugin`, for the record.
    """

    results: Path = Path("results")
    overrides: Sequence[str] = ()
    config_file: Path | None = None
    epochs: int | None = None
    views: int | None = None
    precision: str = "auto"
    threads: int = 1
    on_existing: OnExisting = "resume"
    elsewhere: bool = False
    plugins: Sequence[Path] = ()
    how: How = How()


def check_device(device: str, precision: str, count: int) -> None:
    """Raise the `UserError` that a device or precision would be in each of `count` processes on this machine."""
    from benchmarks.training.distributed import own_device

    choose_precision(precision, own_device(choose_device(device), count))


def choose_device(wish: str, elsewhere: bool = False) -> torch.device:
    """Return the torch device: as asked, or the first of cuda, mps, cpu that is there.

    elsewhere: `wish` is the device of another machine, which need not be here.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = None
    if device is None or device.type not in there or not (there[device.type] or elsewhere):
        raise UserError(
            f"The device '{wish}' cannot be used.",
            f"Here there is {', '.join(name for name, available in there.items() if available)}.",
            "Pass one of these, or --device auto.",
        )
    return device


def use_threads(device: torch.device, threads: int) -> None:
    """Have torch compute with so many threads on a processor, whatever the environment and the launcher say.

    An accelerator's numbers do not depend on the threads of its host, which are left alone: another number than 1 is a
    `UserError` there.
    """
    import torch

    if device.type == "cpu":
        torch.set_num_threads(threads)
    elif threads != 1:
        raise UserError(
            f"{threads} threads were asked for.",
            f"These runs are computed by {device.type}, where the number of threads is no part of a run.",
            "Leave --threads out, or pass --device cpu.",
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread on the processor: for what is computed there whatever the device is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(wish: str, device: torch.device) -> Precision:
    """Return the precision: as asked; or bf16 on a cuda device that can, else fp32."""
    import torch

    if wish == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    precision = next((known for known in get_args(Precision) if known == wish), None)
    if precision is None:
        raise UserError(
            f"There is no precision '{wish}'.", "There are fp32, bf16, fp16 and auto.", "Choose one of these."
        )
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "Training in fp16 does not work on the CPU.",
            "Its gradients underflow, and the CPU has no fast fp16.",
            "Pass --precision fp32.",
        )
    return precision
