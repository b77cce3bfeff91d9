"""Some test images scored again with a run's trained weights: what a per-image record is too short for.

A record keeps the best seen and the best unseen pair of each image, hence the predicted pair under every bias, but not
the third best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.finished import load_method
from benchmarks.runs.records import RunRecord
from datasets.base import CompositionDataset
from errors import UserError

if TYPE_CHECKING:
    import torch

    from methods.base import Batch, Method


@dataclass(frozen=True, eq=False)
class Loaded:
    """A run's method with its weights, its data set and the candidates of its test."""

    run: RunRecord
    method: Method
    dataset: CompositionDataset

    @property
    def device(self) -> torch.device:
        """Where the method computes."""
        return self.method.backbone.device

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return test images as a batch, as the run's evaluation saw them; `pairs` are columns of the candidates."""
        import torch

        from datasets.transforms import build_transform
        from methods.base import Batch

        backbone, split = self.method.backbone, self.dataset.splits["test"]
        transform = build_transform(
            backbone.image_size, backbone.image_mean, backbone.image_std, resizing=self.method.resizing
        )
        images = torch.stack([transform(self.dataset.load_image("test", row)) for row in rows])
        states, objects = split.states[list(rows)], split.objects[list(rows)]
        pairs = self.dataset.candidates("test", self.run.spec.world).index_of(states, objects)
        device = self.device
        return Batch(
            states=torch.as_tensor(states, device=device),
            objects=torch.as_tensor(objects, device=device),
            pairs=torch.as_tensor(pairs, device=device),
            images=images.to(device),
        )

    def top(self, rows: Sequence[int], bias: float, k: int) -> np.ndarray:
        """Return the columns of the k best candidates of each test image when `bias` is added to unseen ones, [n, k].

        Best first; of equal scores the smaller column.
        """
        import torch

        from benchmarks.evaluation.scoring import chunk_scores, evaluation_mode

        candidates = self.dataset.candidates("test", self.run.spec.world)
        with torch.inference_mode(), evaluation_mode(self.method):
            prepared = self.method.prepare(candidates)
            batch = self.method.encode(self.batch(rows))
            parts = chunk_scores(self.method, batch, prepared, len(candidates))
            scores = torch.cat([part.float().cpu() for _, part in parts], dim=1).double().numpy()
        scores = scores + bias * ~candidates.seen
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def load(run: RunRecord, dataset: CompositionDataset) -> Loaded:
    """Return a finished run's method on the first device there is; `UserError` where it cannot be had.

    A world whose threshold removes or weakens pairs is refused: its scores are made during the evaluation.
    """
    from benchmarks.running.choices import choose_device, use_threads

    if run.spec.open_world is not None:
        raise UserError(
            f"The images of {run.run_id} cannot be scored again.",
            "Its open world has a feasibility threshold.",
            "The figure shows what the record keeps.",
        )
    device = choose_device("auto")
    if device.type == "cpu":
        use_threads(device, run.spec.threads)
    return Loaded(run, load_method(run, dataset.vocabulary, device), dataset)
