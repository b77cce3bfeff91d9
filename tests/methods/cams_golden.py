"""Reading CAMS' golden files: random weights that are drawn again, and gradients of which only a summary is kept.

As the files of the three-branch methods (`branch_golden.py`), but for the draws: `meta["drawn"]` also holds the mean
and the deviation of each tensor. Phases are "eval" and "train" as released, and with a repair: "_attribute_word",
"_text_quickgelu", "_clean" (both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace

import branch_golden
import numpy as np
import torch
from branch_golden import FEATURES, GRADIENTS, LOGITS, LOSSES, NORMS, check_output, projections

from methods.backbone import Backbone
from methods.base import Batch
from methods.cams import CAMS, CAMSConfig

RELEASED = {"attribute_word": "overwritten", "text_activation": "gelu"}
VERSIONS = {
    "": RELEASED,
    "_attribute_word": {"text_activation": "gelu"},
    "_text_quickgelu": {"attribute_word": "overwritten"},
    "_clean": {},
}
"""End of a phase's name -> settings."""
BRANCHES = {"global": "global", "pair": "comp", "state": "attr", "object": "obj"}  # our name -> official name
FAMILIES = {"pair": "comp", "state": "attr", "object": "obj"}

# Official piece of a name -> ours, after those all three-branch methods share.
NAMES = {
    r"^temp_logit$": "learned_scale",
    r"^csp\.soft_att_obj$": "prompts.table.weight",
    r"^csp\.com_ctx_vectors$": "prompts.families.pair.context",
    r"^csp\.att_ctx_vectors$": "prompts.families.state.context",
    r"^csp\.obj_ctx_vectors$": "prompts.families.object.context",
    r"^clip_model\.visual\.transformer\.resblocks\.(\d+)\.adapter_(attn|fnn)": r"adapters.adapters.vision_\1_\2",
    r"_fnn\.": "_mlp.",
    r"\.(up|down)_proj\.": r".\1.",
    r"^clip_model\.visual\.latent_units$": "spaces.units.values",
    r"^clip_model\.visual\.ln_norm": "spaces.norm",
    r"^clip_model\.visual\.tr_(\w)\.resblocks\.0": r"spaces.transformers.\1",
    r"^clip_model\.visual\.proj_(\w)\w\w$": r"spaces.projections.\1",
    r"^clip_model\.visual\.cross_attention": "spaces.units.readers.0",
    r"readers\.0\.attention": "readers.0",
    r"cross_attn\.wz": "gate_query",
    r"cross_attn\.uz": "gate_found",
    r"(transformers|projections)\.a": r"\1.state",
    r"(transformers|projections)\.o": r"\1.object",
    r"(transformers|projections)\.c": r"\1.pair",
    r"\.attn\.(in|out)_proj": r".attention.\1_proj",
    r"\.(ln_1|norm1)": ".norm",
    r"\.(ln_2|norm2)": ".feed_norm",
}


def read(golden: Callable[[str], SimpleNamespace], name: str) -> SimpleNamespace:
    """Return the golden file `name` as the `golden` fixture reads it, with images and the official weights added."""
    official = golden(name)
    stream = np.random.RandomState(official.meta["seed"])
    drawn = {
        key: _rounded(mean + deviation * stream.standard_normal(shape))
        for key, shape, mean, deviation in official.meta["drawn"]
    }
    digest = hashlib.sha256(b"".join(values.tobytes() for values in drawn.values())).hexdigest()
    assert digest == official.meta["drawn_sha256"], "the random weights are not those of the official run"
    stored = {key.removeprefix("param/"): value for key, value in official.arrays.items() if key.startswith("param/")}
    official.parameters = {key: torch.from_numpy(values) for key, values in drawn.items()} | stored
    official.arrays["input/images"] = golden("csp").arrays["input/images"]  # the same images
    return official


def _rounded(values: np.ndarray) -> np.ndarray:
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 2**6) / 2**6, exponent).astype(np.float16).astype(np.float32)


def build(backbone: Backbone, official: SimpleNamespace, **settings: object) -> CAMS:
    """Return a CAMS with the official weights and sizes and without dropout, in evaluation mode."""
    released = official.meta["hyper_parameters"]
    config = CAMSConfig(
        dropout=0.0, adapter_dropout=0.0, unit_dropout=0.0, read_dropout=0.0, part_dropout=0.0, feature_dropout=0.0,
        read_blocks=released["m_layers"],
        adapter_width=released["adapter_dim"],
        units=released["num_units"],
        loss_weights=tuple(released[f"{name}_loss_weight"] for name in ("glb", "com", "att", "obj")),
        beta=released["beta"],
        **settings,
    )  # fmt: skip
    method = CAMS(backbone, official.vocabulary, config).eval()
    branch_golden.load(method, official, NAMES)
    return method


def check_branches(near: Callable, method: CAMS, official: SimpleNamespace, phase: str, batch: Batch) -> None:
    """Compare text, image features, logits and losses of a phase with the golden ones; the batch must be encoded."""
    candidates = official.candidates if phase.startswith("eval") else official.train_candidates
    raw, text, job = method.prompts(method.text_side, candidates), method.text(candidates), official.meta["job"]
    for family, theirs in FAMILIES.items():
        for key, ours in (
            (f"out/{phase}/text_raw/{theirs}", raw[family]),
            (f"out/{phase}/text/{theirs}", text[family]),
        ):
            if key in official.arrays or f"sample/{key}" in official.arrays:
                check_output(near, official, key, ours, FEATURES)
    logits = method.logits(batch.encoded, text)
    for branch, theirs in BRANCHES.items():
        if f"out/{phase}/image/{theirs}" in official.arrays:
            feature = batch.encoded["image" if branch == "global" else branch]
            check_output(near, official, f"out/{phase}/image/{theirs}", feature, FEATURES)
        check_output(near, official, f"out/{phase}/logits_{theirs}", logits[branch], LOGITS)
    losses = method.losses(logits, batch)
    for branch, theirs in {**BRANCHES, "total": "total"}.items():
        ours = losses.total if branch == "total" else losses.terms[branch]
        near(f"{job} {phase} loss {theirs}", ours, official.arrays[f"loss/{phase}/{theirs}"], LOSSES)


def check_clean_gradients(near: Callable, method: CAMS, official: SimpleNamespace) -> None:
    """Compare the norm of the gradient of every trained tensor, and the projections kept, with the repaired code's."""
    trained, names = method.trained(), [name for name, _ in official.meta["gradients"]]
    assert len(names) == len(trained)
    norms = official.arrays["gradient_clean/norm"]
    ours = [trained[branch_golden.our_name(name, method.backbone.n_vision_blocks, NAMES)].grad for name in names]
    found = torch.tensor([float(gradient.double().norm()) for gradient in ours], dtype=torch.float64)
    near(f"{official.meta['job']} clean norms of the gradients", found / norms, torch.ones_like(norms), NORMS)
    expected = official.arrays["gradient_clean/projection"]
    kept = expected.isfinite().all(dim=1)
    assert kept.sum() == 62  # all but those of adapters and norms
    products = torch.from_numpy(np.stack([projections(gradient.numpy()) for gradient in ours]))
    what = f"{official.meta['job']} clean projections of the gradients"
    near(what, (products / norms[:, None])[kept], (expected / norms[:, None])[kept], GRADIENTS)
