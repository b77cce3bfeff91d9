"""Measuring one method in this process, on random images: steps, evaluation, time by part, peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cost.counting import backbone_name, build
from benchmarks.cost.labels import LabelSpace
from benchmarks.cost.parts import PartMeter
from benchmarks.cost.peak import peak, reset_peak
from benchmarks.cost.record import Settings, Spread, Timing
from benchmarks.evaluation.scoring import score_images
from benchmarks.running.choices import choose_device
from benchmarks.running.process import deterministic
from benchmarks.training.execution import Execution
from benchmarks.training.memory import peak_memory, release
from benchmarks.training.optimizers import make_optimizer
from benchmarks.training.steps import Stepper
from datasets.base import Candidates
from datasets.transforms import derived_seed
from methods.backbone.clip import Backbone
from methods.base import Batch
from registry import BACKBONES


def spread(seconds: list[float]) -> Spread:
    """Return median and range of measurements."""
    return Spread(median=statistics.median(seconds), least=min(seconds), most=max(seconds), count=len(seconds))


def median_parts(steps: list[dict[str, float]]) -> dict[str, float]:
    """Return the median over steps of each part that took any time."""
    parts = {part: statistics.median(step[part] for step in steps) for part in (steps[0] if steps else ())}
    return {part: seconds for part, seconds in parts.items() if seconds > 0}


def random_batch(backbone: Backbone, candidates: Candidates, images: int, seed: int) -> Batch:
    """Return normalised random images on the backbone's device, each of one of the candidates."""
    generator = torch.Generator().manual_seed(derived_seed("profile images", seed))
    size, device = backbone.image_size, backbone.device
    pictures = torch.randn(images, 3, size, size, generator=generator)
    columns = torch.randint(len(candidates), (images,), generator=generator)
    pairs = torch.from_numpy(candidates.pairs)[columns]
    states, objects = pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
    return Batch(states.to(device), objects.to(device), columns.to(device), images=pictures.to(device))


def measure(name: str, settings: Settings, labels: LabelSpace) -> Timing:
    """Measure a method. On the CPU memory is the process's own, so a process should measure no more than one."""
    subject = _Subject(name, settings, labels)
    steps, evaluation = subject.steps(), subject.evaluation()
    return Timing(
        step=None if steps is None else spread(steps.seconds),
        step_parts={} if steps is None else median_parts(steps.parts),
        metered_step=None if steps is None else statistics.median(steps.metered),
        evaluation=spread(evaluation.seconds),
        eval_parts=median_parts(evaluation.parts),
        prepare=evaluation.prepare,
        memory_base=subject.memory.base,
        memory_training=None if steps is None else steps.memory,
        memory_evaluation=evaluation.memory,
    )


@dataclass
class _Repeated:
    """What work took that was done again and again.

    seconds: of each time without a meter.
    metered: of each time with one, which costs something itself.
    parts: of `metered`, by part.
    prepare: seconds of what came once before.
    memory: bytes at the fullest moment, None where the system does not tell.
    """

    seconds: list[float]
    metered: list[float]
    parts: list[dict[str, float]]
    prepare: float = 0.0
    memory: int | None = None


class _Subject:
    """A method on a device, with a batch for it and what measures it."""

    def __init__(self, name: str, settings: Settings, labels: LabelSpace) -> None:
        self.settings, self.device = settings, choose_device(settings.device)
        deterministic()
        self.memory, self.clock = _Memory(self.device), _Clock(self.device)  # before anything is built
        backbone = BACKBONES.get(backbone_name(settings.backbone))().to(self.device)
        backbone.recompute = settings.recompute
        torch.manual_seed(derived_seed("init", settings.seed))
        self.method, training = build(name, backbone, labels)
        self.method.to(self.device)
        images = settings.batch or training.batch_size
        self.training = training.model_copy(update={"batch_size": images, "micro_batch": None})
        self.execution = Execution(self.device, settings.precision, eval_batch=images)
        self.train = labels.dataset.candidates("train")
        self.test = labels.dataset.candidates("test", settings.world)
        self.batch = random_batch(backbone, self.train, images, settings.seed)
        self.optimizer: Any = None  # kept for the evaluation, whose memory it is part of, as in a run

    def steps(self) -> _Repeated | None:
        """Measure steps of training; None of a method that is not trained."""
        if not self.method.info.trains or self.training.epochs == 0:
            return None
        self.method.train()
        self.optimizer, _ = make_optimizer(self.method, self.training)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.settings.precision == "fp16")

        def step() -> None:
            # A step takes its loss function when it is made, with the meter in it or without.
            what = (self.method, self.training, self.execution, self.train, self.optimizer, scaler)
            Stepper(*what, lambda message: None).step(self.batch, "profile")

        self.memory.reset()
        found = self._repeated(step)
        found.memory = self.memory.peak()
        release()
        return found

    def evaluation(self) -> _Repeated:
        """Measure the preparation of the candidates' text, and scores of a batch."""
        unlabelled = torch.full_like(self.batch.pairs, -1)
        batch = Batch(self.batch.states, self.batch.objects, unlabelled, images=self.batch.images)
        self.memory.reset()
        with self.execution.autocast():
            self.method.eval()
            with torch.inference_mode():
                start = self.clock()
                prepared = self.method.prepare(self.test)
                prepare = self.clock() - start
            chunk = self.execution.pair_chunk
            found = self._repeated(
                lambda: score_images(self.method, [batch], self.test, pair_chunk=chunk, prepared=prepared)
            )
        found.prepare, found.memory = prepare, self.memory.peak()
        return found

    def _repeated(self, work: Callable[[], object]) -> _Repeated:
        """Do work to warm up, then timed, then with a meter in it, half as many times."""
        for _ in range(self.settings.warmup):
            work()
        seconds = [self._seconds(work) for _ in range(self.settings.steps)]
        meter = PartMeter(self.clock)
        found = _Repeated(seconds, [], [])
        for _ in range(max(1, self.settings.steps // 2)):
            meter.reset()
            start = self.clock()
            with meter.watching(self.method), _optimizer_part(meter, self.optimizer):
                work()
            meter.settle()
            found.metered.append(self.clock() - start)
            found.parts.append(dict(meter.costs))
        return found

    def _seconds(self, work: Callable[[], object]) -> float:
        start = self.clock()
        work()
        return self.clock() - start


class _Clock:
    """Tells seconds once the device has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


@contextmanager
def _optimizer_part(meter: PartMeter, optimizer: Any) -> Iterator[None]:
    """Charge the optimizer's step, if there is an optimizer, to "optimizer" within the block."""
    if optimizer is None:
        yield
        return
    original = optimizer.step

    def step(*args: Any, **kwargs: Any) -> Any:
        meter.switch("optimizer")
        try:
            return original(*args, **kwargs)
        finally:
            meter.switch("other")

    optimizer.step = step
    try:
        yield
    finally:
        del optimizer.step


class _Memory:
    """Peak memory above what was in use at first: of the accelerator, or of the process.

    Where the system cannot forget a peak (not Linux), it is the process's largest so far; None where that is not told.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.base: int | None
        try:
            self.base = reset_peak(str(device))
            self.resets = True
        except OSError:
            self.base, self.resets = peak_memory(device), False

    def reset(self) -> None:
        if self.resets:
            reset_peak(str(self.device))

    def peak(self) -> int | None:
        most = peak(str(self.device)) if self.resets else peak_memory(self.device)
        return None if most is None or self.base is None else most - self.base
