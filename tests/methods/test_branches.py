"""What Troika and MSCI promise alike, with every one of their switches, on a small random CLIP."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from branch_cases import VOCABULARY, all_pairs, eight_images, perturb
from pydantic import ValidationError

from benchmarks.evaluation.scoring import score_images
from benchmarks.runs.resolution import resolve
from datasets.base import Candidates
from methods.base import Batch
from methods.msci import MSCI, MSCIConfig
from methods.parts.branches import ThreeBranch
from methods.parts.scoring import unit
from methods.troika import Troika, TroikaConfig

METHODS = (Troika, MSCI)
RULES = ("probability_product", "logit_product", "probability_sum", "logit_sum", "log_sum", "pair")
SWITCHES = [
    pytest.param(kind, dict(ablation.changes), id=f"{kind.info.name}-{ablation.name}")
    for kind in METHODS
    for ablation in kind.info.ablations
]
QUIET = {"dropout": 0.0, "adapter_dropout": 0.0, "disentangler_dropout": 0.0}
STAGE_QUIET = {
    Troika: {"traction_dropout": 0.0},
    MSCI: {"stage_1_dropout": 0.0, "stage_2_dropout": 0.0, "aggregator_dropout": 0.0, "fusion_dropout": 0.0},
}


def build(kind: type[ThreeBranch], backbone, quiet: bool = False, **settings) -> ThreeBranch:
    """A method in evaluation mode, moved away from its start."""
    torch.manual_seed(0)
    silence = QUIET | STAGE_QUIET[kind] if quiet else {}
    method = kind(backbone, VOCABULARY, kind.Config.model_validate(silence | settings)).eval()
    perturb(method)
    return method


def scores(method: ThreeBranch, candidates: Candidates, chunk: slice = slice(None), batch: Batch | None = None):
    encoded = method.encode(eight_images() if batch is None else batch)
    return method.score(encoded, method.prepare(candidates), chunk)


@pytest.fixture(params=METHODS, ids=lambda kind: kind.info.name)
def kind(request) -> type[ThreeBranch]:
    return request.param


# Scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "changes"), SWITCHES)
def test_scores_with_every_switch(kind, changes, backbone):
    """Exact under chunks and order of candidates, and independent of batch mates."""
    method, batch, candidates = build(kind, backbone, **changes), eight_images(), all_pairs()
    encoded, prepared = method.encode(batch), method.prepare(candidates)
    whole = method.score(encoded, prepared, slice(None))
    assert whole.shape == (8, 12) and whole.dtype == torch.float32 and not whole.requires_grad
    assert whole.isfinite().all() and whole.std(dim=1).min() > 0 and whole.std(dim=0).min() > 0
    limits = {"atol": 2e-5 * float(whole.abs().max()), "rtol": 0}
    method.rows_at_once = 20
    parts = [method.score(encoded, prepared, slice(at, at + 5)) for at in (0, 5, 10)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **limits)
    order = np.random.default_rng(0).permutation(12)
    torch.testing.assert_close(scores(method, candidates.subset(order)), whole[:, order], **limits)
    alone = Batch(batch.states[2:3], batch.objects[2:3], batch.pairs[2:3], images=batch.images[2:3])
    torch.testing.assert_close(scores(method, candidates, batch=alone), whole[2:3], **limits)


@pytest.mark.parametrize("rule", RULES)
def test_what_scores_say_about_other_candidates(kind, rule, backbone):
    method = build(kind, backbone, inference=rule)
    whole, few = scores(method, all_pairs()), scores(method, all_pairs().subset([1, 5, 6]))
    same = torch.allclose(few, whole[:, [1, 5, 6]], atol=1e-4, rtol=1e-4)
    assert same is method.info.candidate_independent
    assert kind.info.candidate_independent is True, "the class speaks of the default rule"


@pytest.mark.parametrize("rule", ["probability_product", "logit_product"])
def test_scores_through_the_suite(kind, rule, backbone):
    """In inference mode, in batches, in chunks, from training mode: the same as written out."""
    method, batch = build(kind, backbone, inference=rule), eight_images()
    candidates = all_pairs()
    text = {branch: unit(vectors) for branch, vectors in method.prompts(backbone, candidates).items()}
    features = method.image_features(batch.images)
    logits = method.logits(features, text, method.memories(features))
    states, objects = torch.from_numpy(candidates.states), torch.from_numpy(candidates.objects)
    product = logits["state"].softmax(1)[:, states] * logits["object"].softmax(1)[:, objects]
    expected = product + (logits["pair"] if rule == "logit_product" else logits["pair"].softmax(1))
    halves = [
        Batch(batch.states[part], batch.objects[part], batch.pairs[part], images=batch.images[part])
        for part in (slice(0, 5), slice(5, 8))
    ]
    record = score_images(method.train(), halves, candidates, pair_chunk=5)
    assert method.training
    seen = torch.from_numpy(candidates.seen)
    best = expected.masked_fill(~seen, -torch.inf).amax(dim=1).detach().numpy()
    np.testing.assert_allclose(record.best_seen, best, rtol=1e-4)
    true_scores = expected[torch.arange(8), batch.pairs].detach().numpy()
    np.testing.assert_allclose(record.true_score, true_scores, rtol=1e-4, atol=1e-6)


def test_savings_of_cross_attention_change_nothing(kind, backbone, monkeypatch):
    """Keys and values once for all branches, branches together, the first query once for all images: and without."""
    method = build(kind, backbone)
    images = eight_images().images
    tensors = method.prepare(all_pairs()).tensors
    results = []
    for saved in (True, False):
        method.zero_grad()
        features = method.image_features(images)
        text = {branch: tensors[branch].clone().requires_grad_() for branch in method.config.branches}
        if saved:
            logits = method.logits(features, text, method.memories(features))
        else:
            once = method.attract
            monkeypatch.setattr(method, "attract", lambda text, memory, of=once: of(text.expand(8, -1, -1), memory))
            logits = {}
            for branch, vectors in text.items():
                own = {branch: method.memories(features)[branch]}
                logits |= method.logits(features, {branch: vectors}, own)
        sum(value.square().sum() for value in logits.values()).backward()
        gradients = {name: value.grad.clone() for name, value in method.trained().items() if value.grad is not None}
        results.append(logits | gradients | {f"text {branch}": vectors.grad for branch, vectors in text.items()})
    assert results[0].keys() == results[1].keys() and len(results[0]) > 20
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=2e-5, rtol=1e-3, msg=name)


def test_weights_of_the_final_test(kind, backbone):
    settings = {"test_score_weights": (0.1, 0.9, 0.9), "open_test_score_weights": (0.3, 0.7, 0.7)}
    settings |= {"test_primitive_divisor": 2, "open_test_primitive_divisor": 28}
    method = build(kind, backbone, **settings)
    assert [method.fusion(world).weights for world in ("closed", "open")] == [(1, 1, 1)] * 2
    assert method.fusion("closed").divisor == 1
    method.on_final_evaluation()
    assert (method.fusion("closed").weights, method.fusion("closed").divisor) == ((0.1, 0.9, 0.9), 2)
    assert (method.fusion("open").weights, method.fusion("open").divisor) == ((0.3, 0.7, 0.7), 28)
    unchanged = build(kind, backbone, score_weights=(1.0, 0.5, 0.5))
    unchanged.on_final_evaluation()
    assert unchanged.fusion("closed").weights == (1.0, 0.5, 0.5)


def test_logits_are_fp32_under_autocast(kind, backbone):
    method = build(kind, backbone, quiet=True, inference="logit_product")
    exact = scores(method, all_pairs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = scores(method, all_pairs())
        loss = method.train().training_loss(eight_images(), all_pairs())
    assert rough.dtype == torch.float32 and loss.total.isfinite()
    assert len(rough.unique()) > 90, "logits in half precision would tie"
    torch.testing.assert_close(rough, exact, atol=5.0, rtol=0)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "changes"), SWITCHES)
def test_every_trained_tensor_gets_a_gradient(kind, changes, backbone):
    method = build(kind, backbone, **changes).train()
    losses = method.training_loss(eight_images(), all_pairs())
    assert set(losses.terms) == set(method.config.branches)
    losses.total.backward()
    silent = [name for name, value in method.trained().items() if value.grad is None or not value.grad.abs().max() > 0]
    # The bias in front of BatchNorm has no effect in training: its gradient is rounding noise, or nothing.
    assert not [name for name in silent if not name.startswith("disentanglers") or "linear.bias" not in name]
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_clip_stays_and_the_loss_falls(kind, backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    method = build(kind, backbone, quiet=True).train()
    start = {name: value.detach().clone() for name, value in method.trained().items()}
    optimizer = torch.optim.Adam(method.parameter_groups(lr=1e-3, weight_decay=1e-5))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = method.training_loss(eight_images(), all_pairs()).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all((value - start[name]).abs().max() > 0 for name, value in method.trained().items())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_fresh_method_sees_the_image_as_clip_does(kind, backbone):
    method = kind(backbone, VOCABULARY, kind.Config(branches=("pair",))).eval()
    images = eight_images().images
    plain = backbone.image_embedding(images)
    torch.testing.assert_close(method.image_features(images)["pair"], plain, atol=1e-5, rtol=0)
    method.train().training_loss(eight_images(), all_pairs()).total.backward()
    for name, parameter in method.adapters.named_parameters():
        # W_up is zero, so nothing reaches what lies before it in the first step.
        assert bool(parameter.grad.abs().max() > 0) is (".up." in name), name


def test_losses_are_weighted(kind, backbone):
    method = build(kind, backbone, loss_weights=(1.0, 0.1, 0.2))
    losses = method.training_loss(eight_images(), all_pairs())
    terms = losses.terms
    torch.testing.assert_close(losses.total, terms["pair"] + 0.1 * terms["state"] + 0.2 * terms["object"])


def test_chunks_and_recomputing_change_no_gradient(kind, backbone, monkeypatch):
    """With dropout: the same random numbers are drawn again."""
    method = build(kind, backbone, dropout=0.5).train()
    gradients = []
    for recompute in (False, True):
        method.zero_grad()
        method.rows_at_once = 40
        monkeypatch.setattr(backbone, "recompute", recompute)
        torch.manual_seed(0)
        method.training_loss(eight_images(), all_pairs()).total.backward()
        gradients.append({name: value.grad.clone() for name, value in method.trained().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_train_mode_after_the_first_epoch(kind, backbone):
    usual, released = (build(kind, backbone, train_mode=mode) for mode in ("every_epoch", "first_epoch_only"))
    for method in (usual, released):
        method.train().on_epoch_start(0)
        assert all(module.training for module in method.disentanglers.modules())
        method.on_epoch_start(1)
    assert usual.training and not any(module.training for module in released.modules())
    before = {name: value.clone() for name, value in released.named_buffers()}
    first, second = (released.training_loss(eight_images(), all_pairs()).total for _ in range(2))
    assert torch.equal(first, second), "no dropout"
    assert all(torch.equal(value, before[name]) for name, value in released.named_buffers())


def test_validation_losses(kind, backbone):
    method = build(kind, backbone, inference="logit_product")
    batch, prepared = method.encode(eight_images()), method.prepare(all_pairs())
    clean, training = method.validation_losses(batch, prepared), method.training_loss(batch, all_pairs())
    torch.testing.assert_close(clean.total, training.total)
    assert not clean.total.requires_grad
    strange = replace(batch, pairs=torch.full((8,), -1))
    strange.pairs[0] = 3
    assert method.validation_losses(strange, prepared).terms["pair"].isfinite()


# State ----------------------------------------------------------------------------------------------------------------


def test_checkpoint_round_trip(kind, backbone):
    method = build(kind, backbone)
    with torch.no_grad():
        method.train().training_loss(eight_images(), all_pairs())  # moves BatchNorm's statistics
    method.eval()
    stored = {name: value.clone() for name, value in method.checkpoint().items()}
    assert sum("running" in name for name in stored) == 4 and not any("backbone" in name for name in stored)
    fresh = kind(backbone, VOCABULARY, method.config).eval()
    assert not torch.equal(scores(fresh, all_pairs()), scores(method, all_pairs()))
    fresh.load_checkpoint(stored)
    assert torch.equal(scores(fresh, all_pairs()), scores(method, all_pairs()))


@pytest.mark.parametrize("profile", ["clean", "official"])
@pytest.mark.parametrize("dataset", ["mit_states", "ut_zappos", "cgqa"])
def test_presets_hold_valid_settings(kind, profile, dataset):
    resolved = resolve(kind.info.name, kind.Config, dataset, profile=profile)
    training, values, provenance = resolved.training, resolved.method, resolved.provenance
    assert provenance["lr"]["origin"] == "preset" and all(p.get("source") for p in provenance.values() if "where" in p)
    assert training.micro_batch is None, "BatchNorm sees the micro-batch"
    config = kind.Config.model_validate(values)
    assert config.train_mode == ("every_epoch" if profile == "clean" else "first_epoch_only")
    assert config.inference == "logit_product"
    assert config.test_primitive_divisor == {"mit_states": 2, "cgqa": 8}.get(dataset, 1) or profile == "clean"


def test_ablations_are_named_once_and_change_something(kind):
    names = [ablation.name for ablation in kind.info.ablations]
    assert len(names) == len(set(names))
    for ablation in kind.info.ablations:
        assert kind.Config.model_validate(dict(ablation.changes)) != kind.Config(), ablation.name
        assert ablation.question.endswith("?")


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 1.0},
        {"branches": []},
        {"branches": ["pairs"]},
        {"loss_weights": (1.0, 1.0)},
        {"loss_weights": (1.0, -1.0, 1.0)},
        {"test_primitive_divisor": 0},
        {"adapters": "all"},
    ],
)
def test_wrong_settings_are_refused(settings):
    for config in (TroikaConfig, MSCIConfig):
        with pytest.raises(ValidationError):
            config(**settings)
    assert TroikaConfig(branches=("object", "pair")).branches == ("pair", "object")
