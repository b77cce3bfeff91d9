"""Reading CAILA's golden files: the official weights in our method, and summaries of gradients.

The adapters' random weights are drawn again: normal values with the mean and deviation in `meta["drawn"]`, rounded as
in `golden_files`. Of each gradient these are kept: its L2 norm, its dot products with eight vectors
(`RandomState(424200 + k).standard_normal(size)`), and 16 of the 256 elements at `linspace(0, size - 1, 256)`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.base import Batch, SecondImages
from methods.caila import CAILA
from methods.parts.caila_settings import CAILAConfig
from methods.released.hugging_face import TRANSPOSED
from methods.released.names import FORMS

FILES = ("caila_large", "caila_vision_only")
TABLE = "clip_model.text_model.embeddings.token_embedding.weight"
OFFICIAL = {"up_init": "uniform", "primitive_scale": 20.0, "token_decay": "coupled", "score": "cosine"}
BRANCHES = {"pair": "comp", "state": "attr", "object": "obj"}  # our name -> official name


def parameters(official: SimpleNamespace) -> dict[str, Tensor]:
    """Return every trained tensor by official name; of the token table the rows that are known, zeros for the rest."""
    drawn = _draw(official.meta["seed"], json.dumps(official.meta["drawn"]))
    digest = hashlib.sha256(b"".join(values.tobytes() for values in drawn.values())).hexdigest()
    assert digest == official.meta["drawn_sha256"], "the random weights are not those of the official run"
    stored = {key.removeprefix("param/"): value for key, value in official.arrays.items() if key.startswith("param/")}
    rows = stored.pop(f"{TABLE}.rows")
    table = torch.zeros(49408, rows.shape[1])
    table[stored.pop(f"{TABLE}.ids")] = rows
    return {TABLE: table, **{name: torch.from_numpy(values) for name, values in drawn.items()}, **stored}


@cache
def _draw(seed: int, drawn: str) -> dict[str, np.ndarray]:
    stream, values = np.random.RandomState(seed), {}
    for name, shape, mean, deviation in json.loads(drawn):
        fraction, exponent = np.frexp(mean + deviation * stream.standard_normal(shape))
        values[name] = np.ldexp(np.round(fraction * 2**6) / 2**6, exponent).astype(np.float16).astype(np.float32)
    return values


def their_name(ours: str) -> str:
    """Return the official name of one of our tensors."""
    return FORMS["caila"].name_of(ours, 24)


def turned(theirs: str, tensor: Tensor) -> Tensor:
    """Return a tensor of ours as the official code holds it, or the other way round."""
    return tensor.T if theirs.removeprefix("clip_model.") in TRANSPOSED else tensor


def settings(official: SimpleNamespace, **changes: Any) -> CAILAConfig:
    """Return the settings of the golden run, without dropout."""
    released = official.meta["hyper_parameters"]
    given = {
        "reduction": released["reduction_factor"],
        "text_adapters": released["enable_text_adapter"],
        "mixture_layers": 24 - released["fusion_start_layer"],
        "image_dropout": 0.0,
        "loss_weights": tuple(released["loss_weights"]),
    }
    return CAILAConfig(**{**given, **OFFICIAL, **changes})


def build(official: SimpleNamespace, backbone: Backbone, **changes: Any) -> CAILA:
    """Return our method with the official weights, on a CLIP of its own."""
    method = CAILA(copy.deepcopy(backbone), official.vocabulary, settings(official, **changes))
    theirs = parameters(official)
    names = {ours: their_name(ours) for ours in method.checkpoint()}
    if not changes:
        assert set(names.values()) == set(theirs)
    method.load_checkpoint({ours: turned(name, theirs[name]) for ours, name in names.items()})
    return method


def batch_of(official: SimpleNamespace, images: Tensor, shifted: bool) -> Batch:
    """Return the golden images with the labels of training, with the second images of the golden shift or without."""
    arrays = official.arrays
    states, objects, pairs = arrays["input/targets"].T
    second = {}
    for branch, theirs, column in (("state", "attr", 0), ("object", "obj", 1)):
        rows = arrays[f"input/shift/do_{theirs}"].nonzero()[:, 0]
        new = arrays["input/shift/targets"][rows]
        second[branch] = SecondImages(rows, arrays["input/shift/images"][rows], new[:, column], new[:, 2])
    return Batch(states, objects, pairs, images=images, second=second if shifted else {})


@cache
def _directions(size: int) -> np.ndarray:
    return np.stack([np.random.RandomState(424200 + k).standard_normal(size) for k in range(8)])


def check_gradients(near: Callable, method: CAILA, official: SimpleNamespace, kind: str) -> None:
    """Compare the gradient of every trained tensor with the official one: "gradient", or "gradient_shift"."""
    arrays, names = official.arrays, official.meta["gradients"]
    ours = {their_name(name): parameter.grad for name, parameter in method.trained().items()}
    rows = arrays[f"param/{TABLE}.ids"]
    table = ours.pop(TABLE)
    ours[f"{TABLE}.rows"] = table[rows]
    others = torch.ones(len(table), dtype=torch.bool).index_fill_(0, rows, False)
    assert not table[others].any()
    assert set(names) == set(ours)
    largest = {"entries": 0.0, "projections": 0.0, "norms": 0.0}
    for row, name in enumerate(names):
        gradient = turned(name, ours[name]).contiguous().double().numpy().ravel()
        norm = float(arrays[f"{kind}/norm"][row])
        products = np.abs(_directions(gradient.size) @ gradient - arrays[f"{kind}/projection"][row].numpy()).max()
        found = {"projections": products / norm, "norms": abs(np.linalg.norm(gradient) - norm) / norm}
        if f"{kind}/sample" in arrays:
            at = np.linspace(0, gradient.size - 1, 256).astype(np.int64)[np.linspace(0, 255, 16).astype(np.int64)]
            differences = np.abs(gradient[at] - arrays[f"{kind}/sample"][row].numpy())
            found["entries"] = differences.max() / np.abs(gradient).max()
        for what, value in found.items():
            assert value <= (1e-4 if what == "norms" else 3e-4), f"{what} of the gradient of {name}: {value:.1e}"
            largest[what] = max(largest[what], value)
    for what, value in largest.items():
        limit = 1e-4 if what == "norms" else 3e-4
        near(f"{official.meta['job']} {what} of {len(names)} gradients", torch.tensor(value), torch.tensor(0.0), limit)
