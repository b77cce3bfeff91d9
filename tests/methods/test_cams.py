"""CAMS: equal to the official implementation, and the promises of its description. `pytest -s` prints differences.

The golden files were made by running ybyangjing/CAMS at commit f3af3b94 on a random CLIP, fp32, CPU.
"""

from __future__ import annotations

import math

import branch_golden
import cams_golden as golden_files
import numpy as np
import pytest
import torch
from branch_cases import VOCABULARY, all_pairs, eight_images, perturb
from branch_golden import FEATURES, LOGITS, check_output
from cams_golden import FAMILIES, NAMES, RELEASED, VERSIONS

from benchmarks.runs.resolution import resolve
from datasets.base import Candidates, Vocabulary
from errors import UserError
from methods.backbone.products import as_torch_does
from methods.base import Batch
from methods.cams import CAMS, CAMSConfig
from methods.parts.latent_units import last_blocks
from methods.parts.scoring import unit

UNITS = 1e-4  # entries of up to 40
CASES = [("cams_mitstates", version) for version in VERSIONS]
CASES += [("cams_cgqa", version) for version in ("", "_clean")]


@pytest.fixture(params=["cams_mitstates", "cams_cgqa"])
def official(request, golden):
    return golden_files.read(golden, request.param)


def test_start(golden, golden_backbone, near):
    official = golden_files.read(golden, "cams_mitstates")
    method = CAMS(golden_backbone, official.vocabulary, CAMSConfig())
    near("cams_mitstates initial words", method.prompts.table.weight, official.arrays["init/csp.soft_att_obj"], 1e-7)
    for (family, prompt), ids in zip(
        method.prompts.families.items(), official.arrays["input/token_ids/template"], strict=True
    ):
        theirs = {"pair": "com", "state": "att", "object": "obj"}[family]
        near("initial context", prompt.context, official.arrays[f"init/csp.{theirs}_ctx_vectors"], 0.0)
        assert prompt.eot == int(ids.argmax())
    near("initial scale", method.scale, official.arrays["init/temp_logit"], 1e-4)


def test_evaluation_as_released(official, golden_backbone, near):
    method = golden_files.build(golden_backbone, official, **RELEASED)
    batch = method.encode(branch_golden.batch_of(official, "input/eval_targets"))
    golden_files.check_branches(near, method, official, "eval", batch)
    read = golden_backbone.image_tokens(batch.images, method.taps, method.adapters.slots)
    (reader,), units = method.spaces.units.readers, method.spaces.units(read)
    gate = reader.gate(*reader.read(method.spaces.units.values, read[0]))
    check_output(near, official, "out/eval/gate/first", gate, FEATURES)
    check_output(near, official, "out/eval/latents/first", method.spaces.units(read[:1]), UNITS)
    check_output(near, official, "out/eval/latents/last", units, UNITS)
    for space, transformer in method.spaces.transformers.items():
        check_output(near, official, f"out/eval/units/{FAMILIES[space]}", transformer(units), UNITS)


@pytest.mark.parametrize(("official", "version"), CASES, indirect=["official"])
def test_scores(official, golden_backbone, near, version):
    method = golden_files.build(golden_backbone, official, **VERSIONS[version])
    batch = method.encode(branch_golden.batch_of(official, "input/eval_targets"))
    prepared = method.prepare(official.candidates)
    check_output(near, official, f"out/eval{version}/scores", method.score(batch, prepared, slice(None)), LOGITS)
    losses = method.validation_losses(batch, prepared)
    near("cams validation loss", losses.total, official.arrays[f"loss/eval{version}/total"], branch_golden.LOSSES)
    if version:
        golden_files.check_branches(near, method, official, f"eval{version}", batch)
        return
    betas = [key for key in official.arrays if key.startswith("out/eval/scores_beta_")]
    assert len(betas) == 5
    for key in betas:
        method.config = method.config.model_copy(update={"beta": float(key.rpartition("_")[2])})
        again = method.prepare(official.candidates)  # what was kept of the images is of the other beta
        check_output(near, official, key, method.score(batch, again, slice(None)), LOGITS)
    method.config = method.config.model_copy(update={"beta": official.meta["hyper_parameters"]["beta"]})
    few = Batch(batch.states[:3], batch.objects[:3], batch.pairs[:3], images=batch.images[:3])
    scores = method.score(method.encode(few), prepared, slice(None))
    check_output(near, official, "out/eval_first3/scores", scores, LOGITS)


@pytest.mark.parametrize(("official", "version"), CASES, indirect=["official"])
def test_training(official, golden_backbone, near, version):
    method = golden_files.build(golden_backbone, official, **VERSIONS[version]).train()
    batch = branch_golden.batch_of(official, "input/targets")
    golden_files.check_branches(near, method, official, f"train{version}", method.encode(batch))
    if version in ("", "_clean"):
        # A unit of one adapter in the C-GQA file lies within rounding of ReLU's kink: by oneDNN's products it gets a
        # gradient, by torch's, which made the file, it gets none.
        with as_torch_does():
            method.training_loss(batch, official.train_candidates).total.backward()
    if version == "":
        branch_golden.check_gradients(near, method, official, NAMES)
    elif version == "_clean":
        golden_files.check_clean_gradients(near, method, official)


def test_gradients_in_passes_and_recomputed(golden, golden_backbone, near, monkeypatch):
    official = golden_files.read(golden, "cams_mitstates")
    monkeypatch.setattr(golden_backbone, "text_chunk", 5)
    monkeypatch.setattr(golden_backbone, "recompute", True)
    method = golden_files.build(golden_backbone, official, **RELEASED).train()
    method.training_loss(branch_golden.batch_of(official, "input/targets"), official.train_candidates).total.backward()
    branch_golden.check_gradients(near, method, official, NAMES)


def test_the_released_state_prompts_hold_the_word_x(golden, golden_backbone, near):
    """The repaired ones hold the state's vector; both are the official token vectors."""
    official = golden_files.read(golden, "cams_mitstates")
    for version, settings in (("", RELEASED), ("_clean", {})):
        method = golden_files.build(golden_backbone, official, **settings)
        prompt, table = method.prompts.families["state"], method.prompts.table()
        rows = method.prompts.rows("state", official.candidates)
        if version == "":
            table, rows = prompt.words[4:5], torch.zeros_like(rows)
        ours = prompt(table, rows)
        expected = official.arrays[f"out/eval{version}/token_tensors/attr"][:, : ours.shape[1]]
        near(f"cams_mitstates token vectors {version}", ours, expected, 0.0)


# What the description promises ----------------------------------------------------------------------------------------


def built(backbone, **settings) -> CAMS:
    """A CAMS away from its start, without dropout."""
    torch.manual_seed(0)
    names = ("dropout", "adapter_dropout", "unit_dropout", "read_dropout", "part_dropout", "feature_dropout")
    method = CAMS(backbone, VOCABULARY, CAMSConfig(**dict.fromkeys(names, 0.0), **settings)).eval()
    perturb(method)
    return method


def scores(method, batch=None):
    batch = eight_images() if batch is None else batch
    return method.score(method.encode(batch), method.prepare(all_pairs()), slice(None))


def test_with_one_prompt_for_all_states_their_branch_learns_nothing(backbone):
    losses = {}
    for word in ("overwritten", "before_eot"):
        method = built(backbone, attribute_word=word).train()
        losses[word] = method.training_loss(eight_images(), all_pairs())
        losses[word].total.backward()
        dead = [
            parameter.grad.abs().max()
            for name, parameter in method.trained().items()
            if name.startswith(("spaces.transformers.state", "spaces.projections.state", "prompts.families.state"))
        ]
        assert len(dead) == 14
        assert max(dead) < 1e-5 if word == "overwritten" else min(dead) > 1e-5
    assert losses["overwritten"].terms["state"].item() == pytest.approx(math.log(3), abs=1e-5)
    assert losses["before_eot"].terms["state"].item() != pytest.approx(math.log(3), abs=1e-3)


def test_with_beta_1_and_pairs_alone_the_units_do_not_matter(backbone):
    method = built(backbone, beta=1.0, inference="pair")
    before = scores(method)
    with torch.no_grad():
        method.spaces.units.values.normal_()
    assert torch.equal(scores(method), before)
    image = unit(backbone.image_embedding(eight_images().images, method.adapters.slots))
    text = unit(method.prompts(backbone, all_pairs(), dropout=False)["pair"])
    torch.testing.assert_close(before, method.scale * image @ text.T, atol=1e-4, rtol=1e-5)


def test_scores_are_the_sum_of_both_logits_and_the_product_of_probabilities(backbone):
    method = built(backbone, beta=0.7)
    features, text = method.image_features(eight_images().images), method.text(all_pairs(), dropout=False)
    logits = {name: values.double() for name, values in method.logits(features, text).items()}
    states, objects = torch.from_numpy(all_pairs().pairs).T
    product = logits["state"].softmax(1)[:, states] * logits["object"].softmax(1)[:, objects]
    expected = 0.7 * logits["global"] + 0.3 * logits["pair"] + product
    torch.testing.assert_close(scores(method).double(), expected, atol=1e-4, rtol=0)
    normalised = built(backbone, beta=0.7, inference="probability_sum")
    both = (0.7 * logits["global"] + 0.3 * logits["pair"]).softmax(1)
    expected = both + logits["state"].softmax(1)[:, states] + logits["object"].softmax(1)[:, objects]
    torch.testing.assert_close(scores(normalised).double(), expected, atol=1e-5, rtol=0)
    assert not normalised.info.candidate_independent and method.info.candidate_independent


def test_a_gate_without_weights_halves(backbone):
    method = built(backbone)
    (reader,) = method.spaces.units.readers
    read = backbone.image_tokens(eight_images().images, method.taps, method.adapters.slots)
    with torch.no_grad():
        reader.gate_query.weight.zero_()
        reader.gate_query.bias.zero_()
    queries, found = reader.read(method.spaces.units.values, read[0])
    assert torch.equal(reader.gate(queries, found), torch.full_like(found, 0.5))
    assert queries.shape == (32, 32) and found.shape == (8, 32, 32)  # queries of the first block are all images'


def test_units_are_a_set_and_an_image_is_alone(backbone):
    method = built(backbone)
    whole = method.image_features(eight_images().images)
    alone = method.image_features(eight_images().images[2:3])
    with torch.no_grad():
        method.spaces.units.values.copy_(method.spaces.units.values[torch.randperm(32)])
    shuffled = method.image_features(eight_images().images)
    assert whole.keys() == {"image", "pair", "state", "object"}
    for name, values in whole.items():
        torch.testing.assert_close(alone[name], values[2:3], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shuffled[name], values, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_shared_reader_is_the_sum_over_blocks(backbone):
    shared, apart = built(backbone, read_blocks=3), built(backbone, read_blocks=3, shared_reader=False)
    assert len(apart.spaces.units.readers) == 3
    own = shared.checkpoint()
    apart.load_checkpoint(
        {name: own[".".join("0" if part in "012" else part for part in name.split("."))] for name in apart.checkpoint()}
    )
    for method in (shared, apart):
        method.train().training_loss(eight_images(), all_pairs()).total.backward()
    for name, parameter in shared.spaces.units.readers[0].named_parameters():
        parts = [dict(reader.named_parameters())[name].grad for reader in apart.spaces.units.readers]
        assert min(part.abs().max() for part in parts) > 0, name
        torch.testing.assert_close(sum(parts), parameter.grad, atol=1e-5, rtol=1e-3)


def test_only_the_last_blocks_have_adapters_and_all_of_their_tokens_are_read(backbone):
    method = built(backbone, read_blocks=2)
    assert list(method.taps) == [2, 3]
    assert list(method.adapters.slots) == [f"vision.{block}.{part}" for block in (2, 3) for part in ("attn", "mlp")]
    read = backbone.image_tokens(eight_images().images, method.taps, method.adapters.slots)
    assert {tokens.shape for tokens in read} == {(8, backbone.n_patches + 1, backbone.vision_width)}
    assert list(built(backbone).taps) == [3]  # a third of four blocks
    for asked, blocks in ((0.5, [2, 3]), (0.375, [2, 3]), (0.01, [3]), (4, [0, 1, 2, 3])):
        assert list(built(backbone, read_blocks=asked).taps) == blocks
    without = built(backbone, adapters="none")
    torch.testing.assert_close(
        without.image_features(eight_images().images)["image"], backbone.image_embedding(eight_images().images)
    )


@pytest.mark.parametrize(
    ("settings", "built_parts"),
    [
        ({"branches": ["global"]}, {"prompts", "adapters"}),
        ({"branches": ["state", "object"]}, {"prompts", "adapters", "spaces"}),
        ({"gate": False}, {"prompts", "adapters", "spaces"}),
    ],
)
def test_what_has_no_part_is_not_built(backbone, settings, built_parts):
    method = built(backbone, **settings)
    assert {name.split(".")[0] for name in method.trained()} - {"learned_scale"} == built_parts
    assert not any("gate" in name for name in method.trained()) or "gate" not in settings
    assert scores(method).isfinite().all()
    method.train().training_loss(eight_images(), all_pairs()).total.backward()
    assert all(parameter.grad is not None for parameter in method.trained().values())


def test_frozen_units_stay_and_are_kept(backbone):
    method = built(backbone, train_units=False)
    assert "spaces.units.values" not in method.trained() and "spaces.units.values" in method.checkpoint()
    torch.manual_seed(1)
    other = CAMS(backbone, VOCABULARY, method.config).eval()
    other.load_checkpoint(method.checkpoint())
    assert torch.equal(scores(other), scores(method))


def test_a_fixed_scale_is_clips(backbone):
    method = built(backbone, learn_scale=False)
    assert method.scale == backbone.logit_scale and "learned_scale" not in method.trained()


def test_another_activation_leaves_the_shared_backbone_alone(golden_backbone):
    """Two methods on one CLIP, each with its own text tower, and CLIP itself as before."""
    vocabulary = Vocabulary(("Canvas", "Suede"), ("Sandals", "Slippers"))
    before = {key: value.clone() for key, value in golden_backbone.state_dict().items() if "token" not in key}
    own, other = (
        CAMS(golden_backbone, vocabulary, CAMSConfig(text_activation=kind)).eval() for kind in ("own", "gelu")
    )
    candidates = Candidates(vocabulary, np.array([[0, 0], [1, 1]]), np.array([True, True]))
    first, second, again = own.text(candidates), other.text(candidates), own.text(candidates)
    assert torch.equal(first["pair"], again["pair"])
    assert 1e-4 < (first["pair"] - second["pair"]).abs().max() < 0.1
    after = golden_backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert own.trained().keys() == other.trained().keys()


@pytest.mark.parametrize(("dataset", "of_24"), [("mit_states", 8), ("ut_zappos", 9), ("cgqa", 12)])
def test_presets_read_the_released_blocks_of_a_large_tower_and_their_share_of_a_small_one(dataset, of_24):
    asked = CAMSConfig.model_validate(resolve("cams", CAMSConfig, dataset).method).read_blocks
    assert last_blocks(asked, 24, "read_blocks") == range(24 - of_24, 24)
    assert [len(last_blocks(asked, blocks, "read_blocks")) for blocks in (6, 12)] == [2 + of_24 // 12, of_24 // 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"read_blocks": 5}, "read_blocks asks for 5 vision blocks"),
        ({"read_heads": 5}, "read_heads asks for 5 heads"),
        ({"part_heads": 3}, "part_heads asks for 3 heads"),
    ],
)
def test_what_does_not_fit_the_backbone(backbone, settings, message):
    with pytest.raises(UserError, match=message):
        CAMS(backbone, VOCABULARY, CAMSConfig(**settings))
