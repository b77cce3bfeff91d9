"""CSP and CLIP zero-shot on a small random CLIP: the checks of the method's description that need no golden numbers."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import VOCABULARY, every_pair, scores, some_images
from torch import nn

from datasets.base import Candidates
from methods.base import Batch
from methods.clip_zero_shot import CLIPZeroShot
from methods.csp import CSP, CSPConfig
from methods.parts.prompts import PrimitiveTable, SoftPrompt
from methods.parts.scoring import cosine_logits, unit

PRESETS = Path(__file__).parents[2] / "benchmarks" / "presets"


@pytest.fixture
def candidates() -> Candidates:
    return every_pair()


@pytest.fixture
def batch() -> Batch:
    return some_images()


@pytest.fixture
def csp(backbone) -> CSP:
    """CSP without dropout, moved a little away from its initial table."""
    method = CSP(backbone, VOCABULARY, CSPConfig(dropout=0.0)).eval()
    with torch.no_grad():
        method.table.weight.add_(torch.randn(7, 48, generator=torch.Generator().manual_seed(1)))
    return method


def test_the_table_starts_from_the_words(backbone):
    table = CSP(backbone, VOCABULARY, CSPConfig()).table.weight
    assert table.shape == (3 + 4, 48)
    assert torch.equal(table, backbone.mean_token_embedding([*VOCABULARY.states, *VOCABULARY.objects]))


def test_before_training_single_token_pairs_score_as_zero_shot(backbone, batch, candidates):
    ours = scores(CSP(backbone, VOCABULARY, CSPConfig()).eval(), batch, candidates)
    clip = scores(CLIPZeroShot(backbone, VOCABULARY, CLIPZeroShot.Config()).eval(), batch, candidates)
    single = torch.from_numpy((candidates.states > 0) & (candidates.objects > 0))
    torch.testing.assert_close(ours[:, single], clip[:, single], atol=1e-4, rtol=1e-5)
    assert (ours[:, ~single] - clip[:, ~single]).abs().amin(dim=0).max() > 1e-3, "names of several tokens differ"


def test_an_initial_learned_context_changes_nothing(backbone, batch, candidates):
    csp, coop_like = (CSP(backbone, VOCABULARY, CSPConfig(learn_context=learn)).eval() for learn in (False, True))
    assert set(coop_like.trained()) == {"table.weight", "prompt.context"}
    assert coop_like.prompt.context.shape == (3, 48)
    torch.testing.assert_close(scores(csp, batch, candidates), scores(coop_like, batch, candidates))
    coop_like.training_loss(batch, candidates).total.backward()
    assert coop_like.prompt.context.grad.abs().min() > 0


def test_the_score_is_the_scaled_cosine(csp, batch, candidates):
    image = csp.image_features(batch.images)["image"]
    text = csp.pair_text(candidates, csp.table.weight)
    expected = csp.backbone.logit_scale * nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(scores(csp, batch, candidates), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["csp", "zero_shot"])
def test_chunks_and_order_of_candidates(kind, csp, backbone, batch, candidates, monkeypatch):
    method = csp if kind == "csp" else CLIPZeroShot(backbone, VOCABULARY, CLIPZeroShot.Config()).eval()
    whole = scores(method, batch, candidates)
    assert whole.shape == (8, 12) and whole.dtype == torch.float32 and not whole.requires_grad
    for size in (1, 5, 12):
        parts = [scores(method, batch, candidates, slice(at, at + size)) for at in range(0, 12, size)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    order = np.random.default_rng(0).permutation(12)
    torch.testing.assert_close(scores(method, batch, candidates.subset(order)), whole[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores(method, batch, candidates.subset(order[:4])), whole[:, order[:4]])
    monkeypatch.setattr(method.backbone, "text_chunk", 5)
    torch.testing.assert_close(scores(method, batch, candidates), whole, atol=1e-5, rtol=0)


def test_only_the_table_moves(csp, batch, candidates):
    before = {name: value.clone() for name, value in csp.backbone.state_dict().items()}
    start = csp.table.weight.detach().clone()
    assert set(csp.trained()) == {"table.weight"}
    optimizer = torch.optim.Adam(csp.train().parameter_groups(lr=1e-2, weight_decay=1e-5))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = csp.training_loss(batch, candidates)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0]
    assert (csp.table.weight - start).abs().amin() > 0, "every word occurs in a candidate"
    assert all(torch.equal(value, before[name]) for name, value in csp.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in csp.backbone.parameters())


def test_accumulating_halves_is_one_batch(csp, batch, candidates):
    def half(part: slice) -> Batch:
        return Batch(batch.states[part], batch.objects[part], batch.pairs[part], images=batch.images[part])

    csp.train()
    csp.training_loss(batch, candidates).total.backward()
    whole, csp.table.weight.grad = csp.table.weight.grad, None
    for part in (slice(0, 4), slice(4, 8)):
        (csp.training_loss(half(part), candidates).total / 2).backward()
    torch.testing.assert_close(csp.table.weight.grad, whole, atol=1e-6, rtol=1e-4)


def test_one_dropout_mask_for_the_whole_table(backbone, candidates, batch):
    method = CSP(backbone, VOCABULARY, CSPConfig(dropout=0.5))
    torch.manual_seed(0)
    dropped = method.train().table()
    vectors = method.prompt(dropped, method.table.pair_rows(candidates))
    for column, (state, obj) in enumerate(candidates.pairs):
        assert torch.equal(vectors[column, 4], dropped[state])
        assert torch.equal(vectors[column, 5], dropped[3 + obj])
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * method.table.weight[kept])
    assert 0.4 < kept.float().mean() < 0.6
    assert not torch.equal(method.table(), dropped), "a new mask in the next pass"
    assert torch.equal(method.eval().table(), method.table.weight)
    # Evaluation is never under dropout, whatever the mode (the official code encodes prompts before switching).
    evaluated = method.prepare(candidates).tensors["text"]
    assert torch.equal(method.train().prepare(candidates).tensors["text"], evaluated)


def test_cached_features_replace_images(csp, batch, candidates):
    features = csp.image_features(batch.images)
    assert set(features) == {"image"} and not features["image"].requires_grad
    cached = Batch(batch.states, batch.objects, batch.pairs, features=features)
    assert csp.encode(cached) is cached
    assert torch.equal(csp.training_loss(cached, candidates).total, csp.training_loss(batch, candidates).total)


def test_checkpoint_round_trip(csp, backbone, batch, candidates):
    stored = {name: tensor.clone() for name, tensor in csp.checkpoint().items()}
    assert set(stored) == {"table.weight"}
    fresh = CSP(backbone, VOCABULARY, CSPConfig(dropout=0.0)).eval()
    assert not torch.equal(scores(fresh, batch, candidates), scores(csp, batch, candidates))
    fresh.load_checkpoint(stored)
    assert torch.equal(scores(fresh, batch, candidates), scores(csp, batch, candidates))
    with pytest.raises(ValueError, match=r"table\.weight"):
        fresh.load_checkpoint({"table.weight": stored["table.weight"][1:]})
    assert CLIPZeroShot(backbone, VOCABULARY, CLIPZeroShot.Config()).checkpoint() == {}


def test_zero_shot_reports_a_loss_without_gradient(backbone, batch, candidates):
    method = CLIPZeroShot(backbone, VOCABULARY, CLIPZeroShot.Config())
    loss = method.training_loss(batch, candidates).total
    expected = nn.functional.cross_entropy(scores(method, batch, candidates), batch.pairs)
    torch.testing.assert_close(loss, expected)
    assert not loss.requires_grad and not method.trained()


def test_logits_are_fp32_under_autocast():
    image, text = torch.randn(4, 8), torch.randn(5, 8)
    expected = cosine_logits(image, unit(text), 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_logits(image, unit(text), 100.0), expected)


def test_other_prompt_families(backbone):
    """What CoOp and the three-branch methods will ask: a frozen table, and prompts with one slot."""
    frozen = PrimitiveTable(backbone, VOCABULARY, trainable=False)
    assert not list(frozen.parameters()) and not frozen.state_dict()
    primitive = SoftPrompt(backbone, "a photo of x", slots=1, learn_context=True, context_length=8)
    vectors = primitive(frozen(), torch.arange(7)[:, None])
    assert vectors.shape == (7, 8, 48) and primitive.eot == 5
    assert torch.equal(vectors[:, 4], frozen())
    assert torch.equal(vectors[0, [0, 5, 6, 7]], backbone.token_embedding(torch.tensor([49406, 49407, 0, 0])))
    assert torch.equal(vectors[0, 1:4], backbone.token_embedding(torch.tensor([320, 1125, 539])))


def test_random_rows_have_the_deviation_of_words(backbone):
    torch.manual_seed(0)
    words, drawn = (CSP(backbone, VOCABULARY, CSPConfig(init=init)).table.weight for init in ("words", "random"))
    assert drawn.std().item() == pytest.approx(words.std().item(), rel=0.15)
    assert abs(torch.corrcoef(torch.stack([words.flatten(), drawn.flatten()]))[0, 1]) < 0.2


@pytest.mark.parametrize("settings", [{"dropout": 1.0}, {"dropout": -0.1}, {"init": "zeros"}, {"drop_out": 0.1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        CSPConfig(**settings)


def test_presets_and_ablations_hold_valid_settings():
    method = CSP
    preset = tomllib.loads((PRESETS / f"{method.info.name}.toml").read_text())
    shared = preset["default"]
    keys = {"lr", "weight_decay", "optimizer", "scheduler", "epochs", "batch_size", "micro_batch"}
    keys |= {"augmentation", "selection"}
    for name in ("mit_states", "ut_zappos", "cgqa"):
        table = shared | preset[name]
        assert table.pop("source") and keys <= set(table), name
        assert table["batch_size"] % table["micro_batch"] == 0
        method.Config(**{key: value for key, value in table.items() if key not in keys})
    for ablation in method.info.ablations:
        method.Config(**ablation.changes)
