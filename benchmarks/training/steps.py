"""One optimizer step: an effective batch through the network in micro-batches, all of it or nothing.

Until the optimizer moves, a step can be taken back: generators and buffers are as they were before it. That is what
lets a step be repeated with smaller micro-batches when memory runs out, or without a compiler that failed, and lets a
run stop in the middle of a step without leaving half of one behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.runs.checkpoints import Generators
from benchmarks.runs.spec import TrainingConfig
from benchmarks.training import memory, stopping
from benchmarks.training.execution import Execution
from datasets.base import Candidates
from errors import UserError, counted
from methods.base import Batch, Losses, Method

Notify = Callable[[str], None]
"""Takes in a sentence or two that a reader of the record should know."""


class Stepper:
    """Takes optimizer steps.

    micro_batch: images that go through at once, fewer once memory ran out. compiled: whether the forward and backward
    pass are torch.compile's; False from the moment the compiler fails. watch: whether the next micro-batch is looked at
    for random numbers that the method draws by itself, which several processes cannot have.
    """

    def __init__(
        self,
        method: Method,
        config: TrainingConfig,
        execution: Execution,
        candidates: Candidates,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        notify: Notify,
    ) -> None:
        self.method, self.config, self.execution, self.candidates = method, config, execution, candidates
        self.optimizer, self.scaler, self.notify = optimizer, scaler, notify
        self.micro_batch = config.micro_batch or config.batch_size
        self.generators = Generators(execution.device)
        self.group = execution.group
        self.compiled = execution.compiled and self.group.size == 1
        if execution.compiled and not self.compiled:
            notify("torch.compile is for runs of one process: this one goes without it.")
        self.watch = True
        self._loss = torch.compile(method.training_loss) if self.compiled else method.training_loss

    def step(self, batch: Batch, where: str, images: int | None = None) -> dict[str, float]:
        """Take the step of an effective batch; return the sums over images of the total and of each loss term.

        batch: its images, or of several processes this one's shares of its micro-batches. where: the step's place in a
        message. images: how many the effective batch has in all, None if they are here. UserError for a loss that is
        no number, and where memory does not suffice for one image. Whatever is raised, parameters, buffers and
        generators are then those of before the step.
        """
        before = self._snapshot()
        images = len(batch) if images is None else images

        def attempt() -> dict[str, float]:
            try:
                return self._accumulate(batch, images, where)
            except BaseException as error:
                self._take_back(before)
                if not (self.compiled and of_compiler(error)):
                    raise
                self._uncompile(error)
            return attempt()

        sums = memory.in_smaller_parts(attempt, lambda: self._halve(images))
        self.group.add_gradients(self.method.trained().values())
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.method.trained().values(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step()
        return sums

    def _accumulate(self, batch: Batch, images: int, where: str) -> dict[str, float]:
        """Add up the gradients of the mean loss over the effective batch, part by part; sums are over all processes."""
        sums: dict[str, float] = {}
        start = 0
        for share in self.group.shares(images, self.micro_batch):
            if self.group.size == 1:
                stopping.check()
            part = rows(batch, start, start + share.held)
            start += share.held
            with self.group.sharing(share):
                losses = self._losses(part)
                # Mean over the images of the effective batch, also where a part or the last batch is smaller.
                self.scaler.scale(losses.total * (share.count / images)).backward()
            # Read once, and after backward was handed to the device: until then nobody waits for it.
            values = numbers({"total": losses.total, **losses.terms})
            if not math.isfinite(values["total"]):
                raise Diverged(self.method.info.name, where, values["total"])
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value * share.count
        return dict(zip(sums, self.group.sums(sums.values()), strict=True))

    def _losses(self, part: Batch) -> Losses:
        watch, self.watch = self.watch, False
        with self.execution.autocast(), self.group.watching(self.method, watch):
            return self._loss(part, self.candidates)

    def _uncompile(self, error: BaseException) -> None:
        self.compiled, self._loss = False, self.method.training_loss
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        self.notify(
            f"torch.compile failed ({type(error).__name__}: {reason}). The run goes on without it. "
            "On the CPU it needs a C++ compiler, on cuda Triton; without --compile this message goes away."
        )

    def _snapshot(self) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        # BatchNorm's statistics move in the forward pass; a frozen backbone has no buffer that moves.
        buffers = [tensor for name, tensor in self.method.named_buffers() if not name.startswith("backbone.")]
        return self.generators.state(), [(tensor, tensor.clone()) for tensor in buffers]

    def _take_back(self, before: tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]) -> None:
        generators, buffers = before
        self.optimizer.zero_grad(set_to_none=True)
        self.generators.restore(generators)
        for tensor, value in buffers:
            tensor.copy_(value)

    def _halve(self, images: int) -> None:
        size = min(self.micro_batch, images)
        if self.group.size > 1:
            smaller = max(self.group.size, (size + 1) // 2)
            raise UserError(
                f"Memory ran out with a micro-batch of {counted(size, 'image')}.",
                f"{self.group.size} processes share it, and they cannot change it by themselves.",
                f"Pass --set {self.method.info.name}.micro_batch={smaller}, or --recompute.",
            )
        if size == 1:
            raise UserError(
                f"Memory does not suffice to train {self.method.info.name} on {self.execution.device}.",
                "It ran out with a micro-batch of one image.",
                "Pass --recompute, --precision bf16 on a device that has it, or a smaller backbone.",
            )
        self.micro_batch = (size + 1) // 2
        message = (
            f"Memory ran out with {size} images at once: from here on the micro-batch is {self.micro_batch}; the "
            f"effective batch stays {self.config.batch_size} by accumulation."
        )
        if mixes_images(self.method):
            message += (
                f" In {self.method.info.name} the images of a micro-batch influence each other (BatchNorm takes its "
                f"statistics from them), so the numbers are not those of {size} images at once; compare them with runs "
                f"of --set micro_batch={self.micro_batch} alone."
            )
        self.notify(message)


def of_compiler(error: BaseException) -> bool:
    """Return whether an error comes from torch.compile and not from what it compiles."""
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)


def mixes_images(method: Method) -> bool:
    """Return whether an image's loss depends on the others of its micro-batch."""
    norms = (isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
    return any(norms) or not method.info.batch_independent


def numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the values of scalar tensors of one device, for which the host waits once."""
    joined = torch.cat([term.detach().reshape(1) for term in terms.values()])
    return dict(zip(terms, joined.tolist(), strict=True))


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """Return the images start .. stop - 1 of a batch."""
    if start == 0 and stop >= len(batch):
        return batch
    part = slice(start, stop)
    features = batch.features
    return replace(
        batch,
        states=batch.states[part],
        objects=batch.objects[part],
        pairs=batch.pairs[part],
        images=None if batch.images is None else batch.images[part],
        features=None if features is None else {name: values[part] for name, values in features.items()},
        second={name: some for name, images in batch.second.items() if (some := images.within(start, stop))},
    )


class Diverged(UserError):
    """The loss is no number any more. A record keeps this name, which tells it from failures that may pass."""

    def __init__(self, method: str, where: str, value: float) -> None:
        super().__init__(
            f"The training loss of {method} became {value} in {where}.",
            "Finished epochs and the checkpoint before this epoch are kept.",
            f"Lower the learning rate (--set {method}.lr=...) or train in fp32 (--precision fp32).",
        )
