"""Backbones and batches for the tests of methods: the golden CLIP, a small random CLIP, and a measuring comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import parity_table as parity
import pytest
import torch
from torch import Tensor

from datasets.base import Candidates, Vocabulary
from methods.backbone import Backbone, build_clip

GOLDEN = Path(__file__).parent.parent / "golden"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of differences from the golden numbers, if it was asked for."""
    path = session.config.getoption("--parity-table")
    if path is not None:
        path.write_text(parity.table())


_SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 3},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="session")
def small_config() -> dict:
    """The open_clip configuration of `backbone`; copy it before changing anything in it."""
    return _SMALL


@pytest.fixture(scope="session")
def backbone(tokenizer: open_clip.SimpleTokenizer) -> Backbone:
    """A small CLIP with random weights. Shared by all tests: train nothing of it."""
    clip = build_clip(_SMALL, "small", seed=1)
    with torch.no_grad():
        # open_clip's initial text embeddings are so small that LayerNorm and attention hide most mistakes.
        clip.token_embedding.weight.mul_(30)
        clip.positional_embedding.mul_(30)
    return Backbone.from_open_clip(clip, tokenizer, "small")


@pytest.fixture(scope="session")
def golden_backbone(tokenizer: open_clip.SimpleTokenizer) -> Backbone:
    """The CLIP that the golden numbers were made with; token rows that no text of theirs uses are NaN."""
    with np.load(GOLDEN / "clip_tiny.npz") as stored:
        tensors = {key.removeprefix("clip/"): stored[key] for key in stored.files if key.startswith("clip/")}
        sizes = json.loads(str(stored["meta"]))["clip"]
    config = {
        "embed_dim": sizes["embed"],
        "quick_gelu": True,
        "vision_cfg": {"image_size": sizes["image"], "patch_size": sizes["patch"], "width": sizes["vwidth"]},
        "text_cfg": {"width": sizes["twidth"], "heads": 2, "layers": sizes["tlayers"], "context_length": 77},
    }
    config["vision_cfg"]["layers"] = sizes["vlayers"]
    clip = build_clip(config, "golden")
    table = torch.full_like(clip.token_embedding.weight, float("nan"))
    table[tensors.pop("token_embedding.ids")] = torch.from_numpy(tensors.pop("token_embedding.rows"))
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    clip.load_state_dict({**state, "token_embedding.weight": table})
    return Backbone.from_open_clip(clip, tokenizer, "golden")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], SimpleNamespace]:
    """Return a reader of tests/golden/<name>.npz: `arrays` by key as tensors, `meta`, and the candidates in it."""

    def read(name: str) -> SimpleNamespace:
        with np.load(GOLDEN / f"{name}.npz") as stored:
            arrays = {key: stored[key] for key in stored.files if key != "meta"}
            meta = json.loads(str(stored["meta"]))
        vocabulary = Vocabulary(tuple(meta["attributes"]), tuple(meta["objects"]))
        train = {tuple(pair) for pair in arrays["input/train_pairs"].tolist()}

        def candidates(key: str) -> Candidates:
            return Candidates(
                vocabulary, arrays[key], np.array([tuple(pair) in train for pair in arrays[key].tolist()])
            )

        return SimpleNamespace(
            arrays={key: torch.from_numpy(value) for key, value in arrays.items()},
            meta=meta,
            vocabulary=vocabulary,
            candidates=candidates("input/pairs"),
            train_candidates=candidates("input/train_pairs"),
        )

    return read


@pytest.fixture
def near(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that two tensors differ by at most `limit`, and say by how much they do (shown by `pytest -s`).

    relative=True divides by the largest expected entry: the measure for gradients. Differences from golden files are
    kept for `--parity-table`.
    """

    def check(what: str, ours: Tensor, expected: Tensor, limit: float, relative: bool = False) -> None:
        assert ours.shape == expected.shape, f"{what}: {tuple(ours.shape)} instead of {tuple(expected.shape)}"
        largest = (ours.detach() - expected).abs().max().item()
        largest = largest / expected.abs().max().item() if relative else largest
        parity.keep(f"{what} {request.node.nodeid}", largest, limit)
        print(f"{what:40s} largest {'relative ' * relative}difference {largest:.1e}, limit {limit:.0e}")
        assert largest <= limit, f"{what}: {largest:.2e} above {limit:.0e}"

    return check
