"""The Refiner-style model on a small random CLIP: the checks of its design. There are no golden numbers for it."""

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
from methods.parts.prompt_families import BRANCHES
from methods.parts.refinement import Mapper, QueryRefiner, query_overlap
from methods.parts.scoring import cosine_logits, unit
from methods.refiner_style import RefinerStyle, RefinerStyleConfig

QUIET = {"dropout": 0.0, "refine_dropout": 0.0, "mapper_dropout": 0.0, "adapter_dropout": 0.0}
RULES = ("probability_product", "logit_product", "probability_sum", "log_sum", "pair")


@pytest.fixture
def candidates() -> Candidates:
    return every_pair()


@pytest.fixture
def batch() -> Batch:
    return some_images(5)


@pytest.fixture
def make(backbone):
    """Return a function that builds the model without dropout; trained=True moves every tensor from its start."""

    def build(trained: bool = True, **settings) -> RefinerStyle:
        torch.manual_seed(3)
        method = RefinerStyle(backbone, VOCABULARY, RefinerStyleConfig(**(QUIET | settings))).eval()
        if trained:
            with torch.no_grad():
                for parameter in method.trained().values():
                    parameter.add_(torch.randn(parameter.shape) / 10)
        return method

    return build


@torch.no_grad()
def logits(method, batch, candidates):
    """The logits of each branch."""
    vectors, _ = method.branch_vectors(method.encode(batch).features)
    text = method.prepare(candidates).tensors
    return {b: cosine_logits(v, text[b], method.backbone.logit_scale) for b, v in vectors.items()}


@pytest.mark.parametrize("settings", [{}, {"share_refiner": False, "mapper": "per_branch"}, {"refine": False}])
def test_before_training_the_logits_are_those_of_clip(settings, make, batch, candidates):
    method = make(trained=False, **settings)
    found = logits(method, batch, candidates)
    image = unit(method.backbone.image_embedding(batch.images))
    for branch in BRANCHES:
        text = unit(method.prompts(method.backbone, candidates, dropout=False)[branch])
        torch.testing.assert_close(found[branch], method.backbone.logit_scale * image @ text.T, atol=1e-5, rtol=1e-5)
    clip = CLIPZeroShot(method.backbone, VOCABULARY, CLIPZeroShot.Config()).eval()
    single = torch.from_numpy((candidates.states > 0) & (candidates.objects > 0))
    torch.testing.assert_close(
        found["pair"][:, single], scores(clip, batch, candidates)[:, single], atol=1e-4, rtol=1e-5
    )


def test_what_moves_in_the_first_steps(make, batch, candidates):
    method = make(trained=False).train()
    frozen = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    start = {name: value.detach().clone() for name, value in method.trained().items()}
    optimizer = torch.optim.SGD(method.trained().values(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        method.training_loss(batch, candidates).total.backward()
        if step == 0:
            zero = {name for name, value in method.trained().items() if value.grad.abs().max() == 0}
            assert {f"refiner.pool_weights.{branch}" for branch in BRANCHES} <= zero
            assert {"mappers.shared.down.weight", "mappers.shared.norm.weight"} <= zero
            assert not zero & {"refiner.outputs.state.weight", "refiner.outputs.pair.bias", "mappers.shared.up.weight"}
        optimizer.step()
        if step == 0:
            for name in ("outputs.pair.weight", "outputs.object.bias"):
                assert not torch.equal(method.get_parameter(f"refiner.{name}"), start[f"refiner.{name}"])
            assert not torch.equal(method.get_parameter("mappers.shared.up.bias"), start["mappers.shared.up.bias"])
    for name, parameter in method.trained().items():
        assert parameter.grad.abs().max() > 0, name
    assert all(torch.equal(value, frozen[name]) for name, value in method.backbone.state_dict().items())


@pytest.mark.parametrize("rule", RULES)
def test_chunks_order_and_batch_mates(rule, make, batch, candidates):
    method = make(inference=rule)
    whole = scores(method, batch, candidates)
    assert whole.shape == (5, 12) and whole.dtype == torch.float32 and not whole.requires_grad
    encoded, prepared = method.encode(batch), method.prepare(candidates)
    parts = [method.score(encoded, prepared, slice(at, at + 5)) for at in range(0, 12, 5)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    order = np.random.default_rng(0).permutation(12)
    torch.testing.assert_close(scores(method, batch, candidates.subset(order)), whole[:, order], atol=1e-5, rtol=1e-5)
    one = Batch(batch.states[2:3], batch.objects[2:3], batch.pairs[2:3], images=batch.images[2:3])
    torch.testing.assert_close(scores(method, one, candidates), whole[2:3], atol=2e-5, rtol=1e-4)
    fewer = scores(method, batch, candidates.subset(order[:6]))
    same = torch.allclose(fewer, whole[:, order[:6]], atol=1e-5, rtol=1e-5)
    assert same == method.info.candidate_independent == (rule in ("logit_product", "log_sum", "pair"))


def test_the_default_rule_adds_the_product_of_probabilities_to_the_logit(make, batch, candidates):
    method = make()
    found = logits(method, batch, candidates)
    state, obj = (found[branch].softmax(dim=1) for branch in ("state", "object"))
    states, objects = torch.from_numpy(candidates.pairs).T
    torch.testing.assert_close(scores(method, batch, candidates), found["pair"] + state[:, states] * obj[:, objects])


@pytest.mark.parametrize("share", [True, False])
def test_who_sees_whose_queries(share, make, batch, candidates):
    changes = {}
    for mask in ("comp_only", "full", "none"):
        method = make(query_mask=mask, share_refiner=share)
        before = logits(method, batch, candidates)
        with torch.no_grad():
            method.refiner.queries["object"].add_(torch.randn(8, 24))
        after = logits(method, batch, candidates)
        changes[mask] = [bool((after[branch] - before[branch]).abs().max() > 1e-3) for branch in BRANCHES]
    assert changes == {
        "comp_only": [True, False, True],
        "full": [True, True, True],
        "none": [False, False, True],
    }


def test_with_comp_only_separate_stacks_of_equal_weights_are_one_stack(make, batch, candidates):
    shared, apart = make(), make(share_refiner=False)
    tensors = dict(shared.checkpoint())
    for name in [name for name in tensors if ".stacks.shared." in name]:
        tensors |= {name.replace(".shared.", f".{branch}."): tensors[name] for branch in BRANCHES}
        del tensors[name]
    apart.load_checkpoint(tensors)
    torch.testing.assert_close(scores(apart, batch, candidates), scores(shared, batch, candidates))


@torch.no_grad()
def test_first_self_attention_is_shared_by_the_images(make, batch):
    method = make()
    regions = method.encode(batch).features["regions"]
    shared, expanded = method.refiner.eval().rows(regions), method.refiner.train().rows(regions)
    for branch in BRANCHES:
        torch.testing.assert_close(shared[branch], expanded[branch], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_pooling(make):
    rows = torch.randn(5, 8, 24)
    for pool in ("attn", "mean", "max"):
        refiner = make(pool=pool).refiner
        normed = refiner.norm_out(rows)
        if pool == "attn":
            weights = (normed * refiner.pool_weights["state"]).sum(dim=2, keepdim=True).softmax(dim=1)
            expected = (weights * normed).sum(dim=1)
        else:
            expected = normed.mean(dim=1) if pool == "mean" else normed.max(dim=1).values
        found = refiner(dict.fromkeys(BRANCHES, rows))["state"]
        torch.testing.assert_close(found, refiner.outputs["state"](expected))
    fresh = make(trained=False).refiner
    assert torch.equal(fresh(dict.fromkeys(BRANCHES, rows))["pair"], torch.zeros(5, 24))


def test_query_overlap():
    first, second = torch.eye(3)[:2].expand(4, 2, 3), torch.ones(4, 2, 3)
    assert query_overlap([first]).item() == 0
    assert query_overlap([first, second]).item() == pytest.approx(0.5)
    rows = torch.randn(2, 5, 4, 6)
    cosines = torch.nn.functional.cosine_similarity(rows[:, :, :, None], rows[:, :, None], dim=-1)
    expected = torch.stack([cosines[..., i, j].square() for i in range(4) for j in range(4) if i != j]).mean()
    torch.testing.assert_close(query_overlap(list(rows)), expected)
    assert query_overlap([torch.randn(4, 1, 3)]).item() == 0


def test_one_query_has_no_diversity_loss(make, batch, candidates):
    losses = make(queries=1).train().training_loss(batch, candidates)
    assert losses.total.isfinite() and "diversity" not in losses.terms


def test_losses(make, batch, candidates):
    weights = {"loss_weights": (1.0, 0.5, 0.25), "diversity_weight": 0.1, "global_weight": 0.7, "map_cosine": 0.3}
    method = make(**weights).train()
    losses = method.training_loss(batch, candidates)
    assert set(losses.terms) == {*BRANCHES, "diversity", "global", "map_cosine"}
    found, targets = logits(method, batch, candidates), (batch.pairs, batch.states, batch.objects)
    expected = [torch.nn.functional.cross_entropy(found[b], t) for b, t in zip(BRANCHES, targets, strict=True)]
    for branch, value in zip(BRANCHES, expected, strict=True):
        torch.testing.assert_close(losses.terms[branch].detach(), value)
    cosines = [
        found[b].gather(1, t[:, None]) / method.backbone.logit_scale for b, t in zip(BRANCHES, targets, strict=True)
    ]
    torch.testing.assert_close(losses.terms["map_cosine"].detach(), 1 - torch.cat(cosines, dim=1).mean())
    terms = losses.terms
    total = terms["pair"] + 0.5 * terms["state"] + 0.25 * terms["object"]
    total = total + 0.1 * terms["diversity"] + 0.7 * terms["global"] + 0.3 * terms["map_cosine"]
    torch.testing.assert_close(losses.total, total)


def test_noise_before_the_mapper_is_for_training(make, batch, candidates):
    method = make(map_noise=0.05)
    assert torch.equal(scores(method, batch, candidates), scores(make(), batch, candidates))
    first, second = (method.train().training_loss(batch, candidates).total.item() for _ in range(2))
    assert first != second


SWITCHES = [pytest.param(ablation.changes, id=ablation.name) for ablation in RefinerStyle.info.ablations]


@pytest.mark.parametrize("changes", SWITCHES)
def test_every_switch_trains_and_scores(changes, make, batch, candidates):
    method = make(**changes).train()
    method.training_loss(batch, candidates).total.backward()
    for name, parameter in method.trained().items():
        # A softmax over one row has no gradient; anything else that gets none should not have been built.
        alone = "pool_weights" in name and method.config.queries == 1
        assert alone or (parameter.grad is not None and parameter.grad.abs().max() > 0), name
    found = scores(method.eval(), batch, candidates)
    assert found.shape == (5, 12) and found.isfinite().all()


def test_regions(make, batch, candidates):
    patches = make().backbone.n_patches
    sizes = {"patches": patches, "all": patches + 1, "class": 1}
    for regions, size in sizes.items():
        features = make(regions=regions).image_features(batch.images)
        assert features["regions"].shape == (5, size, 24)
    two = make(region_blocks=(-2, -1)).image_features(batch.images)["regions"]
    last = make().image_features(batch.images)["regions"]
    assert two.shape == (5, 2 * patches, 24)
    torch.testing.assert_close(two[:, patches:], last)
    assert set(make(refine=False).image_features(batch.images)) == {"image"}


def test_frozen_features_are_declared_where_settings_do_not_change_them(make, batch, candidates):
    assert not make().info.frozen_image_features and not RefinerStyle.info.frozen_image_features
    assert not make(adapters="none", regions="class").info.frozen_image_features
    method = make(adapters="none")
    assert method.info.frozen_image_features
    features = method.image_features(batch.images)
    assert not any(values.requires_grad for values in features.values())
    cached = Batch(batch.states, batch.objects, batch.pairs, features=features)
    assert torch.equal(scores(method, cached, candidates), scores(method, batch, candidates))


def test_checkpoint_round_trip(make, batch, candidates):
    method, fresh = make(), make(trained=False)
    assert not torch.equal(scores(fresh, batch, candidates), scores(method, batch, candidates))
    fresh.load_checkpoint({name: tensor.clone() for name, tensor in method.checkpoint().items()})
    assert torch.equal(scores(fresh, batch, candidates), scores(method, batch, candidates))


def test_groups_of_two_rates(make):
    method = make(head_lr_factor=4.0)
    slow, fast = method.parameter_groups(lr=1e-3, weight_decay=0.1)
    assert (slow["lr"], fast["lr"], slow["weight_decay"]) == (1e-3, 4e-3, 0.1)
    trained = method.trained()
    assert len(slow["params"]) + len(fast["params"]) == len(trained)
    ids = {id(parameter) for parameter in slow["params"]}
    assert {name.split(".")[0] for name, value in trained.items() if id(value) in ids} == {"prompts", "adapters"}


def test_parameters_at_full_size():
    with torch.device("meta"):
        refiner = QueryRefiner(
            768,
            8,
            2,
            banks=BRANCHES,
            read=BRANCHES,
            query_mask="comp_only",
            share=True,
            pool="attn",
            dropout=0.1,
        )
        mapper = Mapper(768, 384, 0.1)
    assert sum(p.numel() for module in (refiner, mapper) for p in module.parameters()) == 16_569_984
    assert refiner.stacks["shared"][0].among.num_heads == 12


@pytest.mark.parametrize(
    "settings", [{"branches": ("state",)}, {"queries": 0}, {"pool": "sum"}, {"region_blocks": ()}, {"K": 8}]
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        RefinerStyleConfig(**settings)


def test_presets_hold_valid_settings():
    tables = tomllib.loads((Path(__file__).parents[2] / "benchmarks" / "presets" / "refiner_style.toml").read_text())
    for dataset in ("mit_states", "ut_zappos", "cgqa"):
        assert tables[dataset]["source"]
        resolved = resolve("refiner_style", RefinerStyleConfig, dataset)
        training, config = resolved.training, resolved.method
        assert training.epochs == 15 and config["queries"] == 8
    assert config["head_lr_factor"] * training.lr == pytest.approx(5e-5)
