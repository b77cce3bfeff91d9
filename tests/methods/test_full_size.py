"""Trained parameters at the size of the published results, on MIT-States: ViT-L/14 without its numbers."""

from __future__ import annotations

import pytest
from branch_cases import full_size_backbone

from datasets.base import Vocabulary
from methods.coop import CoOp
from methods.dfsp import DFSP
from methods.refiner_style import RefinerStyle

MIT_STATES = Vocabulary(tuple(f"state {number}" for number in range(115)), tuple(f"thing {n}" for n in range(245)))
CONTEXT, WORDS = 3 * 768, (115 + 245) * 768
ADAPTERS = 48 * (2 * 64 * 1024 + 64 + 1024)


@pytest.mark.parametrize(
    ("method", "settings", "total"),
    [
        (CoOp, {}, 2_304),
        (DFSP, {}, 33_810_241 + CONTEXT + WORDS),
        (DFSP, {"fusion": "i2t"}, 28_894_336 + CONTEXT + WORDS),
        (DFSP, {"fusion": "none"}, CONTEXT + WORDS),
        (RefinerStyle, {}, 16_569_984 + 3 * CONTEXT + WORDS + ADAPTERS),
        (RefinerStyle, {"adapters": "none"}, 16_569_984 + 3 * CONTEXT + WORDS),
    ],
)
def test_trained_parameters(method, settings, total):
    built = method(full_size_backbone(), MIT_STATES, method.Config(**settings))
    assert sum(parameter.numel() for parameter in built.trained().values()) == total
