"""Reading the golden files of the three-branch methods, which are kept small.

The official implementation was run with random weights. They are not stored but drawn again: in the order of
`meta["drawn"]` from numpy's `RandomState` (whose stream is frozen) with `meta["seed"]`, then rounded to 6 significant
bits in half precision; a SHA-256 says that they are the same. Of large outputs and of gradients only these are stored:

    sample      entries evenly spread over the flattened tensor
    projection  dot products of the flattened tensor with 8 random vectors, which any wrong entry changes
    norm        the L2 norm (gradients)
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Batch, Losses
from methods.parts.branches import ThreeBranch
from methods.parts.scoring import unit

LOGITS, FEATURES, LOSSES, GRADIENTS, NORMS = 2e-4, 5e-5, 2e-5, 3e-4, 1e-4
GRADIENT_SAMPLE = 64
BRANCHES = {"pair": "comp", "state": "attr", "object": "obj"}  # our name -> official name

# Official piece of a name -> ours. What a method alone has, its test adds.
NAMES = {
    r"additional_visual_params\.(\d+)\.(down|up)_proj": r"adapters.adapters.\1.\2",
    r"^soft_att_obj$": "prompts.table.weight",
    r"^comp_ctx_vectors$": "prompts.families.pair.context",
    r"^attr_ctx_vectors$": "prompts.families.state.context",
    r"^obj_ctx_vectors$": "prompts.families.object.context",
    r"^attr_disentangler": "disentanglers.state",
    r"^obj_disentangler": "disentanglers.object",
    r"fc1": "linear",
    r"bn1_fc": "norm",
    r"cross_attn\.q_proj": "attention.query",
    r"cross_attn\.k_proj": "attention.key",
    r"cross_attn\.v_proj": "attention.value",
    r"cross_attn\.proj": "attention.out",
    r"mlp\.0": "widen",
    r"mlp\.3": "narrow",
}


def draw_parameters(seed: int, drawn: Iterable[Sequence[Any]]) -> dict[str, np.ndarray]:
    """Return the official random weights, float32, by official name.

    drawn: name and shape of each, in later files also its mean and its deviation.
    """
    stream, found = np.random.RandomState(seed), {}
    for name, shape, *spread in drawn:
        normal = stream.standard_normal(shape)
        found[name] = rounded(spread[0] + spread[1] * normal if spread else _spread(name, normal))
    return found


def _spread(name: str, normal: np.ndarray) -> np.ndarray:
    if name.startswith("lamda"):
        return 0.15 + 0.05 * normal
    if normal.ndim == 2:
        return normal * normal.shape[1] ** -0.5
    if "norm" in name or "bn1" in name or (name.startswith("concat_projection") and ".1." in name):
        return float(name.endswith("weight")) + 0.1 * normal
    return 0.05 * normal


def rounded(values: np.ndarray) -> np.ndarray:
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 2**6) / 2**6, exponent).astype(np.float16).astype(np.float32)


@cache
def _directions(size: int) -> np.ndarray:
    return np.stack([np.random.RandomState(424200 + k).standard_normal(size) for k in range(8)])


def projections(values: np.ndarray) -> np.ndarray:
    """Return the dot products of the flattened values with eight standard normal vectors, float64 [8]."""
    return _directions(values.size) @ values.ravel().astype(np.float64)


def sample(values: np.ndarray, count: int) -> np.ndarray:
    """Return `count` entries evenly spread over the flattened values."""
    return values.ravel()[np.linspace(0, values.size - 1, count).astype(np.int64)]


def gradient_sample(values: np.ndarray) -> np.ndarray:
    """Return 64 entries of a gradient: every fourth of the 256 that the official run kept of large ones."""
    return sample(sample(values, 256), GRADIENT_SAMPLE)


def read(
    golden: Callable[[str], SimpleNamespace],
    name: str,
    draw: Callable[[int, Iterable[Any]], dict[str, np.ndarray]] = draw_parameters,
) -> SimpleNamespace:
    """Return the golden file `name` as the `golden` fixture reads it, with images and the official weights added.

    draw: the random weights by official name, of the file's seed and of what its `meta["drawn"]` says of each.
    parameters: by official name, without those the official forward pass never uses.
    """
    official = golden(name)
    drawn = draw(official.meta["seed"], official.meta["drawn"])
    digest = hashlib.sha256(b"".join(values.tobytes() for values in drawn.values())).hexdigest()
    assert digest == official.meta["drawn_sha256"], "the random weights are not those of the official run"
    stored = {key.removeprefix("param/"): value for key, value in official.arrays.items() if key.startswith("param/")}
    official.parameters = {name: torch.from_numpy(values) for name, values in drawn.items()} | stored
    official.arrays["input/images"] = golden("csp").arrays["input/images"]  # the same images
    return official


def batch_of(official: SimpleNamespace, targets: str) -> Batch:
    """Return the golden images with the labels of "input/targets" (training) or "input/eval_targets"."""
    states, objects, pairs = official.arrays[targets].T
    return Batch(states, objects, pairs, images=official.arrays["input/images"])


def our_name(official_name: str, blocks: int, extra: Mapping[str, str]) -> str:
    """Return our name of an official parameter or buffer; extra: what NAMES lacks for the method."""
    for pattern, ours in {**NAMES, **extra}.items():
        official_name = re.sub(pattern, ours, official_name)

    def slot(found: re.Match) -> str:  # the first half of the official list is beside attention, the second beside MLPs
        part, block = divmod(int(found[1]), blocks)
        return f"adapters.adapters.vision_{block}_{('attn', 'mlp')[part]}."

    return re.sub(r"adapters\.adapters\.(\d+)\.", slot, official_name)


def load(method: nn.Module, official: SimpleNamespace, extra: Mapping[str, str]) -> None:
    """Give the method the official weights; every one of them, and nothing else, must find a place."""
    blocks = method.backbone.n_vision_blocks
    method.load_checkpoint({our_name(name, blocks, extra): value for name, value in official.parameters.items()})


def check_output(near: Callable, official: SimpleNamespace, key: str, ours: Tensor, limit: float) -> None:
    """Compare one of our tensors with the golden output `key`, stored whole or as sample and projections."""
    expected, what = official.arrays, f"{official.meta['job']} {key.removeprefix('out/')}"
    if key in expected:
        near(what, ours, expected[key], limit)
        return
    values = ours.detach().numpy()
    kept = expected[f"sample/{key}"]
    near(what, torch.from_numpy(sample(values, len(kept))), kept, limit)
    near(
        f"{what}, projections",
        torch.from_numpy(projections(values)) / values.size**0.5,
        expected[f"projection/{key}"] / values.size**0.5,
        limit,
    )


def check_gradients(
    near: Callable, method: nn.Module, official: SimpleNamespace, extra: Mapping[str, str], largest_zero: float = 1e-6
) -> None:
    """Compare the gradient of every trained tensor with the official one; each must be there.

    largest_zero: limit of what is zero in exact arithmetic.
    """
    blocks, trained = method.backbone.n_vision_blocks, method.trained()
    expected, names = official.arrays, [name for name, _ in official.meta["gradients"]]
    ours = {name: trained[our_name(name, blocks, extra)].grad.numpy() for name in names}
    assert len(names) == len(trained)
    zero = official.meta["gradient_is_mathematically_zero"]
    largest = {"entries": 0.0, "projections": 0.0, "norms": 0.0}
    for row, name in enumerate(names):
        gradient = ours[name]
        if name in zero:
            assert np.abs(gradient).max() < largest_zero, name
            continue
        norm = float(expected["gradient/norm"][row])
        entries = np.abs(gradient_sample(gradient) - expected["gradient/sample"][row].numpy()).max()
        products = np.abs(projections(gradient) - expected["gradient/projection"][row].numpy()).max()
        found = {
            "entries": entries / np.abs(gradient).max(),
            "projections": products / norm,
            "norms": abs(np.linalg.norm(gradient.astype(np.float64)) - norm) / norm,
        }
        for kind, value in found.items():
            assert value <= (NORMS if kind == "norms" else GRADIENTS), f"{kind} of the gradient of {name}: {value:.1e}"
            largest[kind] = max(largest[kind], value)
    for kind, value in largest.items():
        limit = torch.tensor(NORMS if kind == "norms" else GRADIENTS)
        what = f"{official.meta['job']} {kind} of {len(names)} gradients"
        near(what, torch.tensor(value), torch.tensor(0.0), float(limit))


def check_gradient_norms(method: nn.Module, official: SimpleNamespace, extra: Mapping[str, str]) -> None:
    """Compare the norms of all gradients with those of a pass in evaluation mode."""
    trained, blocks = method.trained(), method.backbone.n_vision_blocks
    for row, (name, _) in enumerate(official.meta["gradients"]):
        norm = float(official.arrays["gradient/norm_evalmode"][row])
        ours = float(trained[our_name(name, blocks, extra)].grad.double().norm())
        assert abs(ours - norm) <= NORMS * norm, f"{name}: {ours} instead of {norm}"


def settings(official: SimpleNamespace) -> dict[str, Any]:
    """Return the settings of the golden run that all three-branch methods have: no dropout, the released score."""
    released = official.meta["hyper_parameters"]
    return {
        "dropout": 0.0,
        "adapter_width": released["adapter_dim"],
        "adapter_dropout": 0.0,
        "disentangler_dropout": 0.0,
        "lambda_init": released["init_lamda"],
        "loss_weights": tuple(released[f"{name}_loss_weight"] for name in ("pair", "attr", "obj")),
        "inference": "logit_product",
    }


def check_start(near: Callable, method: ThreeBranch, official: SimpleNamespace, start: Tensor) -> None:
    """Compare a fresh method's words with the official ones `start`, its contexts with CLIP's, its prompts' tokens."""
    near(f"{official.meta['job']} initial words", method.prompts.table.weight, start, 1e-7)
    templates = official.arrays["input/token_ids/template"]
    for family, ids in zip(method.prompts.families.values(), templates, strict=True):
        near("initial context", family.context, method.backbone.token_embedding(ids[1:4]), 0.0)
        assert family.eot == int(ids.argmax())


def check_branches(near: Callable, method: ThreeBranch, official: SimpleNamespace, phase: str, batch: Batch) -> None:
    """Compare text, image features and logits of every branch with "out/<phase>"; the batch must be encoded."""
    candidates = official.candidates if phase == "eval" else official.train_candidates
    text = method.prompts(method.backbone, candidates)
    memories = method.memories(batch.features)
    logits = method.logits(batch.features, {branch: unit(vectors) for branch, vectors in text.items()}, memories)
    image_names = {"pair": "global", "state": "attr", "object": "obj"}
    for branch, theirs in BRANCHES.items():
        if phase != "train_evalmode":
            check_output(near, official, f"out/{phase}/text_raw/{theirs}", text[branch], FEATURES)
            image = f"out/{phase}/image/{image_names[branch]}"
            check_output(near, official, image, batch.features[branch], FEATURES)
        check_output(near, official, f"out/{phase}/logits_{theirs}", logits[branch], LOGITS)


def check_losses(near: Callable, losses: Losses, official: SimpleNamespace, phase: str) -> None:
    """Compare every loss term and the total with "loss/<phase>"."""
    for branch, theirs in {**BRANCHES, "total": "total"}.items():
        ours = losses.total if branch == "total" else losses.terms[branch]
        near(f"{official.meta['job']} {phase} loss {theirs}", ours, official.arrays[f"loss/{phase}/{theirs}"], LOSSES)


def check_scores(near: Callable, method: ThreeBranch, official: SimpleNamespace, batch: Batch) -> None:
    """Compare the fused scores under all weights and text batches that the golden file holds, and validation losses."""
    prepared, config = method.prepare(official.candidates), method.config
    keys = [key for key in official.arrays if re.match(r"out/eval(_textfirst)?/scores", key)]
    assert len(keys) == 9
    for key in keys:
        weights, divisor = config.score_weights, 1
        if found := re.search(r"_w_([\d.]+)_([\d.]+)_([\d.]+)$", key):
            weights = tuple(map(float, found.groups()))
        if found := re.search(r"_tb(\d+)$", key):
            divisor = math.ceil(len(official.candidates) / int(found[1]))
        changes = {"test_score_weights": weights, "test_primitive_divisor": divisor}
        method.config = config.model_copy(update=changes)
        method.final = True
        check_output(near, official, key, method.score(batch, prepared, slice(None)), LOGITS)
    method.final = False
    for kind, key in (("logits", "raw"), ("scores", "as_reported")):
        method.config = config.model_copy(update={"validation_loss": kind})
        loss = method.validation_losses(batch, prepared).total
        near(f"{official.meta['job']} loss/eval/{key}", loss, official.arrays[f"loss/eval/{key}"], LOSSES)
    method.config = config


def check_batch_norm(near: Callable, method: ThreeBranch, official: SimpleNamespace, extra: Mapping[str, str]) -> None:
    """Compare the BatchNorm buffers with those after the official training pass."""
    after = [key for key in official.arrays if key.startswith("out/train/bn_after/")]
    assert len(after) == 6
    buffers = dict(method.named_buffers())
    for key in after:
        name = our_name(key.rpartition("/")[2], method.backbone.n_vision_blocks, extra)
        near(f"{official.meta['job']} {name}", buffers[name].float(), official.arrays[key].float(), FEATURES)
