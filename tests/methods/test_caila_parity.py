"""CAILA against the released code: features, logits, scores, losses, gradients, one optimizer step.

The golden files were made by running zhaohengz/CAILA at commit 81d4dcd on a random CLIP, fp32, CPU, one thread.
"""

from __future__ import annotations

import caila_golden
import pytest
import torch
from caila_golden import BRANCHES, FILES, TABLE

from methods.parts.scoring import unit

SCORES, LOGITS, FEATURES, LOSSES, STEP = 2e-6, 1e-4, 5e-5, 2e-5, 5e-7


@pytest.fixture(scope="module", params=FILES)
def official(request, golden):
    found = golden(request.param)
    found.arrays["input/images"] = golden("csp").arrays["input/images"]  # the same images
    return found


@pytest.fixture(scope="module")
def method(official, golden_backbone):
    return caila_golden.build(official, golden_backbone)


@torch.no_grad()
def scored(method, official):
    batch = caila_golden.batch_of(official, official.arrays["input/images"], False)
    return method.score(method.encode(batch), method.prepare(official.candidates), slice(None))


@torch.no_grad()
def test_evaluation(method, official, near):
    method.eval()
    job, stored = official.meta["job"], official.arrays
    text = method.text_features(official.candidates)
    for branch, theirs in BRANCHES.items():
        near(f"{job} text {theirs}", text[branch], stored[f"out/eval/text_raw/{theirs}"], FEATURES)
    images = stored["input/images"]
    tokens = {branch: method.stream(images, branch) for branch in ("state", "object")}
    for branch, theirs in (("state", "attr"), ("object", "obj")):
        feature = method.primitive_feature(tokens[branch], branch)
        near(f"{job} image {theirs}", feature, stored[f"out/eval/image/{theirs}"], FEATURES)
    mixed = method.mixed_feature(tokens["state"], tokens["object"])
    near(f"{job} image mixture", mixed, stored["out/eval/image/mix"], FEATURES)
    near(f"{job} scores (cosines)", scored(method, official), stored["out/eval/scores"], SCORES)
    swapped = method.mixed_feature(tokens["object"], tokens["state"])
    near(f"{job} image mixture, streams exchanged", swapped, stored["out/eval/image/mix"], FEATURES)


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
def test_training(official, golden_backbone, near, shifted, monkeypatch):
    """Also with every prompt in full, which has the same numbers as shared beginnings."""
    kind = "train_shift" if shifted else "train"
    job, stored = official.meta["job"], official.arrays
    method = caila_golden.build(official, golden_backbone).train()
    logits, own = [], torch.nn.functional.cross_entropy

    def watched(values, labels, **options):
        logits.append(values.detach())
        return own(values, labels, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    batch = caila_golden.batch_of(official, stored["input/images"], shifted)
    for shared in (True, False) if not shifted else (True,):
        method.zero_grad()
        logits.clear()
        method.backbone.shared_prefix = shared
        losses = method.training_loss(batch, official.train_candidates)
        losses.total.backward()
        for (branch, theirs), ours in zip(BRANCHES.items(), logits, strict=True):
            near(f"{job} {kind} logits {theirs}", ours, stored[f"out/{kind}/logits_{theirs}"], LOGITS)
            near(f"{job} {kind} loss {theirs}", losses.terms[branch], stored[f"loss/{kind}/{theirs}"], LOSSES)
        near(f"{job} {kind} loss total", losses.total, stored[f"loss/{kind}/total"], LOSSES)
        caila_golden.check_gradients(near, method, official, "gradient_shift" if shifted else "gradient")
    template = method.backbone.clip.token_embedding.weight.grad[[49406, 320, 1125, 539]]
    assert not template.any(), "the beginning is detached, and no label here has its words"


SWITCHES = {
    "combine_output_false": {},  # the flag has no effect in the released code
    "combine_latent_false": {"combine_latent": False, "combine_output": False},
    "sum": {"combination": "sum"},
    "product": {"combination": "product"},
    "no_mixture_blocks": {"mixture_layers": 0},
    "no_vision_adapters": {"vision_adapters": False},
    "adapters_4_to_19": {"adapter_start": 4, "adapter_end": 20},
    "no_text_adapters": {"text_adapters": False},
}


@pytest.mark.parametrize("official", FILES[:1], indirect=True)
def test_switches(official, golden_backbone, near):
    for name in official.meta["switches"]:
        method = caila_golden.build(official, golden_backbone, **SWITCHES[name]).eval()
        expected = official.arrays[f"out/eval_switch/{name}/scores"]
        near(f"{official.meta['job']} {name} scores", scored(method, official), expected, SCORES)


def test_the_own_scales_begin_at_twenty_times_that_of_clip(official, golden_backbone, near):
    fresh = caila_golden.CAILA(golden_backbone, official.vocabulary, caila_golden.settings(official))
    for branch, theirs in (("state", "attr"), ("object", "obj")):
        near("initial scale", fresh.scales[branch], official.arrays[f"init/{theirs}_logit_scale"], 1e-6)
    golden_backbone.clip.requires_grad_(False)  # others use it frozen


@pytest.mark.parametrize("official", FILES[:1], indirect=True)
def test_one_official_optimizer_step_moves_rows_without_gradient_too(official, golden_backbone, near):
    """The stored gradients are fed: where gradient and decay nearly cancel, rounding decides the sign."""
    asked, arrays = official.meta["hyper_parameters"], official.arrays
    moved = {}
    for decay in ("coupled", "none"):
        method = caila_golden.build(official, golden_backbone, token_decay=decay)
        trained = {caila_golden.their_name(name): parameter for name, parameter in method.trained().items()}
        rows = arrays[f"param/{TABLE}.ids"]
        for key in [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]:
            if key.startswith(TABLE):
                trained[TABLE].grad = torch.zeros_like(trained[TABLE]).index_copy_(0, rows, arrays[f"grad/{key}"])
            else:
                trained[key].grad = arrays[f"grad/{key}"].clone()
        before = trained[TABLE].detach()[rows].clone()
        torch.optim.Adam(method.parameter_groups(asked["lr"], asked["wd"])).step()
        moved[decay] = trained[TABLE].detach()[rows] - before
        if decay == "coupled":
            for key in [key.removeprefix("step/") for key in arrays if key.startswith("step/")]:
                ours = trained[TABLE][rows] if key.startswith(TABLE) else trained[key]
                near(f"{official.meta['job']} step", ours, arrays[f"step/{key}"], STEP)
    idle = [row for row, token in enumerate(rows.tolist()) if not arrays[f"grad/{TABLE}.rows"][row].any()]
    assert {*official.meta["idle_token_ids"], 49406, 320, 1125, 539} <= {int(rows[row]) for row in idle}
    # By the learning rate, but for values so near zero that Adam's epsilon counts.
    assert ((moved["coupled"][idle].abs() / asked["lr"] - 1).abs() < 0.01).float().mean() > 0.98
    assert not moved["none"][idle].any()


def test_plausible_mistakes_are_seen(method, official):
    """What the limit of the scores is for: text normalised before the mean, class tokens averaged after the norm."""
    method.eval()
    with torch.no_grad():
        text = method.text_features(official.candidates)
        states, objects = torch.as_tensor(official.candidates.pairs).T
        early = unit(unit(text["pair"]) + unit(text["state"])[states] + unit(text["object"])[objects])
        batch = caila_golden.batch_of(official, official.arrays["input/images"], False)
        image = unit(method.encode(batch).encoded["image"])
    assert (image @ early.T - official.arrays["out/eval/scores"]).abs().max() > 1e-4
