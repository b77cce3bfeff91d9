"""VP-CMJL: equal to the official implementation, and the promises of its description. `pytest -s` prints differences.

The golden files were made by running codefish12-09/VP_CMJL at commit 74d7b220 on a random CLIP, fp32, CPU.
"""

from __future__ import annotations

import re

import branch_golden as golden_files
import pytest
import torch
from branch_cases import VOCABULARY, all_pairs, eight_images, full_size_backbone, perturb
from branch_golden import BRANCHES, FEATURES, LOGITS
from pydantic import ValidationError
from torch import nn

from benchmarks.evaluation.selection import averaged, last_batch
from benchmarks.runs.resolution import resolve
from datasets.base import Vocabulary
from errors import UserError
from methods.base import Batch
from methods.parts.mixture import Mixture, divergence
from methods.parts.scoring import unit
from methods.vp_cmjl import VPCMJL, VPCMJLConfig

LOSSES = 1e-4  # the total is about 30
# Official piece of a name -> ours, beside those all three-branch methods share.
NAMES = {
    r"^attr_ca\.": "attentions.state.",
    r"^obj_ca\.": "attentions.object.",
    r"\.attn\.": ".attention.",
    r"\.ln_x\.": ".norm_image.",
    r"\.ln_y\.": ".norm_words.",
    r"\.ln_2\.": ".norm.",
    r"mlp\.c_fc": "widen",
    r"mlp\.c_proj": "narrow",
    r"^attr_proxy$": "proxies.state",
    r"^obj_proxy$": "proxies.object",
    r"^linear\.": "proxies.composer.",
}
QUIET = {"dropout": 0.0, "adapter_dropout": 0.0, "disentangler_dropout": 0.0}
SMALL = {"heads": 8}  # the small CLIP has 24 channels
SWITCHES = [pytest.param(dict(ablation.changes), id=ablation.name) for ablation in VPCMJL.info.ablations]


def official_settings(official) -> VPCMJLConfig:
    released = official.meta["hyper_parameters"]
    assert released["cross_attention_heads"] == VPCMJLConfig().heads
    return VPCMJLConfig(
        **QUIET,
        adapter_width=released["adapter_dim"],
        stray_word=released["prompt_template"][1] == "a photo of x x",
        proxy_weight=released["alpha"],
        text_weight=released["beta"],
    )


@pytest.fixture(params=["vp_cmjl_mitstates", "vp_cmjl_cgqa"])
def vp_cmjl(request, golden, golden_backbone):
    """The official numbers and a VP-CMJL with the official weights, without dropout."""
    official = golden_files.read(golden, request.param)
    method = VPCMJL(golden_backbone, official.vocabulary, official_settings(official)).eval()
    golden_files.load(method, official, NAMES)
    return official, method


def check_forward(near, method, official, phase: str, batch: Batch) -> None:
    """Compare what leads to the logits, and the logits, with "out/<phase>"; the batch must be encoded."""
    candidates = official.candidates if phase == "eval" else official.train_candidates
    image = batch.features["image"]
    golden_files.check_output(near, official, f"out/{phase}/image/global", image, FEATURES)
    words = method.words(candidates, dropout=True)
    for branch, text in method.prompts(method.backbone, candidates).items():
        golden_files.check_output(near, official, f"out/{phase}/text_raw/{BRANCHES[branch]}", text, FEATURES)
    golden_files.check_output(near, official, f"out/{phase}/proxy/comp", method.proxies.pairs(candidates), FEATURES)
    logits = {"pair": method.pair_logits(image, words), **method.primitive_logits(image, words)}
    for branch in ("state", "object"):
        theirs = BRANCHES[branch]
        read, attended = method.attentions[branch](image, (words[f"keys.{branch}"], words[f"values.{branch}"]))
        golden_files.check_output(near, official, f"out/{phase}/image_text/{theirs}", read, FEATURES)
        golden_files.check_output(near, official, f"out/{phase}/attention/{theirs}", attended, FEATURES)
        own = method.disentanglers[branch](image)
        golden_files.check_output(near, official, f"out/{phase}/image_proxy/{theirs}", own, FEATURES)
    for branch, theirs in BRANCHES.items():
        for side in ("text", "proxy"):
            golden_files.check_output(
                near, official, f"out/{phase}/logits_{side}_{theirs}", logits[branch][side], LOGITS
            )


def check_losses(near, losses, official, phase: str) -> None:
    names = {f"{side}_{branch}": f"{side}_{BRANCHES[branch]}" for side in ("text", "proxy") for branch in BRANCHES}
    assert losses.terms.keys() == {*names, "divergence"}
    for ours, theirs in (names | {"divergence": "kl"}).items():
        expected = official.arrays[f"loss/{phase}/{theirs}"]
        near(f"{official.meta['job']} {phase} loss {theirs}", losses.terms[ours], expected, LOSSES)
    total = official.arrays[f"loss/{phase}/total"]
    near(f"{official.meta['job']} {phase} loss total", losses.total, total, LOSSES)


def test_start(vp_cmjl, near):
    """Words and proxies start from the names, prompts with the released tokens."""
    official, loaded = vp_cmjl
    method = VPCMJL(loaded.backbone, official.vocabulary, loaded.config)
    expected, job = official.arrays, official.meta["job"]
    near(f"{job} initial words", method.prompts.table.weight, expected["init/soft_att_obj"], 1e-7)
    near(f"{job} initial state proxies", method.proxies.state, expected["init/attr_proxy"], FEATURES)
    near(f"{job} initial object proxies", method.proxies.object, expected["init/obj_proxy"], FEATURES)
    templates = expected["input/token_ids/template"]
    for (branch, family), ids in zip(method.prompts.families.items(), templates, strict=True):
        near("initial context", family.context, expected[f"init/{BRANCHES[branch]}_ctx_vectors"], 1e-7)
        assert family.eot == int(ids.argmax())


def test_evaluation(vp_cmjl, near):
    official, method = vp_cmjl
    batch = method.encode(golden_files.batch_of(official, "input/eval_targets"))
    check_forward(near, method, official, "eval", batch)
    check_losses(near, method.validation_losses(batch, method.prepare(official.candidates)), official, "eval")


def test_token_vectors(vp_cmjl, near):
    official, method = vp_cmjl
    for branch, family in method.prompts.families.items():
        vectors = family(method.prompts.table.weight, method.prompts.rows(branch, official.candidates))
        padded = torch.cat(
            [
                vectors,
                method.backbone.token_embedding(torch.zeros(1, dtype=torch.int64)).expand(
                    len(vectors), 8 - vectors.shape[1], -1
                ),
            ],
            dim=1,
        )
        golden_files.check_output(near, official, f"out/eval/token_tensors/{BRANCHES[branch]}", padded, 1e-7)


def test_scores(vp_cmjl, near):
    official, method = vp_cmjl
    prepared, config = method.prepare(official.candidates), method.config
    batch = method.encode(golden_files.batch_of(official, "input/eval_targets"))
    keys = [key for key in (re.sub("^(sample|projection)/", "", key) for key in official.arrays) if "/scores" in key]
    assert len(set(keys)) == 7
    for key in sorted(set(keys)):
        if found := re.search(r"alpha_([\d.]+)_beta_([\d.]+)$", key):
            weights = {"proxy_weight": float(found[1]), "text_weight": float(found[2])}
            method.config = config.model_copy(update=weights)
        images = slice(0, 3) if "first3" in key else slice(None)
        few = Batch(batch.states[images], batch.objects[images], batch.pairs[images], batch.images[images])
        scores = method.score(method.encode(few), prepared, slice(None))
        golden_files.check_output(near, official, key, scores, LOGITS)
        method.config = config


def test_training(vp_cmjl, near):
    official, method = vp_cmjl
    batch = method.train().encode(golden_files.batch_of(official, "input/targets"))
    losses = method.training_loss(batch, official.train_candidates)
    after = [key for key in official.arrays if key.startswith("out/train/bn_after/")]
    assert len(after) == 6
    buffers = dict(method.named_buffers())
    for key in after:
        name = golden_files.our_name(key.removeprefix("out/train/bn_after/"), method.backbone.n_vision_blocks, NAMES)
        near(f"{official.meta['job']} {name}", buffers[name], official.arrays[key], FEATURES)
    check_losses(near, losses, official, "train")
    losses.total.backward()
    golden_files.check_gradients(near, method, official, NAMES, largest_zero=1e-5)
    check_forward(near, method, official, "train", batch)


def test_gradients_recomputed_and_without_shared_beginnings(vp_cmjl, near, monkeypatch):
    official, method = vp_cmjl
    monkeypatch.setattr(method.backbone, "shared_prefix", False)
    monkeypatch.setattr(method.backbone, "recompute", True)
    losses = method.train().training_loss(golden_files.batch_of(official, "input/targets"), official.train_candidates)
    losses.total.backward()
    golden_files.check_gradients(near, method, official, NAMES, largest_zero=1e-5)


def test_loss_that_the_released_code_reports(vp_cmjl, near):
    """That of the last of the batches of four, divided by their number, however the images are cut here."""
    official, method = vp_cmjl
    batch = method.encode(golden_files.batch_of(official, "input/eval_targets"))
    start, batches = last_batch(len(batch), 4)
    prepared = method.prepare(official.candidates)
    for size in (1, 2):
        parts = []
        for at in range(start, len(batch), size):
            rows = slice(at, at + size)
            few = Batch(batch.states[rows], batch.objects[rows], batch.pairs[rows], batch.images[rows])
            parts.append((len(few), float(method.validation_losses(method.encode(few), prepared).total)))
        found = torch.tensor(averaged(parts, batches))
        near(f"{official.meta['job']} loss as reported", found, official.arrays["loss/eval/as_reported_batch4"], LOSSES)


def test_the_stray_word_changes_what_it_should(golden, golden_backbone):
    """Given the weights of one configuration, the other's prompts move states and objects and leave pairs."""
    official = golden_files.read(golden, "vp_cmjl_cgqa")
    batch = golden_files.batch_of(official, "input/eval_targets")
    words = {}
    for stray in (False, True):
        config = official_settings(official).model_copy(update={"stray_word": stray})
        method = VPCMJL(golden_backbone, official.vocabulary, config).eval()
        golden_files.load(method, official, NAMES)
        prepared = method.prepare(official.candidates)
        words[stray] = prepared.tensors | {"scores": method.score(method.encode(batch), prepared, slice(None))}
    assert torch.equal(words[True]["text.pair"], words[False]["text.pair"])
    assert (words[True]["text.state"] - words[False]["text.state"]).abs().max() > 0.05
    assert (words[True]["scores"] - words[False]["scores"]).abs().max() > 0.5


# What the description promises ----------------------------------------------------------------------------------------


def build(backbone, **settings) -> VPCMJL:
    """A method in evaluation mode on the small CLIP, moved away from its start."""
    torch.manual_seed(0)
    method = VPCMJL(backbone, VOCABULARY, VPCMJLConfig.model_validate(SMALL | settings)).eval()
    perturb(method)
    return method


def scores(method, candidates=None, chunk=slice(None), batch=None):
    candidates = all_pairs() if candidates is None else candidates
    encoded = method.encode(eight_images() if batch is None else batch)
    return method.score(encoded, method.prepare(candidates), chunk)


@pytest.mark.parametrize("changes", [pytest.param({}, id="full"), *SWITCHES])
def test_scores_and_gradients_with_every_switch(changes, backbone):
    """Scores are exact under chunks and independent of batch mates; every trained tensor learns, and CLIP does not."""
    method, batch = build(backbone, **changes), eight_images()
    encoded, prepared = method.encode(batch), method.prepare(all_pairs())
    whole = method.score(encoded, prepared, slice(None))
    assert whole.shape == (8, 12) and whole.dtype == torch.float32 and not whole.requires_grad
    assert whole.isfinite().all() and whole.std(dim=1).min() > 0
    limits = {"atol": 2e-5 * float(whole.abs().max()), "rtol": 0}
    parts = [method.score(encoded, prepared, slice(at, at + 5)) for at in (0, 5, 10)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **limits)
    alone = Batch(batch.states[2:3], batch.objects[2:3], batch.pairs[2:3], images=batch.images[2:3])
    torch.testing.assert_close(scores(method, batch=alone), whole[2:3], **limits)
    losses = method.train().training_loss(batch, all_pairs())
    losses.total.backward()
    silent = [name for name, value in method.trained().items() if value.grad is None or not value.grad.abs().max() > 0]
    # The bias in front of BatchNorm has no effect in training: its gradient is rounding noise, or nothing.
    assert not [name for name in silent if not name.startswith("disentanglers") or "linear.bias" not in name]
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("mixing", ["logits", "probabilities"])
@pytest.mark.parametrize("rule", ["logit_sum", "logit_product", "probability_sum", "probability_product", "log_sum"])
def test_scores_written_out(rule, mixing, backbone):
    method, few = build(backbone, inference=rule, mixing=mixing, proxy_weight=0.4, text_weight=0.9), [1, 5, 6]
    image, words = method.encode(eight_images()).features["image"], method.words(all_pairs(), dropout=False)
    logits = {"pair": method.pair_logits(image, words), **method.primitive_logits(image, words)}
    z = {branch: 0.4 * parts["proxy"] + 0.9 * parts["text"] for branch, parts in logits.items()}
    p = {branch: value.softmax(1) for branch, value in z.items()}
    if mixing == "probabilities":
        p = {
            branch: 0.4 * parts["proxy"].softmax(1) + 0.9 * parts["text"].softmax(1) for branch, parts in logits.items()
        }
    states, objects = torch.from_numpy(all_pairs().pairs).T
    first, second = p["state"][:, states], p["object"][:, objects]
    if rule == "log_sum":
        first, second = first.log(), second.log()
    pair = p["pair"] if rule.startswith("probability") else z["pair"]
    expected = pair + (first * second if rule.endswith("product") else first + second)
    torch.testing.assert_close(scores(method), expected, atol=1e-4, rtol=1e-4)
    same = torch.allclose(scores(method, all_pairs().subset(few)), expected[:, few], atol=1e-4, rtol=1e-4)
    assert same is method.info.candidate_independent


def test_attention_to_words_is_that_of_torch(backbone):
    """Against torch's own module, called as the released code calls it; rows are shares and do not see each other."""
    method = build(backbone)
    layer, generator = method.attentions["state"], torch.Generator().manual_seed(0)
    image, words = torch.randn(8, 24, generator=generator), torch.randn(5, 24, generator=generator)
    normed = layer.norm_words(words)
    found, expected = layer.attention(layer.norm_image(image), normed, normed)
    middle = image + found
    wide = layer.widen(layer.norm(middle))
    read, weights = layer(image, layer.memory(words))
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(read, middle + layer.narrow(wide * torch.sigmoid(1.702 * wide)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    torch.testing.assert_close(layer(image[:3], layer.memory(words))[1], weights[:3])


def test_composed_proxies_are_the_linear_map_of_both(backbone):
    proxies = build(backbone).proxies
    states, objects = torch.from_numpy(all_pairs().pairs).T
    both = torch.cat([proxies.state[states], proxies.object[objects]], dim=1)
    torch.testing.assert_close(proxies.pairs(all_pairs()), proxies.composer(both), atol=1e-5, rtol=1e-5)
    started, mean = (
        VPCMJL(backbone, VOCABULARY, VPCMJLConfig(**SMALL, pair_proxy=how)).proxies.pairs(all_pairs())
        for how in ("linear_from_mean", "mean")
    )
    torch.testing.assert_close(started, mean)


def test_proxies_start_as_the_zero_shot_of_bare_names(backbone):
    method = VPCMJL(backbone, VOCABULARY, VPCMJLConfig(**SMALL)).eval()
    method.disentanglers = nn.ModuleDict({branch: nn.Identity() for branch in ("state", "object")})
    image = backbone.image_embedding(eight_images().images)
    logits = method.primitive_logits(image, method.words(all_pairs(), dropout=False))
    names = {"state": ["faux leather", "red", "wet"], "object": ["boots mid-calf", "apple", "car", "dog"]}
    for branch, words in names.items():
        expected = backbone.logit_scale * unit(image) @ unit(backbone.encode_sentences(words)).T
        torch.testing.assert_close(logits[branch]["proxy"], expected, atol=1e-4, rtol=1e-5)


def test_divergence(backbone):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 6, generator=generator).requires_grad_() for _ in range(2))
    p, q = first.softmax(1), second.softmax(1)
    torch.testing.assert_close(divergence(first, second), (q * (q / p).log()).sum(1).mean())
    divergence(first, first.detach()).backward()
    assert first.grad.abs().max() < 1e-7
    gradients = {}
    for detach in (False, True):
        method = build(backbone, **QUIET, detach_target=detach)
        method.training_loss(eight_images(), all_pairs()).terms["divergence"].backward()
        gradients[detach] = method.prompts.table.weight.grad, method.proxies.state.grad
    assert gradients[True][0] is None and torch.equal(gradients[True][1], gradients[False][1])
    assert gradients[False][0].abs().max() > 0


@pytest.mark.parametrize(
    ("weight", "parts"), [("proxy_weight", ("proxies", "disentanglers")), ("text_weight", ("prompts", "attentions"))]
)
def test_a_side_without_weight_has_no_part_in_scores(weight, parts, backbone):
    method = build(backbone, **{weight: 0.0})
    before = scores(method)
    with torch.no_grad():
        for name, value in method.trained().items():
            if name.startswith(parts):
                value.add_(0.1)
    assert torch.equal(scores(method), before)
    only = build(backbone, sides="text" if weight == "proxy_weight" else "proxy")
    assert not [name for name in only.trained() if name.startswith(parts) and not name.startswith("disentanglers")]


def test_mixtures():
    parts = {"a": torch.tensor([[1.0, 2.0, 0.0]]), "b": torch.tensor([[0.0, -1.0, 3.0]])}
    for mixing in ("logits", "probabilities"):
        mixture = Mixture({"a": 0.25, "b": 0.0}, mixing)
        found = mixture.log_probability({name: z[:, :2] for name, z in parts.items()}, mixture.normaliser(parts))
        expected = (0.25 * parts["a"]).softmax(1) if mixing == "logits" else 0.25 * parts["a"].softmax(1)
        torch.testing.assert_close(found.exp(), expected[:, :2])


def test_a_last_batch_of_one_image(backbone):
    batch = eight_images()
    alone = Batch(batch.states[:1], batch.objects[:1], batch.pairs[:1], batch.images[:1])
    assert build(backbone).train().training_loss(alone, all_pairs()).total.isfinite()


def test_parameter_counts_at_full_size():
    vocabulary = Vocabulary(("red",) * 115, ("apple",) * 245)
    method = VPCMJL(full_size_backbone(), vocabulary, VPCMJLConfig())
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in method.named_children()}
    assert counts["adapters"] == 6_343_680 and counts["disentanglers"] == 1_184_256
    assert counts["prompts"] == 283_392 and counts["attentions"] == 14_178_816
    assert counts["proxies"] == 276_480 + 1_180_416


@pytest.mark.parametrize("dataset", ["mit_states", "ut_zappos", "cgqa", "icon_states"])
def test_presets(dataset):
    found = {profile: resolve("vp_cmjl", VPCMJLConfig, dataset, profile=profile) for profile in ("clean", "official")}
    clean, official = found["clean"], found["official"]
    assert all(note.get("source") for one in found.values() for note in one.provenance.values() if "where" in note)
    assert clean.training.micro_batch is None, "BatchNorm sees the micro-batch"
    assert clean.training.selection == "val_auc" and official.training.selection == "last_batch_loss"
    assert (clean.method["stray_word"], official.method["stray_word"]) == (False, dataset == "cgqa")
    steps = {"mit_states": (5, 3), "ut_zappos": (5, 3), "cgqa": (3, 3), "icon_states": (2, 2)}[dataset]
    assert (clean.training.step_size, official.training.step_size) == steps


def test_what_does_not_fit_is_refused(backbone):
    with pytest.raises(UserError, match="24 channels"):
        VPCMJL(backbone, VOCABULARY, VPCMJLConfig())
    with pytest.raises(ValidationError, match="nothing to score with"):
        VPCMJLConfig(proxy_weight=0.0, text_weight=0.0)
