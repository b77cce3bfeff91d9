"""CoOp: the official numbers, and the checks of its description on a small random CLIP."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import VOCABULARY, every_pair, scores, some_images

from benchmarks.runs.resolution import resolve
from datasets.base import Candidates
from methods.base import Batch
from methods.clip_zero_shot import CLIPZeroShot
from methods.coop import CoOp, CoOpConfig
from methods.csp import CSP, CSPConfig
from methods.parts.prompts import SoftPrompt

LOGITS, FEATURES, LOSSES, GRADIENTS = 2e-4, 5e-5, 2e-5, 3e-4


@pytest.fixture
def candidates() -> Candidates:
    return every_pair()


@pytest.fixture
def batch() -> Batch:
    return some_images()


@pytest.fixture
def coop(backbone) -> CoOp:
    """CoOp, moved a little away from its initial context."""
    method = CoOp(backbone, VOCABULARY, CoOpConfig()).eval()
    with torch.no_grad():
        method.prompt.context.add_(torch.randn(3, 48, generator=torch.Generator().manual_seed(1)))
    return method


@pytest.fixture
def official_coop(golden, golden_backbone):
    """The official numbers and a CoOp with the official weights; the images are those of the file of CSP."""
    official = golden("coop")
    method = CoOp(golden_backbone, official.vocabulary, CoOpConfig()).eval()
    # Official names: soft_embeddings -> prompt.context, frozen_embeddings -> table.weight (a constant, not loaded).
    method.load_checkpoint({"prompt.context": official.arrays["param/soft_embeddings"]})
    images = golden("csp").arrays["input/images"]

    def batch_of(targets: str) -> Batch:
        return Batch(*official.arrays[targets].T, images=images)

    return official, method, batch_of


def test_parity_at_the_start(golden, golden_backbone, official_coop, near):
    official, method, _ = official_coop
    fresh = CoOp(golden_backbone, official.vocabulary, CoOpConfig())
    near("coop initial context", fresh.prompt.context, official.arrays["init/soft_embeddings"], 1e-7)
    near("coop constant table", method.table.weight, official.arrays["param/frozen_embeddings"], 1e-7)


def test_parity_in_evaluation(official_coop, near):
    official, method, batch_of = official_coop
    expected = official.arrays
    padded = SoftPrompt(method.backbone, learn_context=True, context_length=8)
    padded.load_state_dict(method.prompt.state_dict())
    vectors = padded(method.table.weight, method.table.pair_rows(official.candidates))
    near("coop token vectors", vectors, expected["out/eval/token_tensors"], 1e-7)
    near("coop eval text", method.pair_text(official.candidates), expected["out/eval/text_raw"], FEATURES)
    batch = method.encode(batch_of("input/eval_targets"))
    near("coop eval image", batch.features["image"], expected["out/eval/image"], FEATURES)
    near("coop eval scores", scores(method, batch, official.candidates), expected["out/eval/logits"], LOGITS)


def test_parity_in_training(official_coop, near):
    official, method, batch_of = official_coop
    expected, batch = official.arrays, batch_of("input/targets")
    method.train()
    near("coop train text", method.pair_text(official.train_candidates), expected["out/train/text_raw"], FEATURES)
    logits = method.pair_logits(batch, official.train_candidates)
    near("coop train logits", logits, expected["out/train/logits"], LOGITS)
    losses = method.training_loss(batch, official.train_candidates)
    near("coop train loss", losses.total, expected["loss/train/total"], LOSSES)
    losses.total.backward()
    gradient = method.prompt.context.grad
    near("coop gradient", gradient, expected["grad/soft_embeddings"], GRADIENTS, relative=True)


def test_before_training_it_is_csp(backbone, batch, candidates):
    coop = CoOp(backbone, VOCABULARY, CoOpConfig()).eval()
    csp = CSP(backbone, VOCABULARY, CSPConfig()).eval()
    torch.testing.assert_close(scores(coop, batch, candidates), scores(csp, batch, candidates), atol=1e-5, rtol=0)
    clip = scores(CLIPZeroShot(backbone, VOCABULARY, CLIPZeroShot.Config()).eval(), batch, candidates)
    single = torch.from_numpy((candidates.states > 0) & (candidates.objects > 0))
    torch.testing.assert_close(scores(coop, batch, candidates)[:, single], clip[:, single], atol=1e-4, rtol=1e-5)


def test_chunks_and_order_of_candidates(coop, batch, candidates):
    whole = scores(coop, batch, candidates)
    assert whole.shape == (8, 12) and whole.dtype == torch.float32 and not whole.requires_grad
    for size in (1, 5):
        parts = [scores(coop, batch, candidates, slice(at, at + size)) for at in range(0, 12, size)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    order = np.random.default_rng(0).permutation(12)[:7]
    torch.testing.assert_close(scores(coop, batch, candidates.subset(order)), whole[:, order], atol=1e-5, rtol=0)


def test_only_the_context_moves(coop, batch, candidates):
    before = {name: value.clone() for name, value in coop.state_dict(keep_vars=False).items()}
    table = coop.table.weight.clone()
    assert set(coop.trained()) == {"prompt.context"} == set(coop.checkpoint())
    optimizer = torch.optim.Adam(coop.train().parameter_groups(lr=1e-2, weight_decay=1e-5))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = coop.training_loss(batch, candidates)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0]
    moved = {name for name, value in coop.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"prompt.context"} and torch.equal(coop.table.weight, table)


def test_checkpoint_round_trip(coop, backbone, batch, candidates):
    stored = {name: tensor.clone() for name, tensor in coop.checkpoint().items()}
    fresh = CoOp(backbone, VOCABULARY, CoOpConfig()).eval()
    assert not torch.equal(scores(fresh, batch, candidates), scores(coop, batch, candidates))
    fresh.load_checkpoint(stored)
    assert torch.equal(scores(fresh, batch, candidates), scores(coop, batch, candidates))


def test_random_context(backbone):
    torch.manual_seed(0)
    context = CoOp(backbone, VOCABULARY, CoOpConfig(context_init="random")).prompt.context
    assert context.shape == (3, 48) and 0.015 < context.std().item() < 0.025
    with pytest.raises(ValidationError):
        CoOpConfig(context_init="zeros")


def test_presets_and_ablations_hold_valid_settings():
    tables = tomllib.loads((Path(__file__).parents[2] / "benchmarks" / "presets" / "coop.toml").read_text())
    for dataset in ("mit_states", "ut_zappos", "cgqa"):
        assert tables[dataset]["source"]
        for profile in ("clean", "official"):
            training = resolve("coop", CoOpConfig, dataset, profile=profile).training
            assert training.batch_size == 128
    for ablation in CoOp.info.ablations:
        assert ablation.question.endswith("?") and CoOpConfig(**ablation.changes) != CoOpConfig()
