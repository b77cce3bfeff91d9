"""MSCI: equal to the official implementation, and the promises of its description. `pytest -s` prints differences.

The golden files were made by running ltpwy/MSCI at commit 04cea140 on a random CLIP, fp32, CPU.
"""

from __future__ import annotations

import branch_golden as golden_files
import pytest
import torch
from branch_cases import VOCABULARY, all_pairs, eight_images, full_size_backbone, perturb
from branch_golden import BRANCHES, FEATURES

from datasets.base import Vocabulary
from errors import UserError
from methods.msci import MSCI, MSCIConfig
from methods.parts.scoring import unit

# Official piece of a name -> ours, beside those all three-branch methods share.
NAMES = {
    r"^lamda$": "lambda_1",
    r"^lamda_2$": "lambda_2",
    r"^concat_projection_low\.0": "local.linear",
    r"^concat_projection_low\.1": "local.norm",
    r"^concat_projection_high\.0": "whole.linear",
    r"^concat_projection_high\.1": "whole.norm",
    r"^stage1_local_alignment": "stage_1",
    r"^stage2_global_fusion": "stage_2",
    r"cross_attn_layers": "layers",
}


@pytest.fixture(params=["msci_l3h3", "msci_l4h4", "msci_l1h1"])
def msci(request, golden, golden_backbone):
    """The official numbers and an MSCI with the official weights, with the released score, without dropout."""
    official = golden_files.read(golden, request.param)
    released = official.meta["hyper_parameters"]
    config = MSCIConfig(
        **golden_files.settings(official),
        n_low=released["selected_low_layers"],
        n_high=released["selected_high_layers"],
        aggregator_dropout=0.0,
        **{f"stage_{k}_layers": released[f"stage_{k}_num_cmt_layers"] for k in (1, 2)},
        **{f"stage_{k}_heads": released[f"stage_{k}_num_heads"] for k in (1, 2)},
        **{f"stage_{k}_dropout": 0.0 for k in (1, 2)},
    )
    method = MSCI(golden_backbone, official.vocabulary, config).eval()
    golden_files.load(method, official, NAMES)
    return official, method


def check_stages(near, method, official, phase, batch) -> None:
    candidates = official.candidates if phase == "eval" else official.train_candidates
    text, memories = method.prompts(method.backbone, candidates), method.memories(batch.features)
    for branch, theirs in BRANCHES.items():
        for stage, drawn in enumerate(method.stages(unit(text[branch]), memories[branch]), start=1):
            golden_files.check_output(near, official, f"out/{phase}/stage{stage}/{theirs}", drawn, FEATURES)


def test_start(golden, golden_backbone, near):
    official = golden_files.read(golden, "msci_l4h4")
    method = MSCI(golden_backbone, official.vocabulary, MSCIConfig())
    golden_files.check_start(near, method, official, golden("csp").arrays["init/soft_embeddings"])
    assert torch.equal(method.lambda_1, torch.full((192,), 0.1)) and torch.equal(method.lambda_1, method.lambda_2)
    assert golden_backbone.logit_scale.item() == pytest.approx(100, rel=1e-5)
    assert (method.n_low, method.n_high) == (4, 4)


def test_evaluation(msci, near):
    official, method = msci
    batch = method.encode(golden_files.batch_of(official, "input/eval_targets"))
    golden_files.check_branches(near, method, official, "eval", batch)
    for level, name in (("low", "local"), ("high", "global")):
        golden_files.check_output(near, official, f"out/eval/image/{level}", batch.features[name], FEATURES)
    check_stages(near, method, official, "eval", batch)
    golden_files.check_scores(near, method, official, batch)


def test_training(msci, near):
    official, method = msci
    batch = method.train().encode(golden_files.batch_of(official, "input/targets"))
    golden_files.check_batch_norm(near, method, official, NAMES)
    golden_files.check_branches(near, method, official, "train", batch)
    check_stages(near, method, official, "train", batch)
    losses = method.training_loss(batch, official.train_candidates)
    golden_files.check_losses(near, losses, official, "train")
    losses.total.backward()
    golden_files.check_gradients(near, method, official, NAMES)


def test_training_after_the_first_epoch(msci, near):
    official, method = msci
    method.config = method.config.model_copy(update={"train_mode": "first_epoch_only"})
    method.train().on_epoch_start(1)
    batch = method.encode(golden_files.batch_of(official, "input/targets"))
    golden_files.check_branches(near, method, official, "train_evalmode", batch)
    losses = method.training_loss(batch, official.train_candidates)
    golden_files.check_losses(near, losses, official, "train_evalmode")
    losses.total.backward()
    golden_files.check_gradient_norms(method, official, NAMES)


# What the description promises ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "objects", "levels", "total"),
    [(115, 245, 4, 26_707_200), (16, 12, 3, 25_272_576), (413, 674, 4, 27_265_536)],
    ids=["mit_states", "ut_zappos", "cgqa"],
)
def test_parameter_counts_at_full_size(states, objects, levels, total):
    vocabulary = Vocabulary(("red",) * states, ("apple",) * objects)
    method = MSCI(full_size_backbone(), vocabulary, MSCIConfig(n_low=levels, n_high=levels))
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in method.named_children()}
    assert counts["adapters"] == 6_343_680 and counts["disentanglers"] == 1_184_256
    assert counts["prompts"] == 6_912 + {115: 276_480, 16: 21_504, 413: 834_816}[states]
    assert counts["local"] == counts["whole"] == {4: 2_361_600, 3: 1_771_776}[levels]
    assert counts["stage_1"] == counts["stage_2"] == 7_085_568
    assert method.stage_1.layers[0].attention.heads == method.stage_2.layers[0].attention.heads == 12
    assert sum(parameter.numel() for parameter in method.trained().values()) == total


def drawn_by(method: MSCI) -> dict[str, torch.Tensor]:
    """The text feature of each pair for each image, and its parts."""
    features = method.image_features(eight_images().images)
    text = method.prepare(all_pairs()).tensors["pair"]
    memory = method.memories(features)["pair"]
    q1, q2 = method.stages(text, memory)
    return {"text": text, "q1": q1, "q2": q2, "drawn": method.attract(text, memory)}


@pytest.fixture
def same(backbone):
    """Return MSCI with given settings, whose tensors are those of the full model wherever it has them."""
    full = MSCI(backbone, VOCABULARY, MSCIConfig())
    perturb(full)

    def build(**settings) -> MSCI:
        method = MSCI(backbone, VOCABULARY, MSCIConfig(**settings)).eval()
        state = {name: value for name, value in full.checkpoint().items() if name in method.checkpoint()}
        method.load_checkpoint(method.checkpoint() | state)
        return method

    return build


def test_what_is_fused(same):
    full = drawn_by(same())
    weights = same()
    both = full["text"] + weights.lambda_1 * full["q1"] + weights.lambda_2 * full["q2"]
    torch.testing.assert_close(full["drawn"], both)
    local = drawn_by(same(fused="local"))["drawn"]
    torch.testing.assert_close(local, full["text"] + weights.lambda_1 * full["q1"])
    last = drawn_by(same(fused="global"))["drawn"]
    torch.testing.assert_close(last, full["text"] + weights.lambda_2 * full["q2"])
    nothing = drawn_by(same(fused="none"))
    assert nothing["drawn"] is nothing["text"]


def test_parallel_stages_both_start_from_the_prompt(same):
    serial, parallel = drawn_by(same()), drawn_by(same(interaction="parallel"))
    torch.testing.assert_close(parallel["q1"], serial["q1"])
    assert (parallel["q2"] - serial["q2"]).abs().max() > 1e-2
    method = same(interaction="parallel", fused="global")
    torch.testing.assert_close(drawn_by(method)["q2"], parallel["q2"])
    assert method.stage_1 is None and method.local is None and "lambda_1" not in method.trained()


def test_levels_are_the_first_and_the_last_blocks(backbone):
    method = MSCI(backbone, VOCABULARY, MSCIConfig(n_low=1, n_high=1, adapters="none")).eval()
    features = method.image_features(eight_images().images)
    first, last = backbone.image_tokens(eight_images().images, (0, -1))
    torch.testing.assert_close(features["local"], backbone.project_tokens(first))
    torch.testing.assert_close(features["global"], backbone.project_tokens(last))
    torch.testing.assert_close(features["pair"], features["global"][:, 0])
    assert method.local.linear is None and not list(method.whole.parameters())
    wide = MSCI(backbone, VOCABULARY, MSCIConfig(n_low=3, n_high=4, low_pooling="max", high_pooling="mean")).eval()
    tokens = [backbone.project_tokens(t) for t in backbone.image_tokens(eight_images().images, range(4))]
    features = wide.image_features(eight_images().images)
    torch.testing.assert_close(features["local"], torch.stack(tokens[:3]).amax(dim=0))
    torch.testing.assert_close(features["global"], torch.stack(tokens).mean(dim=0))


def test_without_the_last_block_the_image_feature_stays_clips(backbone):
    method = MSCI(backbone, VOCABULARY, MSCIConfig(fused="local")).eval()
    features = method.image_features(eight_images().images)
    torch.testing.assert_close(features["pair"], backbone.image_embedding(eight_images().images))
    assert "global" not in features


def test_states_and_objects_do_not_depend_on_the_candidates(same):
    method, batch = same(inference="logit_product"), eight_images()
    few = all_pairs().subset([1, 6])
    encoded = method.encode(batch)
    sides = [method._side(encoded, method.prepare(candidates)) for candidates in (all_pairs(), few)]
    for branch in ("state", "object"):
        assert torch.equal(sides[0].log_probabilities[branch], sides[1].log_probabilities[branch])


@pytest.mark.parametrize("settings", [{"n_low": 5}, {"n_high": 5}, {"stage_1_heads": 5}, {"stage_2_heads": 5}])
def test_what_the_backbone_does_not_allow(backbone, settings):
    with pytest.raises(UserError):
        MSCI(backbone, VOCABULARY, MSCIConfig(**settings))


def test_gated_fusion(backbone):
    method = MSCI(backbone, VOCABULARY, MSCIConfig(fusion="gated")).eval()
    drawn = drawn_by(method)
    expected = torch.relu(method.gate(torch.cat([drawn["q1"], drawn["q2"]], dim=-1)))
    torch.testing.assert_close(drawn["drawn"], drawn["text"] + expected)
    assert not {"lambda_1", "lambda_2"} & set(method.trained())
    with pytest.raises(ValueError, match="both stages"):
        MSCIConfig(fusion="gated", fused="local")


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({}, {"local": 1, "global": 1}),
        ({"interaction": "parallel", "stage_2_layers": 2}, {"local": 1, "global": 2}),
        ({"fused": "local"}, {"local": 1}),
        ({"fused": "global", "interaction": "parallel"}, {"global": 1}),
        ({"fused": "none"}, {}),
    ],
)
def test_attention_of_the_stages_in_use(backbone, settings, stages):
    torch.manual_seed(0)
    method = MSCI(backbone, VOCABULARY, MSCIConfig(**settings)).eval()
    perturb(method)
    with torch.no_grad():
        text = method.prepare(all_pairs()).tensors["pair"]
        memory = method.memories(method.encode(eight_images()).features)["pair"]
        found = method.attention(text, memory)
        assert {stage: len(layers) for stage, layers in found.items()} == stages
        for layers in found.values():
            assert all(torch.allclose(weights.sum(dim=-1), torch.ones(())) for weights in layers)
        starts = {"local": text, "global": text}
        if method.stage_1 is not None and method.config.interaction == "serial":
            starts["global"] = method.stages(text, memory)[0]
        # One layer each: the weights put together with the values are what a stage adds to its queries.
        for stage, block, own in (("local", method.stage_1, memory.local), ("global", method.stage_2, memory.whole)):
            if stages.get(stage) == 1:
                layer, (_, values) = block.layers[0], own[0]
                mixed = layer.attention.out((found[stage][0] @ values).transpose(1, 2).flatten(2))
                torch.testing.assert_close(mixed, layer.attention(starts[stage], own[0]), atol=1e-5, rtol=1e-4)
