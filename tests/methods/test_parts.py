"""The blocks that methods share: golden values of small modules, and what each block promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.base import Candidates, Vocabulary
from errors import UserError
from methods.msci import Aggregator, block_range
from methods.parts.adapters import Adapter, AdapterBank, placed
from methods.parts.attention import CrossAttention, CrossAttentionLayer, CrossAttentionStack
from methods.parts.branches import Disentangler
from methods.parts.fusion import ScoreFusion
from methods.parts.prompt_families import PromptFamilies
from methods.parts.scoring import unit

VOCABULARY = Vocabulary(("Faux.Leather", "red", "wet"), ("Boots.Mid-Calf", "apple", "car", "dog"))
PAIRS = np.array([[0, 1], [2, 3], [1, 0], [1, 2], [2, 2]])


def wave(amplitude: float, shift: float, shape: tuple[int, ...], base: float = 0.0) -> Tensor:
    """The fill rule of the golden modules: base + amplitude * sin(shift + 0.37 j) at flat index j."""
    flat = np.arange(np.prod(shape))
    values = base + amplitude * np.sin(shift + 0.37 * flat)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def fill(parameter: nn.Parameter | Tensor, amplitude: float, shift: float, base: float = 0.0) -> None:
    with torch.no_grad():
        parameter.copy_(wave(amplitude, shift, tuple(parameter.shape), base))


def assert_golden(values: Tensor, total: float, squares: float, first: list[float], last: float) -> None:
    flat = values.detach().double().flatten()
    assert flat.sum().item() == pytest.approx(total, abs=2e-5)
    assert flat.square().sum().item() == pytest.approx(squares, abs=3e-5)
    assert flat[: len(first)].tolist() == pytest.approx(first, abs=2e-6)
    assert flat[-1].item() == pytest.approx(last, abs=2e-6)


def golden_stack(start: float, heads: int) -> CrossAttentionStack:
    stack = CrossAttentionStack(12, heads).eval()
    layer = stack.layers[0]
    for parameter, amplitude, step, base in (
        (stack.norm.weight, 0.1, 0.01, 1.0),
        (stack.norm.bias, 0.1, 0.02, 0.0),
        (layer.attention.query.weight, 0.3, 0.03, 0.0),
        (layer.attention.key.weight, 0.3, 0.04, 0.0),
        (layer.attention.value.weight, 0.3, 0.05, 0.0),
        (layer.attention.out.weight, 0.3, 0.06, 0.0),
        (layer.attention.out.bias, 0.1, 0.07, 0.0),
        (layer.norm.weight, 0.1, 0.08, 1.0),
        (layer.norm.bias, 0.1, 0.09, 0.0),
        (layer.widen.weight, 0.2, 0.10, 0.0),
        (layer.widen.bias, 0.1, 0.11, 0.0),
        (layer.narrow.weight, 0.2, 0.12, 0.0),
        (layer.narrow.bias, 0.1, 0.13, 0.0),
    ):
        fill(parameter, amplitude, start + step, base)
    return stack


def golden_aggregator(start: float) -> Aggregator:
    aggregator = Aggregator(12, 2).eval()
    fill(aggregator.linear.weight, 0.2, start + 0.1)
    fill(aggregator.linear.bias, 0.1, start + 0.2)
    fill(aggregator.norm.weight, 0.1, start + 0.3, 1.0)
    fill(aggregator.norm.bias, 0.1, start + 0.4)
    return aggregator


# Golden values (section 16 of MSCI's description) ---------------------------------------------------------------------


def test_golden_stages_and_logits():
    blocks = [wave(1, shift, (2, 5, 12)) for shift in (0.1, 0.2, 0.3, 0.4)]
    local, whole = golden_aggregator(1.0)(blocks[:2]), golden_aggregator(1.4)(blocks[2:])
    assert_golden(local, 53.550606, 61.028809, [1.671704, 0, 0.570590, 0.563416], 0.086147)
    assert_golden(whole, 52.092246, 58.037616, [1.732936, 0, 0.806283, 0.196370], 0.062884)
    text = unit(wave(1, 0.5, (3, 12)))
    assert_golden(text, 0.326400, 3, [0.188538, 0.300578, 0.371937, 0.392956], 0.341976)
    stage_1, stage_2 = golden_stack(2.0, 3), golden_stack(3.0, 4)
    memories = [stage.memory(stage.normalise(tokens)) for stage, tokens in ((stage_1, local), (stage_2, whole))]
    q1 = stage_1(text, memories[0])
    q2 = stage_2(q1, memories[1])
    assert_golden(q1, -3.328896, 9.291774, [0.495982, 0.479858, 0.535087, 0.512859], 0.399258)
    assert_golden(q2, -6.918951, 14.811403, [0.674081, 0.304011, 0.119844, 0.337227], 0.744023)
    parallel = stage_2(text, memories[1])
    assert_golden(parallel, -2.942620, 10.451316, [0.366727, 0.089892, -0.075407, 0.211916], 0.692773)
    drawn = unit(text + wave(0.05, 4.1, (12,), 0.1) * q1 + wave(0.05, 4.2, (12,), 0.1) * q2)
    assert_golden(drawn, 0.086675, 6, [0.213107, 0.283692, 0.337352, 0.367698], 0.394253)

    image = wave(1, 0.6, (2, 12))
    expected = torch.tensor([[99.20412, -60.22627, -73.27214], [-47.39071, 97.49413, -25.50492]])
    torch.testing.assert_close(100 * torch.einsum("bkd,bd->bk", drawn, unit(image)), expected, atol=1e-4, rtol=0)
    disentangler = Disentangler(12).eval()
    for parameter, amplitude, shift, base in (
        (disentangler.linear.weight, 0.3, 5.1, 0.0),
        (disentangler.linear.bias, 0.1, 5.2, 0.0),
        (disentangler.norm.weight, 0.1, 5.3, 1.0),
        (disentangler.norm.bias, 0.1, 5.4, 0.0),
        (disentangler.norm.running_mean, 0.1, 5.5, 0.0),
        (disentangler.norm.running_var, 0.3, 5.6, 1.0),
    ):
        fill(parameter, amplitude, shift, base)
    feature = disentangler(image)
    assert_golden(feature, 14.704455, 22.318182, [0, 0, 1.532717, 0.706617], 0.817176)
    expected = torch.tensor([[11.92031, 30.21310, -44.83391], [6.46799, 24.49847, -14.47010]])
    torch.testing.assert_close(100 * torch.einsum("bkd,bd->bk", drawn, unit(feature)), expected, atol=1e-4, rtol=0)


def test_golden_adapter():
    adapter = Adapter(6, 4).eval()
    fill(adapter.down.weight, 0.5, 6.1)
    fill(adapter.down.bias, 0.1, 6.2)
    fill(adapter.up.weight, 0.5, 6.3)
    fill(adapter.up.bias, 0.1, 6.4)
    added = adapter(wave(1, 6.0, (2, 5, 6)))
    assert_golden(added, 1.732862, 0.380513, [0.071052, 0.112362, -0.042802, -0.107402], 0.163426)


GOLDEN_LOGITS = {
    "pair": torch.tensor([[12.0, 10.0, 11.0]]),
    "state": torch.tensor([[2.0, 1.0]]),
    "object": torch.tensor([[0.5, 0.0, -0.5]]),
}
GOLDEN_PAIRS = torch.tensor([[0, 0], [1, 2], [0, 1]])


def fused(fusion: ScoreFusion, logits=GOLDEN_LOGITS, pairs=GOLDEN_PAIRS, chunk=slice(None), **given) -> Tensor:
    values = {"pair": logits["pair"][:, chunk]}
    values |= {name: logits[name].log_softmax(dim=1) for name in ("state", "object")} | given
    normaliser = logits["pair"].logsumexp(dim=1)
    return fusion(values["pair"], values["state"], values["object"], *pairs[chunk].T, normaliser)


def test_golden_scores_and_loss():
    for divisor, expected in ((1, [1.499916, 1.040589, 1.281908]), (2, [1.274979, 1.010147, 1.145477])):
        scores = fused(ScoreFusion("logit_product", (0.1, 0.9, 0.9), divisor))
        torch.testing.assert_close(scores, torch.tensor([expected]), atol=1e-6, rtol=0)
    targets = {"pair": 2, "state": 0, "object": 0}
    terms = [functional.cross_entropy(GOLDEN_LOGITS[name], torch.tensor([target])) for name, target in targets.items()]
    assert float(terms[0] + 0.1 * terms[1] + 0.1 * terms[2]) == pytest.approx(1.506959, abs=1e-6)


# Score fusion ---------------------------------------------------------------------------------------------------------


def test_rules_against_their_formulas():
    generator = torch.Generator().manual_seed(0)
    logits = {
        name: 5 * torch.randn(4, n, generator=generator) for name, n in (("pair", 5), ("state", 3), ("object", 4))
    }
    pairs = torch.from_numpy(PAIRS)
    pair, state, obj = (logits[name].softmax(dim=1) for name in ("pair", "state", "object"))
    state, obj = state[:, pairs[:, 0]], obj[:, pairs[:, 1]]
    expected = {
        "probability_product": 0.5 * pair + (2 * state) * (3 * obj),
        "logit_product": 0.5 * logits["pair"] + (2 * state) * (3 * obj),
        "probability_sum": 0.5 * pair + 2 * state + 3 * obj,
        "log_sum": 0.5 * logits["pair"] + 2 * state.log() + 3 * obj.log(),
        "pair": logits["pair"],
    }
    for rule, scores in expected.items():
        fusion = ScoreFusion(rule, (0.5, 2.0, 3.0))
        torch.testing.assert_close(fused(fusion, logits, pairs), scores, atol=1e-5, rtol=1e-5, msg=rule)
        parts = [fused(fusion, logits, pairs, slice(at, at + 2)) for at in (0, 2, 4)]
        torch.testing.assert_close(torch.cat(parts, dim=1), scores, atol=1e-5, rtol=1e-5, msg=rule)
        order = torch.tensor([3, 0, 4, 2, 1])
        turned = fused(fusion, logits | {"pair": logits["pair"][:, order]}, pairs[order])
        torch.testing.assert_close(turned, scores[:, order], atol=1e-5, rtol=1e-5, msg=rule)


def test_a_branch_that_is_missing_or_weighs_nothing():
    both = fused(ScoreFusion("logit_product"))
    no_state = fused(ScoreFusion("logit_product", (1, 0, 1)))
    no_object = fused(ScoreFusion("logit_product", (1, 1, 0)))
    pair = GOLDEN_LOGITS["pair"]
    torch.testing.assert_close((no_state - pair) * (no_object - pair), both - pair, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused(ScoreFusion("logit_product", (1, 0, 0))), pair + 1)  # as released
    torch.testing.assert_close(fused(ScoreFusion("logit_product"), state=None), no_state)
    assert torch.equal(fused(ScoreFusion("logit_product"), state=None, object=None), pair)
    torch.testing.assert_close(fused(ScoreFusion("logit_product"), pair=None), both - pair, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused(ScoreFusion("pair"), pair=None), both - pair, atol=1e-5, rtol=1e-4)
    assert torch.equal(fused(ScoreFusion("log_sum"), state=None, object=None), pair)
    with pytest.raises(ValueError, match="no branch"):
        fused(ScoreFusion(), pair=None, state=None, object=None)
    with pytest.raises(ValueError, match="normaliser"):
        ScoreFusion("probability_sum")(pair, None, None, *GOLDEN_PAIRS.T)


@pytest.mark.parametrize("divisor", [2, 28])
def test_listing_primitives_again_divides_the_product_by_the_square(divisor):
    product = fused(ScoreFusion("logit_product"), pair=None)
    torch.testing.assert_close(
        fused(ScoreFusion("logit_product", divisor=divisor), pair=None), product / divisor**2, atol=0, rtol=1e-5
    )
    copies = GOLDEN_LOGITS["state"].repeat(1, divisor).log_softmax(dim=1)  # what the released script does
    objects = GOLDEN_LOGITS["object"].repeat(1, divisor).log_softmax(dim=1)
    repeated = fused(ScoreFusion("logit_product"), pair=None, state=copies, object=objects)
    torch.testing.assert_close(repeated, product / divisor**2, atol=0, rtol=1e-5)


# Cross-attention ------------------------------------------------------------------------------------------------------


def plain_layer(layer: CrossAttentionLayer, queries: Tensor, tokens: Tensor) -> Tensor:
    """The layer written out for queries [B, K, d], head by head."""
    attention, found = layer.attention, []
    width = queries.shape[-1] // attention.heads
    maps = (attention.query(queries), attention.key(tokens), attention.value(tokens))
    for head in range(attention.heads):
        q, k, v = (mapped[..., head * width : (head + 1) * width] for mapped in maps)
        found.append((q @ k.transpose(1, 2) / width**0.5).softmax(dim=-1) @ v)
    queries = queries + attention.out(torch.cat(found, dim=-1))
    hidden = layer.widen(layer.norm(queries))
    return queries + layer.narrow(hidden * torch.sigmoid(1.702 * hidden))


@pytest.fixture
def stack() -> CrossAttentionStack:
    torch.manual_seed(0)
    return CrossAttentionStack(24, heads=3, layers=2).eval()


def test_stack_against_the_plain_computation(stack):
    text, tokens = unit(torch.randn(7, 24)), torch.randn(3, 10, 24)
    normed = stack.norm(tokens)
    expected = text.expand(3, -1, -1)
    for layer in stack.layers:
        expected = plain_layer(layer, expected, normed)
    memory = stack.memory(stack.normalise(tokens))
    shared = stack(text, memory)  # the first projection once for all images
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stack(text.expand(3, -1, -1), memory), expected, atol=1e-5, rtol=1e-5)
    parts = [stack(part, memory) for part in text.split(2)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(stack.normalise(tokens, 2), stack.norm(stack.norm(tokens)))


def test_weights_put_together_with_the_values_are_the_layers_output(stack):
    text, memory = unit(torch.randn(7, 24)), stack.memory(stack.normalise(torch.randn(3, 10, 24)))
    queries = text
    for layer, keys_values, weights in zip(stack.layers, memory, stack.weights(text, memory), strict=True):
        assert weights.shape == (3, 3, 7, 10) and (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 3, 7), atol=1e-6, rtol=0)
        mixed = (weights @ keys_values[1]).transpose(1, 2).flatten(2)
        found = layer.attention(queries, keys_values)
        torch.testing.assert_close(layer.attention.out(mixed), found, atol=1e-6, rtol=1e-5)
        queries = layer(queries, keys_values)


def test_gradient_through_shared_queries(stack):
    text, tokens = unit(torch.randn(7, 24)), torch.randn(3, 10, 24)
    gradients = []
    for queries in (text, text.expand(3, -1, -1)):
        stack.zero_grad()
        stack(queries, stack.memory(stack.normalise(tokens))).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in stack.parameters()])
    for shared, repeated in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, repeated, atol=1e-4, rtol=1e-4)


def test_stack_without_layers_and_impossible_heads():
    empty = CrossAttentionStack(24, heads=3, layers=0)
    text = torch.randn(7, 24)
    assert not list(empty.parameters()) and empty(text, empty.memory(torch.randn(3, 10, 24))) is text
    with pytest.raises(UserError, match="5 heads"):
        CrossAttention(24, 5)


def test_layer_dropout_is_for_training_alone():
    torch.manual_seed(0)
    layer = CrossAttentionLayer(24, 3, dropout=0.5)
    text, memory = torch.randn(7, 24), layer.attention.memory(torch.randn(3, 10, 24))
    assert not torch.equal(layer(text, memory), layer(text, memory))
    layer.eval()
    assert torch.equal(layer(text, memory), layer(text, memory))


# Adapters, disentangler, levels ---------------------------------------------------------------------------------------


def test_a_fresh_adapter_adds_nothing_and_learns_from_its_second_step():
    adapter = Adapter(8, 3)
    hidden = torch.randn(2, 5, 8)
    assert torch.equal(adapter(hidden), torch.zeros(2, 5, 8))
    adapter(hidden).sum().backward()
    assert adapter.up.weight.grad.abs().max() > 0 and adapter.down.weight.grad.abs().max() == 0
    assert adapter.down.weight.abs().max() <= 8**-0.5 and adapter.down.bias.abs().max() == 0


def test_adapters_sit_where_they_are_placed(backbone):
    slots = backbone.slot_names("vision")
    assert placed(slots, "both") == slots and placed(slots, "none") == ()
    assert placed(slots, "attn") == tuple(f"vision.{block}.attn" for block in range(4))
    bank = AdapterBank(placed(slots, "mlp"), backbone.vision_width)
    assert list(bank.slots) == [f"vision.{block}.mlp" for block in range(4)]
    images = torch.randn(2, 3, 32, 32)
    plain = backbone.image_embedding(images)
    torch.testing.assert_close(backbone.image_embedding(images, bank.slots), plain, atol=1e-6, rtol=0)
    nn.init.normal_(bank.slots["vision.2.mlp"].up.weight)
    assert (backbone.image_embedding(images, bank.slots) - plain).abs().max() > 1e-3


def test_disentangler_of_a_single_image():
    torch.manual_seed(0)
    disentangler = Disentangler(12, dropout=0.0)
    images = torch.randn(6, 12)
    for _ in range(3):
        disentangler(images)
    before = disentangler.norm.running_mean.clone()
    alone = disentangler(images[:1])
    assert torch.equal(disentangler.norm.running_mean, before)
    torch.testing.assert_close(alone, disentangler.eval()(images[:1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(disentangler(images[:1]), alone)


def test_aggregators():
    tokens = [torch.randn(2, 5, 12) for _ in range(3)]
    for pooling in ("linear", "max", "mean"):
        single = Aggregator(12, 1, pooling)
        assert single(tokens[:1]) is tokens[0] and not list(single.parameters())
    assert torch.equal(Aggregator(12, 3, "max")(tokens), torch.maximum(torch.maximum(*tokens[:2]), tokens[2]))
    torch.testing.assert_close(Aggregator(12, 3, "mean")(tokens), sum(tokens) / 3)
    assert not list(Aggregator(12, 3, "max").parameters())
    dropped = Aggregator(12, 3, dropout=0.5)
    assert not torch.equal(dropped(tokens), dropped(tokens))


def test_levels_fit_the_tower():
    assert [block_range(None, blocks, "n_low") for blocks in (24, 12, 6, 1)] == [4, 2, 2, 1]
    assert block_range(3, 6, "n_low") == 3
    with pytest.raises(UserError, match="n_high asks for 7"):
        block_range(7, 6, "n_high")


# Prompt families ------------------------------------------------------------------------------------------------------


@pytest.fixture
def candidates() -> Candidates:
    return Candidates(VOCABULARY, PAIRS, np.ones(5, dtype=bool))


def test_families_start_from_the_words(backbone, candidates):
    prompts = PromptFamilies(backbone, VOCABULARY)
    assert {name: tuple(value.shape) for name, value in prompts.named_parameters()} == {
        "table.weight": (7, 48),
        "families.pair.context": (3, 48),
        "families.state.context": (3, 48),
        "families.object.context": (3, 48),
    }
    words = backbone.token_embedding(torch.tensor([320, 1125, 539]))
    assert all(torch.equal(family.context, words) for family in prompts.families.values())
    assert [prompts.families[branch].eot for branch in ("pair", "state", "object")] == [6, 5, 5]
    text = prompts(backbone, candidates)
    for branch, names in (("state", ("red", "wet")), ("object", ("apple", "car", "dog"))):
        sentences = backbone.encode_sentences([f"a photo of {name}" for name in names])
        torch.testing.assert_close(text[branch][1:], sentences, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text["pair"][1], backbone.encode_sentences(["a photo of wet dog"])[0])


def test_families_share_one_dropout_mask(backbone, candidates):
    prompts = PromptFamilies(backbone, VOCABULARY, dropout=0.5)
    torch.manual_seed(0)
    dropped = prompts.table()
    torch.manual_seed(0)
    text = prompts(backbone, candidates)
    state = prompts.families["state"].encode(backbone, dropped, torch.arange(3)[:, None])
    torch.testing.assert_close(text["state"], state)
    pair = prompts.families["pair"].encode(backbone, dropped, prompts.rows("pair", candidates))
    torch.testing.assert_close(text["pair"], pair)
    whole = prompts(backbone, candidates, dropout=False)
    torch.testing.assert_close(prompts.eval()(backbone, candidates)["pair"], whole["pair"])
    assert (whole["pair"] - text["pair"]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("shared_context", "shared_words"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_what_families_share(backbone, candidates, shared_context, shared_words):
    prompts = PromptFamilies(backbone, VOCABULARY, shared_context=shared_context, shared_words=shared_words)
    names = dict(prompts.named_parameters())
    assert sum("context" in name for name in names) == (1 if shared_context else 3)
    assert ("own_table.weight" in names) is not shared_words
    prompts(backbone, candidates)["state"].square().sum().backward()
    touched = {name for name, parameter in names.items() if parameter.grad is not None}
    assert touched == {
        "table.weight" if shared_words else "own_table.weight",
        "families.pair.context" if shared_context else "families.state.context",
    }


def test_some_families_alone(backbone, candidates):
    prompts = PromptFamilies(backbone, VOCABULARY, branches=("state",), learn_context=False, shared_words=False)
    assert list(dict(prompts.named_parameters())) == ["table.weight"]
    assert {branch: tuple(text.shape) for branch, text in prompts(backbone, candidates).items()} == {"state": (3, 24)}
