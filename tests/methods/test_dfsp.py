"""DFSP on a small random CLIP: the checks of its description that need no golden numbers."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import VOCABULARY, every_pair, scores, some_images
from torch import nn

from benchmarks.runs.resolution import resolve
from datasets.base import Candidates
from errors import UserError
from methods.base import Batch
from methods.csp import CSP, CSPConfig
from methods.dfsp import DFSP, DFSPConfig
from methods.parts.dfsp_fusion import DecomposedFusion, FusionBlock, ImageToText, run_to_row, self_blocks
from methods.parts.memo import LastCall

ALL = ("t2i", "i2t", "bif", "none")
# Zero in exact arithmetic: they move whole rows, and a LayerNorm follows.
WITHOUT_GRADIENT = ("to_image.tokens.bias", "to_text.tokens.bias")


@pytest.fixture
def candidates() -> Candidates:
    return every_pair()


@pytest.fixture
def batch() -> Batch:
    return some_images(7)


@pytest.fixture
def make(backbone):
    """Return a function that builds a DFSP without dropout, whose fused features weigh as much as CLIP's own."""

    def build(fusion: str = "t2i", **settings) -> DFSP:
        torch.manual_seed(3)
        fixed = {"dropout": 0.0, "fusion_dropout": 0.0, "clip_share": 0.5} | settings
        return DFSP(backbone, VOCABULARY, DFSPConfig(fusion=fusion, **fixed)).eval()

    return build


def part_of(batch: Batch, part: slice | list[int]) -> Batch:
    return Batch(batch.states[part], batch.objects[part], batch.pairs[part], images=batch.images[part])


def branch_logits(method, batch, candidates):
    """The logits of all branches, without dropout."""
    text = method.text(candidates, method.table.weight, primitives=True)
    return method.branch_logits(method.encode(batch).features, text)


def test_without_fusion_it_is_csp_with_a_learned_context(make, backbone, batch, candidates):
    method = make("none")
    csp = CSP(backbone, VOCABULARY, CSPConfig(learn_context=True, dropout=0.0)).eval()
    torch.testing.assert_close(scores(method, batch, candidates), scores(csp, batch, candidates), atol=2e-5, rtol=0)
    logits = branch_logits(method, batch, candidates)
    torch.testing.assert_close(logits["pair"], logits["soft_prompt"])
    terms = method.training_loss(batch, candidates)
    expected = 1.1 * terms.terms["pair"] + 0.01 * (terms.terms["state"] + terms.terms["object"])
    torch.testing.assert_close(terms.total, expected)
    assert set(method.trained()) == {"table.weight", "prompt.context"}


@pytest.mark.parametrize("fusion", ALL)
def test_chunks_and_order_of_candidates(fusion, make, batch, candidates, monkeypatch):
    method = make(fusion, primitive_scores_at_test=0.3)
    whole = scores(method, batch, candidates)
    assert whole.shape == (7, 12) and whole.dtype == torch.float32
    encoded, prepared = method.encode(batch), method.prepare(candidates)
    for size in (1, 5):
        parts = [method.score(encoded, prepared, slice(at, at + size)) for at in range(0, 12, size)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    order = np.random.default_rng(0).permutation(12)
    torch.testing.assert_close(scores(method, batch, candidates.subset(order)), whole[:, order], atol=2e-5, rtol=0)
    monkeypatch.setattr(method.backbone, "text_chunk", 5)
    monkeypatch.setattr("methods.dfsp.COMPOSED_AT_ONCE", 21)
    torch.testing.assert_close(scores(method, batch, candidates), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("fusion", ALL)
def test_an_image_is_scored_by_itself(fusion, make, batch, candidates):
    method = make(fusion)
    assert method.info.batch_independent
    whole = scores(method, batch, candidates)
    for part in ([2], [4, 0, 2]):
        torch.testing.assert_close(scores(method, part_of(batch, part), candidates), whole[part], atol=2e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["i2t", "bif"])
def test_the_released_layout_mixes_the_images_of_a_batch(fusion, make, batch, candidates):
    method = make(fusion, layout="released")
    assert not method.info.batch_independent and DFSP.info.batch_independent
    whole = scores(method, batch, candidates)
    features, text = method.encode(batch).features, method.text(candidates, method.table.weight, primitives=False)
    _, words = method.fuse(features, text)
    assert words.shape == (1, 7, 48), "all images have the same fused text"
    changed = batch.images.clone()
    changed[6] += 1
    other = Batch(batch.states, batch.objects, batch.pairs, images=changed)
    assert (scores(method, other, candidates)[:6] - whole[:6]).abs().max() > 1e-3
    assert scores(method, part_of(batch, [1]), candidates).isfinite().all()
    # Groups of 3 images: the same whatever the batch, as long as it is cut at multiples of 3.
    grouped = make(fusion, layout="released", mix_images=3)
    apart = [scores(grouped, part_of(batch, slice(at, at + 3)), candidates) for at in (0, 3, 6)]
    torch.testing.assert_close(scores(grouped, batch, candidates), torch.cat(apart), atol=2e-5, rtol=0)
    torch.testing.assert_close(torch.cat(apart)[:3], scores(method, part_of(batch, slice(3)), candidates))


@pytest.mark.parametrize("layout", ["per_image", "released"])
@pytest.mark.parametrize("depth", [0, 1, 2])
@torch.no_grad()
def test_image_to_text_against_the_plain_computation(layout, depth):
    """Every row and every copy, with one image, one primitive and one head at a time."""
    torch.manual_seed(0)
    images, patches, primitives, length, width, row = 3, 5, 4, 3, 128, 1
    fusion = ImageToText(32, width, patches, length * primitives, 0.0, layout).eval()
    blocks = self_blocks(width, depth, 0.0).eval()
    for parameter in [*fusion.parameters(), *blocks.parameters()]:
        parameter.copy_(torch.randn(parameter.shape) / 8)
    decomposed, tokens = torch.randn(primitives, length, width), torch.randn(images, patches, 32)
    rows = [fusion.tokens(fusion.channels(image).T).T for image in tokens]  # each [L * P, T]

    def plain(block: FusionBlock, query, memory):
        norm = block.ln_query if block.ln_memory is None else block.ln_memory
        attention = nn.MultiheadAttention(width, 2)
        attention.load_state_dict(block.attention.state_dict())
        read, _ = attention(block.ln_query(query), norm(memory), norm(memory))
        query = query + read
        return query + block.mlp(block.ln_mlp(query))

    expected = torch.empty(images, primitives, width)
    for primitive in range(primitives):
        if layout == "per_image":
            for image in range(images):
                keys = torch.stack([rows[image][at * primitives + primitive] for at in range(length)])
                state = plain(fusion.cross, decomposed[primitive], keys)
                for block in blocks:
                    state = plain(block, state, state)
                expected[image, primitive] = state[row]
        else:
            places = [np.divmod(at * primitives + primitive, images) for at in range(length * images)]
            keys = torch.stack([rows[image][place] for place, image in places])
            state = plain(fusion.cross, decomposed[primitive].repeat(images, 1), keys)
            for block in blocks:
                state = plain(block, state, state)
            expected[:, primitive] = state[row::length]
    for training in (False, True):
        fused = fusion.train(training)(decomposed, tokens, blocks.train(training), row)
        torch.testing.assert_close(fused.expand_as(expected), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_only_the_row_that_is_read_is_computed():
    torch.manual_seed(0)
    blocks, tokens = self_blocks(32, 2, 0.0).eval(), torch.randn(5, 4, 32)
    whole = blocks[1](blocks[0](tokens))
    for row in range(4):
        torch.testing.assert_close(run_to_row(blocks, tokens, row), whole[:, row], atol=1e-5, rtol=1e-4)


def test_dropout_of_the_released_layout_tells_copies_apart(make, batch, candidates):
    method = make("i2t", layout="released", fusion_dropout=0.5).train()
    features, text = method.encode(batch).features, method.text(candidates, method.table(), primitives=False)
    _, words = method.fuse(features, text)
    assert words.shape == (7, 7, 48) and (words[0] - words[1]).abs().max() > 1e-3


def test_state_scores_are_means_of_pair_scores(make, batch, candidates):
    logits = branch_logits(make("t2i"), batch, candidates)
    pairs = logits["soft_prompt"]
    for state in range(3):
        mean = pairs[:, torch.from_numpy(candidates.states == state)].mean(dim=1)
        torch.testing.assert_close(logits["state"][:, state], mean, atol=1e-5, rtol=1e-5)
    for obj in range(4):
        mean = pairs[:, torch.from_numpy(candidates.objects == obj)].mean(dim=1)
        torch.testing.assert_close(logits["object"][:, obj], mean, atol=1e-5, rtol=1e-5)


def test_primitive_scores_at_test(make, batch, candidates):
    plain, with_primitives = make("t2i"), make("t2i", primitive_scores_at_test=0.2)
    logits = branch_logits(plain, batch, candidates)
    states, objects = torch.from_numpy(candidates.pairs).T
    expected = logits["pair"] + 0.2 * (logits["state"][:, states] + logits["object"][:, objects])
    torch.testing.assert_close(scores(with_primitives, batch, candidates), expected.detach(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", ALL)
def test_clip_alone_at_share_1(fusion, make, batch, candidates):
    logits = branch_logits(make(fusion, clip_share=1.0), batch, candidates)
    torch.testing.assert_close(logits["pair"], logits["soft_prompt"], atol=1e-5, rtol=0)


def test_what_is_averaged(make, batch, candidates):
    """t2i reads the candidate list, and so says its info; over the training pairs it does not read the rest."""
    wide, narrow = make("t2i"), make("t2i", decompose_over="train_pairs")
    seen = candidates.subset(candidates.seen)
    assert not wide.info.candidate_independent and make("none").info.candidate_independent
    columns = torch.from_numpy(np.flatnonzero(candidates.seen))
    changes = [
        (scores(method, batch, candidates)[:, columns] - scores(method, batch, seen)).abs().max()
        for method in (wide, narrow)
    ]
    assert changes[0] > 1e-3 and changes[1] < 2e-5
    torch.testing.assert_close(scores(wide, batch, seen), scores(narrow, batch, seen), atol=2e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["t2i", "i2t"])
def test_a_primitive_without_candidates_is_an_error(fusion, make, candidates):
    without_wet = candidates.subset(candidates.states != 2)
    with pytest.raises(UserError, match="'wet' has no pair"):
        make(fusion).prepare(without_wet)
    assert make("none").prepare(without_wet).tensors["text"].isfinite().all()


@pytest.mark.parametrize("fusion", ALL)
def test_gradients_reach_what_is_trained_and_nothing_else_moves(fusion, make, batch, candidates):
    method = make(fusion).train()
    frozen = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.training_loss(batch, candidates).total.backward()
    for name, parameter in method.trained().items():
        assert parameter.grad is not None, name
        if not name.endswith(WITHOUT_GRADIENT):
            assert parameter.grad.abs().max() > 1e-7, name
    torch.optim.Adam(method.parameter_groups(lr=1e-2, weight_decay=1e-5)).step()
    assert all(torch.equal(value, frozen[name]) for name, value in method.backbone.state_dict().items())


@pytest.mark.parametrize("changes", [pytest.param(a.changes, id=a.name) for a in DFSP.info.ablations])
def test_every_switch_trains_and_scores(changes, backbone, batch, candidates):
    method = DFSP(backbone, VOCABULARY, DFSPConfig(**changes)).train()
    losses = method.training_loss(batch, candidates)
    losses.total.backward()
    assert ("state" in losses.terms) == (method.config.primitive_weight > 0)
    for name, parameter in method.trained().items():
        # With CLIP's share at 1 the fused features weigh nothing: that is what this floor asks.
        unread = method.config.clip_share == 1 and name.startswith("fusion.")
        assert unread or parameter.grad is not None, name
    assert scores(method.eval(), batch, candidates).isfinite().all()


@pytest.mark.parametrize("fusion", ["t2i", "bif"])
def test_recomputing_activations_changes_nothing(fusion, make, batch, candidates, monkeypatch):
    gradients = []
    for checkpoint, chunk, composed in ((False, 1024, 2**14), (True, 5, 21)):
        method = make(fusion).train()
        monkeypatch.setattr(method.backbone, "recompute", checkpoint)
        monkeypatch.setattr(method.backbone, "text_chunk", chunk)
        monkeypatch.setattr("methods.dfsp.COMPOSED_AT_ONCE", composed)
        method.training_loss(batch, candidates).total.backward()
        gradients.append({name: parameter.grad for name, parameter in method.trained().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_a_few_steps_lower_the_loss(make, batch, candidates):
    method = make("bif", fusion_dropout=0.1).train()
    optimizer = torch.optim.Adam(method.parameter_groups(lr=3e-3, weight_decay=1e-5))
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = method.training_loss(batch, candidates).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("fusion", ["i2t", "none"])
def test_checkpoint_and_cached_features(fusion, make, backbone, batch, candidates):
    method = make(fusion)
    torch.manual_seed(8)
    fresh = DFSP(backbone, VOCABULARY, method.config).eval()
    with torch.no_grad():
        method.table.weight.add_(torch.randn(7, 48))
    assert not torch.equal(scores(fresh, batch, candidates), scores(method, batch, candidates))
    fresh.load_checkpoint({name: tensor.clone() for name, tensor in method.checkpoint().items()})
    assert torch.equal(scores(fresh, batch, candidates), scores(method, batch, candidates))
    cached = Batch(batch.states, batch.objects, batch.pairs, features=method.image_features(batch.images))
    assert torch.equal(scores(method, cached, candidates), scores(method, batch, candidates))


def test_fixed_words_and_context(make):
    method = make("t2i", learn_context=False, learn_primitives=False)
    assert all(name.startswith("fusion.") for name in method.trained())
    assert set(method.checkpoint()) == set(method.trained())


# Label spaces of the real data sets; totals of the description, section 12.
@pytest.mark.parametrize(
    ("fusion", "primitives", "total"),
    [
        ("t2i", 115 + 245, 33_810_241),
        ("t2i", 16 + 12, 33_127_649),
        ("t2i", 413 + 674, 35_304_953),
        ("i2t", 115 + 245, 28_894_336),
        ("bif", 115 + 245, 43_020_481),
    ],
)
def test_parameters_at_full_size(fusion, primitives, total):
    with torch.device("meta"):
        built = DecomposedFusion(
            fusion,
            "per_image",
            vision_width=1024,
            text_width=768,
            image_tokens=257,
            text_rows=8 * primitives,
            depth=1,
            dropout=0.3,
        )
    assert sum(parameter.numel() for parameter in built.parameters()) == total
    assert built.image_blocks[0].attention.num_heads == 16 and built.text_blocks[0].attention.num_heads == 12


def test_last_call_is_kept_for_the_same_objects():
    class Thing:
        pass

    memo, calls, first, second = LastCall(), [], Thing(), Thing()
    for keys in ((first, second), (first, second), (second, first), (first, second)):
        assert memo.get(keys, lambda: calls.append(1) or len(calls)) == len(calls)
    assert len(calls) == 3
    del first
    assert memo.get((Thing(), second), lambda: "new") == "new"


@pytest.mark.parametrize("settings", [{"fusion": "txt2img"}, {"clip_share": 1.5}, {"depth": -1}, {"context_length": 6}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        DFSPConfig(**settings)


def test_presets_and_ablations_hold_valid_settings():
    tables = tomllib.loads((Path(__file__).parents[2] / "benchmarks" / "presets" / "dfsp.toml").read_text())
    found = {}
    for dataset in ("mit_states", "ut_zappos", "cgqa"):
        assert tables[dataset]["source"]
        for profile in ("clean", "official"):
            resolved = resolve("dfsp", DFSPConfig, dataset, profile=profile)
            training, config = resolved.training, resolved.method
            assert training.batch_size == 256 and training.step_size == 3
            found[dataset, profile] = config["fusion"], config["layout"], training.selection
    assert found["ut_zappos", "clean"] == ("t2i", "per_image", "val_auc")
    assert found["ut_zappos", "official"] == ("i2t", "released", "val_loss")
    assert found["mit_states", "official"] == ("t2i", "released", "val_unseen")
    for ablation in DFSP.info.ablations:
        assert DFSPConfig(**ablation.changes) != DFSPConfig() and ablation.question
