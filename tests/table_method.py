"""A method that reads its scores from a table, and batches of such images, for the tests of scoring."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from datasets.base import Candidates, Vocabulary
from methods.base import Batch, Losses, Method, MethodConfig, MethodInfo, Prepared


class TableMethod(Method):
    """Scores are the image features themselves, one per candidate; counts its calls and notes its modes."""

    info = MethodInfo(name="table", title="Table", paper="", trains=False)

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(nn.Identity(), Vocabulary(("a",), ("b",)), MethodConfig())
        self.frozen = nn.Dropout(0.5)
        self.dtype = dtype
        self.calls = {"prepare": 0, "encode": 0, "score": 0}

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        self.calls["encode"] += 1
        return {"scores": images}

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        raise NotImplementedError

    def prepare(self, candidates: Candidates) -> Prepared:
        self.calls["prepare"] += 1
        return Prepared(candidates)

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        assert torch.is_inference_mode_enabled()
        assert not any(module.training for module in self.modules())
        self.calls["score"] += 1
        return batch.features["scores"][:, chunk].to(self.dtype)


def candidates_of(seen: np.ndarray) -> Candidates:
    columns = np.arange(len(seen))
    vocabulary = Vocabulary(tuple(map(str, columns)), ("object",))
    return Candidates(vocabulary, np.stack([columns, np.zeros_like(columns)], axis=1), np.asarray(seen, dtype=bool))


def batches_of(matrix: np.ndarray, true_columns: np.ndarray, size: int) -> list[Batch]:
    images, pairs = torch.from_numpy(np.asarray(matrix, dtype=np.float32)), torch.from_numpy(np.asarray(true_columns))
    zeros = torch.zeros_like(pairs)
    return [
        Batch(
            states=zeros[a : a + size],
            objects=zeros[a : a + size],
            pairs=pairs[a : a + size],
            images=images[a : a + size],
        )
        for a in range(0, len(pairs), size)
    ]
