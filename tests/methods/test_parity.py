"""The official implementations' numbers: same weights in, same numbers out. `pytest -s` prints the largest differences.

The golden files were made by running BatsResearch/csp at commit 029a4afb on a random CLIP, fp32, CPU.
"""

from __future__ import annotations

import pytest
import torch

from methods.base import Batch
from methods.clip_zero_shot import CLIPZeroShot
from methods.csp import CSP, CSPConfig
from methods.parts.prompts import SoftPrompt
from methods.parts.scoring import unit

LOGITS, FEATURES, LOSSES, GRADIENTS = 2e-4, 5e-5, 2e-5, 3e-4


@pytest.fixture
def csp(golden, golden_backbone):
    """The official numbers and a CSP with the official weights, dropout 0."""
    official = golden("csp")
    method = CSP(golden_backbone, official.vocabulary, CSPConfig(dropout=0.0)).eval()
    # Official name -> ours: soft_embeddings -> table.weight.
    method.load_checkpoint({"table.weight": official.arrays["param/soft_embeddings"]})
    return official, method


def batch_of(official, targets: str) -> Batch:
    states, objects, pairs = official.arrays[targets].T
    return Batch(states, objects, pairs, images=official.arrays["input/images"])


def test_csp_starts_from_the_words(golden, golden_backbone, near):
    official = golden("csp")
    method = CSP(golden_backbone, official.vocabulary, CSPConfig())
    near("csp initial table", method.table.weight, official.arrays["init/soft_embeddings"], 1e-7)


def test_token_ids(golden, golden_backbone):
    official, zero_shot = golden("csp"), golden("clip_zeroshot")
    names = official.meta["attributes_clean"] + official.meta["objects_clean"]
    assert golden_backbone.tokenize(names, 8).equal(official.arrays["input/token_ids/primitives"])
    assert golden_backbone.tokenize(["a photo of X X"], 8).equal(official.arrays["input/token_ids/template"])
    sentences = [
        f"a photo of {official.meta['attributes_clean'][state]} {official.meta['objects_clean'][obj]}"
        for state, obj in zero_shot.candidates.pairs
    ]
    assert golden_backbone.tokenize(sentences, 16).equal(zero_shot.arrays["input/token_ids/prompts"])


def test_csp_in_evaluation(csp, near):
    official, method = csp
    expected = official.arrays
    padded = SoftPrompt(method.backbone, context_length=8)
    vectors = padded(method.table(), method.table.pair_rows(official.candidates))
    near("csp token vectors", vectors, expected["out/eval/token_tensors"], 0.0)
    raw = method.pair_text(official.candidates, method.table.weight)
    near("csp eval text, raw", raw, expected["out/eval/text_raw"], FEATURES)
    near("csp eval text", unit(raw), expected["out/eval/text"], FEATURES)
    batch = method.encode(batch_of(official, "input/eval_targets"))
    near("csp eval image", batch.features["image"], expected["out/eval/image"], FEATURES)
    scores = method.score(batch, method.prepare(official.candidates), slice(None))
    near("csp eval logits", scores, expected["out/eval/logits"], LOGITS)
    near("csp eval scores", scores, expected["out/eval/scores"], LOGITS)


def test_csp_in_training(csp, near):
    official, method = csp
    expected = official.arrays
    method.train()
    batch = batch_of(official, "input/targets")
    raw = method.pair_text(official.train_candidates, method.table())
    near("csp train text, raw", raw, expected["out/train/text_raw"], FEATURES)
    near("csp train image", method.image_features(batch.images)["image"], expected["out/train/image"], FEATURES)
    near("csp train logits", method.pair_logits(batch, official.train_candidates), expected["out/train/logits"], LOGITS)
    losses = method.training_loss(batch, official.train_candidates)
    near("csp train loss", losses.total, expected["loss/train/total"], LOSSES)
    losses.total.backward()
    gradient = method.table.weight.grad
    near("csp gradient of the table", gradient, expected["grad/soft_embeddings"], GRADIENTS, relative=True)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_csp_gradient_survives_passes_and_recomputing(csp, near, monkeypatch, checkpoint):
    official, method = csp
    monkeypatch.setattr(method.backbone, "text_chunk", 5)
    monkeypatch.setattr(method.backbone, "recompute", checkpoint)
    method.train().training_loss(batch_of(official, "input/targets"), official.train_candidates).total.backward()
    expected = official.arrays["grad/soft_embeddings"]
    near("csp gradient, passes of 5", method.table.weight.grad, expected, GRADIENTS, relative=True)


def test_clip_zero_shot(golden, golden_backbone, near):
    official = golden("clip_zeroshot")
    expected = official.arrays
    method = CLIPZeroShot(golden_backbone, official.vocabulary, CLIPZeroShot.Config()).eval()
    raw = method.pair_text(official.candidates)
    near("clip zero-shot text, raw", raw, expected["out/eval/text_raw"], FEATURES)
    near("clip zero-shot text", unit(raw), expected["out/eval/text"], FEATURES)
    batch = method.encode(batch_of(official, "input/eval_targets"))
    near("clip zero-shot image", batch.features["image"], expected["out/eval/image"], FEATURES)
    scores = method.score(batch, method.prepare(official.candidates), slice(None))
    near("clip zero-shot scores", scores, expected["out/eval/scores"], LOGITS)
    loss = method.training_loss(batch, official.candidates).total
    exact = torch.nn.functional.cross_entropy(expected["out/eval/scores"], batch.pairs)
    near("clip zero-shot loss", loss, exact, LOSSES)
