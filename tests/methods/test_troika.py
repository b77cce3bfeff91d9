"""Troika: equal to the official implementation, and the promises of its description. `pytest -s` prints differences.

The golden files were made by running bighuang624/Troika at commit 1f3c546d on a random CLIP, fp32, CPU.
"""

from __future__ import annotations

import branch_golden as golden_files
import pytest
import torch
from branch_cases import VOCABULARY, all_pairs, eight_images, full_size_backbone
from branch_golden import BRANCHES, FEATURES

from datasets.base import Vocabulary
from methods.base import Batch
from methods.parts.scoring import unit
from methods.troika import Troika, TroikaConfig

# Official piece of a name -> ours, beside those all three-branch methods share.
NAMES = {r"^cmt": "traction.layers", r"^patch_norm": "traction.norm", r"^lamda$": "strength"}


@pytest.fixture(params=["troika_mitstates", "troika_cgqa"])
def troika(request, golden, golden_backbone):
    """The official numbers and a Troika with the official weights, in the released form, without dropout."""
    official = golden_files.read(golden, request.param)
    config = TroikaConfig(
        **golden_files.settings(official),
        traction_layers=official.meta["hyper_parameters"]["cmt_layers"],
        traction_dropout=0.0,
        compound_norm=True,
    )
    method = Troika(golden_backbone, official.vocabulary, config).eval()
    golden_files.load(method, official, NAMES)
    return official, method


def test_start(golden, golden_backbone, near):
    official = golden_files.read(golden, "troika_mitstates")
    method = Troika(golden_backbone, official.vocabulary, TroikaConfig())
    golden_files.check_start(near, method, official, golden("csp").arrays["init/soft_embeddings"])
    assert torch.equal(method.strength, torch.full((192,), 0.1))


def test_evaluation(troika, near):
    official, method = troika
    batch = method.encode(golden_files.batch_of(official, "input/eval_targets"))
    golden_files.check_branches(near, method, official, "eval", batch)
    tokens, memories = batch.features["tokens"], method.memories(batch.features)
    golden_files.check_output(near, official, "out/eval/image/patches", tokens, FEATURES)
    text = method.prepare(official.candidates).tensors
    for times, (branch, theirs) in enumerate(BRANCHES.items(), start=1):
        normed = method.traction.normalise(tokens, times)
        golden_files.check_output(near, official, f"out/eval/patch_norm/{theirs}", normed, FEATURES)
        drawn = method.traction(text[branch], memories[branch])
        golden_files.check_output(near, official, f"out/eval/cmt/{theirs}", drawn, FEATURES)
    golden_files.check_scores(near, method, official, batch)


def test_training(troika, near):
    official, method = troika
    batch = method.train().encode(golden_files.batch_of(official, "input/targets"))
    golden_files.check_batch_norm(near, method, official, NAMES)
    golden_files.check_branches(near, method, official, "train", batch)
    text, memories = method.prompts(method.backbone, official.train_candidates), method.memories(batch.features)
    for branch, theirs in BRANCHES.items():
        drawn = method.traction(unit(text[branch]), memories[branch])
        golden_files.check_output(near, official, f"out/train/cmt/{theirs}", drawn, FEATURES)
    losses = method.training_loss(batch, official.train_candidates)
    golden_files.check_losses(near, losses, official, "train")
    losses.total.backward()
    golden_files.check_gradients(near, method, official, NAMES)


def test_training_after_the_first_epoch(troika, near):
    official, method = troika
    method.config = method.config.model_copy(update={"train_mode": "first_epoch_only"})
    method.train().on_epoch_start(1)
    batch = method.encode(golden_files.batch_of(official, "input/targets"))
    golden_files.check_branches(near, method, official, "train_evalmode", batch)
    losses = method.training_loss(batch, official.train_candidates)
    golden_files.check_losses(near, losses, official, "train_evalmode")
    losses.total.backward()
    golden_files.check_gradient_norms(method, official, NAMES)


def test_gradients_in_chunks_and_recomputed(troika, near, monkeypatch):
    official, method = troika
    method.rows_at_once = 30
    monkeypatch.setattr(method.backbone, "recompute", True)
    losses = method.train().training_loss(golden_files.batch_of(official, "input/targets"), official.train_candidates)
    losses.total.backward()
    golden_files.check_gradients(near, method, official, NAMES)


# What the description promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "objects", "layers", "total"),
    [(115, 245, 3, 29_065_728), (16, 12, 2, 21_726_720), (413, 674, 2, 22_540_032)],
    ids=["mit_states", "ut_zappos", "cgqa"],
)
def test_parameter_counts_at_full_size(states, objects, layers, total):
    vocabulary = Vocabulary(("red",) * states, ("apple",) * objects)
    method = Troika(full_size_backbone(), vocabulary, TroikaConfig(traction_layers=layers))
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in method.named_children()}
    assert counts["adapters"] == 6_343_680 and counts["disentanglers"] == 1_184_256
    assert counts["prompts"] == {115: 283_392, 16: 28_416, 413: 841_728}[states]
    assert counts["traction"] + method.strength.numel() == layers * 7_084_032 + 2_304
    assert sum(parameter.numel() for parameter in method.trained().values()) == total


def test_without_strength_the_text_is_not_drawn(backbone):
    config = TroikaConfig(lambda_init=0.0, inference="pair")
    method = Troika(backbone, VOCABULARY, config).eval()
    scores = method.score(method.encode(eight_images()), method.prepare(all_pairs()), slice(None))
    text = unit(method.prompts(backbone, all_pairs(), dropout=False)["pair"])
    plain = backbone.logit_scale * unit(backbone.image_embedding(eight_images().images)) @ text.T
    torch.testing.assert_close(scores, plain, atol=1e-4, rtol=1e-5)


def test_compounding_norms_change_the_primitives_and_not_the_pairs(backbone):
    method = Troika(backbone, VOCABULARY, TroikaConfig()).eval()
    with torch.no_grad():
        method.traction.norm.weight.mul_(1 + 0.3 * torch.randn(24, generator=torch.Generator().manual_seed(0)))
    features = method.image_features(eight_images().images)
    text = {branch: method.prepare(all_pairs()).tensors[branch] for branch in BRANCHES}
    once = method.logits(features, text, method.memories(features))
    method.config = method.config.model_copy(update={"compound_norm": True})
    compound = method.logits(features, text, method.memories(features))
    torch.testing.assert_close(compound["pair"], once["pair"], atol=1e-4, rtol=0)
    for branch in ("state", "object"):
        assert (compound[branch] - once[branch]).abs().max() > 1e-3, branch


def test_patches_only_leave_the_class_token_out(backbone):
    features = [
        Troika(backbone, VOCABULARY, TroikaConfig(class_token=kept)).eval().image_features(eight_images().images)
        for kept in (True, False)
    ]
    assert torch.equal(features[1]["tokens"], features[0]["tokens"][:, 1:])
    assert features[0]["tokens"].shape[1] == backbone.n_patches + 1
    torch.testing.assert_close(features[0]["tokens"][:, 0], features[0]["pair"])


def test_without_layers_nothing_of_the_traction_is_trained(backbone):
    method = Troika(backbone, VOCABULARY, TroikaConfig(traction_layers=0)).eval()
    assert not any(name.startswith(("traction", "strength")) for name in method.trained())
    memory = method.memories(method.image_features(eight_images().images))["pair"]
    text = method.prepare(all_pairs()).tensors["pair"]
    assert method.attract(text, memory) is text


def test_a_last_batch_of_one_image(backbone):
    """A single image can be trained on: BatchNorm then uses its running statistics."""
    method = Troika(backbone, VOCABULARY, TroikaConfig()).train()
    batch = eight_images()
    alone = Batch(batch.states[:1], batch.objects[:1], batch.pairs[:1], batch.images[:1])
    assert method.training_loss(alone, all_pairs()).total.isfinite()
