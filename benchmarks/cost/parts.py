"""Which part of a method a cost belongs to: seconds or FLOPs, forward and backward.

A meter only ever rises: a clock, or a counter of FLOPs. At every moment one part is charged with what the meter shows,
so the parts add up to the whole by construction; "other" is what no part claims. In the forward pass the calls below
charge their part. In the backward pass each node of the autograd graph charges the part that made it: nodes are
numbered in the order in which they are made, and the numbers at which parts change are noted.

    vision       the image tower with its adapters and projections
    text         the text tower over all prompts, with the building of prompts
    interaction  the rest of the forward pass: fusion, cross-attention, disentangling, comparing images with text
    loss         cross-entropies
    optimizer    the optimizer's step
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from methods.base import Losses, Method

PARTS = ("vision", "text", "interaction", "loss", "optimizer", "other")
VISION = (
    *("embed_images", "run_vision_blocks", "image_tokens", "project_tokens", "pool_tokens"),
    *("joint_tokens", "image_embedding"),
)
TEXT = ("run_text_blocks", "project_text", "encode_text", "encode_ids", "mean_token_embedding")


class PartMeter:
    """Charges parts with what `meter()` shows. costs: what each part has been charged with since `reset`."""

    def __init__(self, meter: Callable[[], float]) -> None:
        self.meter = meter
        self.costs = dict.fromkeys(PARTS, 0.0)
        self.current = "other"
        self._last = meter()
        self._starts: list[int] = []  # sequence numbers of autograd at which a part began, and the parts
        self._names: list[str] = []

    def reset(self) -> None:
        """Forget all costs; "other" is charged from now on."""
        self.costs = dict.fromkeys(PARTS, 0.0)
        self.current = "other"
        self._starts, self._names = [], []
        self._last = self.meter()

    def switch(self, part: str) -> None:
        """Charge the current part up to now, and `part` from now on."""
        if part == self.current:
            return
        self.settle()
        self.current = part

    def settle(self) -> None:
        """Charge the current part up to now."""
        now = self.meter()
        self.costs[self.current] += now - self._last
        self._last = now

    def call(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` so that what it costs is charged to `part`, but for calls within it that have their own."""

        @wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            before = self.current
            self._enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._enter(before)

        return charged

    def _enter(self, part: str) -> None:
        self._starts.append(torch._C._autograd._get_sequence_nr())
        self._names.append(part)
        self.switch(part)

    def follow_backward(self, loss: Tensor) -> None:
        """Have the backward pass of `loss` charge the part that each node of its graph was made in.

        A node that only adds up a parameter's gradient has no number; it is charged to whichever part came before it.
        """
        starts, names = tuple(self._starts), tuple(self._names)
        seen, waiting = set(), [loss.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
            place = bisect_right(starts, node._sequence_nr()) - 1
            if hasattr(node, "variable") or place < 0:
                continue
            node.register_prehook(self._hook(names[place]))

    def _hook(self, part: str) -> Callable[[Any], None]:
        def begins(gradients: Any) -> None:
            self.switch(part)

        return begins

    @contextmanager
    def watching(self, method: Method) -> Iterator[None]:
        """Charge the parts of a method within the block."""
        from methods.backbone import prefix
        from methods.parts.prompts import SoftPrompt
        from methods.parts.sentences import Sentences

        backbone = method.backbone
        places: list[tuple[Any, str, str]] = [(backbone, name, "vision") for name in VISION]
        places += [(backbone, name, "text") for name in TEXT]
        places += [(prefix, "extend", "text"), (prefix, "finish", "text")]
        places += [(SoftPrompt, "encode", "text"), (SoftPrompt, "forward", "text")]
        places += [(Sentences, "encode", "text"), (Sentences, "token_vectors", "text")]
        places += [(torch.nn.functional, "cross_entropy", "loss")]
        places += [(method, name, "interaction") for name in ("encode", "prepare", "score")]
        with _replaced(places, self.call):
            original = method.training_loss

            def training_loss(*args: Any) -> Losses:
                losses = self.call("interaction", original)(*args)
                if losses.total.grad_fn is not None:
                    self.follow_backward(losses.total)
                return losses

            object.__setattr__(method, "training_loss", training_loss)
            try:
                yield
            finally:
                object.__delattr__(method, "training_loss")


@contextmanager
def _replaced(places: list[tuple[Any, str, str]], change: Callable[[str, Any], Any]) -> Iterator[None]:
    """Replace attributes of objects, classes and modules by what `change` makes of them, and put them back."""
    kept = []
    try:
        for holder, name, part in places:
            own = vars(holder).get(name)
            kept.append((holder, name, own))
            _put(holder, name, change(part, getattr(holder, name)))
        yield
    finally:
        for holder, name, own in reversed(kept):
            if own is not None:
                _put(holder, name, own)
            else:
                with suppress(AttributeError):
                    delattr(holder, name)


def _put(holder: Any, name: str, value: Any) -> None:
    # A torch module's own __setattr__ would look for parameters in it.
    if isinstance(holder, torch.nn.Module):
        object.__setattr__(holder, name, value)
    else:
        setattr(holder, name, value)
