"""Measuring one method in this process, on random images: steps, evaluation, time by part, peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.cost.counting import backbone_name, build
from benchmarks.cost.labels import LabelSpace
from benchmarks.cost.parts import PartMeter
from benchmarks.cost.peak import peak, reset_peak
from benchmarks.cost.record import Settings, Spread, Timing
from benchmarks.evaluation.scoring import score_images
from benchmarks.running.choices import choose_device
from benchmarks.running.execute import deterministic
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
    device = choose_device(settings.device)
    deterministic()
    memory = _Memory(device)
    backbone = BACKBONES.get(backbone_name(settings.backbone))().to(device)
    backbone.recompute = settings.recompute
    torch.manual_seed(derived_seed("init", settings.seed))
    method, training = build(name, backbone, labels)
    method.to(device)
    images = settings.batch or training.batch_size
    training = training.model_copy(update={"batch_size": images, "micro_batch": None})
    execution = Execution(device, settings.precision, eval_batch=images)
    train = labels.dataset.candidates("train")
    test = labels.dataset.candidates("test", settings.world)
    batch = random_batch(backbone, train, images, settings.seed)

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    def clock() -> float:
        settle()
        return time.perf_counter()

    def timed(work: Callable[[], Any]) -> float:
        start = clock()
        work()
        return clock() - start

    def metered(work: Callable[[], Any], times: int) -> tuple[list[dict[str, float]], list[float]]:
        meter, parts, whole = PartMeter(clock), [], []
        for _ in range(times):
            meter.reset()
            start = clock()
            with meter.watching(method), _optimizer_part(meter, optimizer):
                work()
            meter.settle()
            whole.append(clock() - start)
            parts.append(dict(meter.costs))
        return parts, whole

    step_seconds: list[float] = []
    step_parts: list[dict[str, float]] = []
    whole: list[float] = []
    optimizer: Any = None
    memory_training = None
    few = max(1, settings.steps // 2)
    if method.info.trains and training.epochs > 0:
        method.train()
        optimizer, _ = make_optimizer(method, training)
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")

        def step() -> None:
            # A step takes its loss function when it is made, with the meter in it or without.
            Stepper(method, training, execution, train, optimizer, scaler, lambda message: None).step(batch, "profile")

        memory.reset()
        for _ in range(settings.warmup):
            step()
        step_seconds = [timed(step) for _ in range(settings.steps)]
        step_parts, whole = metered(step, few)
        memory_training = memory.peak()
        release()
    test_batch = Batch(batch.states, batch.objects, torch.full_like(batch.pairs, -1), images=batch.images)
    memory.reset()
    with execution.autocast():
        method.eval()
        with torch.inference_mode():
            start = clock()
            prepared = method.prepare(test)
            prepare = clock() - start

        def evaluate() -> None:
            score_images(method, [test_batch], test, pair_chunk=execution.pair_chunk, prepared=prepared)

        for _ in range(settings.warmup):
            evaluate()
        eval_seconds = [timed(evaluate) for _ in range(settings.steps)]
        eval_parts, _ = metered(evaluate, few)
    return Timing(
        step=spread(step_seconds) if step_seconds else None,
        step_parts=median_parts(step_parts),
        metered_step=statistics.median(whole) if whole else None,
        evaluation=spread(eval_seconds),
        eval_parts=median_parts(eval_parts),
        prepare=prepare,
        memory_base=memory.base,
        memory_training=memory_training,
        memory_evaluation=memory.peak(),
    )


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
