"""Functions that keep less for backward, against the plain operations: cross-attention's MLP, CLIP's, prefixes."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional

from methods.backbone import prefix_attention, products
from methods.backbone.feed import feed
from methods.backbone.prefix_attention import Beginning, attend_after
from methods.parts import bits, coins, feed_forward, shares
from methods.parts.attention import CrossAttentionLayer, quick_gelu
from methods.parts.shares import Share, image_dropout, image_mask


@pytest.fixture(params=[0.0, 0.5, 1.0], ids=["made again", "some kept", "kept"])
def keep(request, monkeypatch) -> float:
    monkeypatch.setattr(feed_forward, "KEEP_WIDENED", request.param)
    monkeypatch.setattr(feed_forward, "ROWS_ON_A_CPU", 4)  # several blocks, the last one smaller
    return request.param


def layer(width: int = 6, dropout: float = 0.3, dtype: torch.dtype = torch.float64) -> CrossAttentionLayer:
    torch.manual_seed(0)
    built = CrossAttentionLayer(width, 2, dropout).to(dtype)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def plain(part: CrossAttentionLayer, queries: Tensor, found: Tensor) -> Tensor:
    """The layer behind its attention, operation by operation."""

    def drop(values: Tensor) -> Tensor:
        return image_dropout(values, part.dropout, part.training)

    queries = queries + drop(found)
    inner = drop(quick_gelu(part.widen(part.norm(queries))))
    return queries + drop(part.narrow(inner))


def ours(part: CrossAttentionLayer, queries: Tensor, found: Tensor) -> Tensor:
    dropout = part.dropout if part.training else 0.0
    return feed_forward.feed_forward(queries, found, part.norm, part.widen, part.narrow, dropout)


def with_gradients(compute, part, queries, found, seed: int = 5) -> list[Tensor]:
    torch.manual_seed(seed)
    out = compute(part, queries, found)
    state = torch.get_rng_state()
    weights = [*part.norm.parameters(), *part.widen.parameters(), *part.narrow.parameters()]
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, [queries, found, *weights], direction), state]


@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6)], ids=["shared queries", "queries of each image"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_feed_forward_is_its_formula(keep, shape, dropout):
    part = layer(dropout=dropout)
    queries = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    results = (with_gradients(compute, part.train(), queries, found) for compute in (ours, plain))
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)
    weights = (part.norm.weight, part.widen.weight, part.narrow.bias)

    def again(queries: Tensor, found: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(5)
        return ours(part, queries, found)

    assert torch.autograd.gradcheck(again, (queries, found, *weights), fast_mode=True)
    torch.testing.assert_close(ours(part.eval(), queries, found), plain(part, queries, found))


def test_what_is_made_again_is_the_same_to_the_last_bit(monkeypatch):
    part = layer(24, dtype=torch.float32).train()
    queries, found = (torch.randn(4, 9, 24, requires_grad=True) for _ in range(2))
    results = []
    monkeypatch.setattr(feed_forward, "ROWS_ON_A_CPU", 8)
    for kept in (0.0, 0.5, 1.0):
        monkeypatch.setattr(feed_forward, "KEEP_WIDENED", kept)
        results.append(with_gradients(ours, part, queries, found))
    assert all(torch.equal(one, other) for one, *rest in zip(*results, strict=True) for other in rest)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_drops_what_falls_on_its_images(keep, rank):
    part = layer().train()
    queries = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    found = torch.randn(5, 3, 6, dtype=torch.float64)
    torch.manual_seed(5)
    whole = ours(part, queries, found)
    share = (Share(0, 3, 5, join=None), Share(3, 2, 5, join=None))[rank]
    with shares.in_force(share):
        torch.manual_seed(5)
        torch.testing.assert_close(ours(part, queries, found[share.rows]), whole[share.rows])


def test_feed_forward_under_autocast(keep):
    part = layer(24, dtype=torch.float32).train()
    queries, found = torch.randn(9, 24, requires_grad=True), torch.randn(4, 9, 24).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, expected = (with_gradients(compute, part, queries, found) for compute in (ours, plain))
    for value, other in zip(rough[:-1], expected[:-1], strict=True):
        assert value.dtype == other.dtype
        assert (value - other).abs().max() < 0.05 * other.abs().max()


@pytest.mark.parametrize("width", [1, 8, 13])
def test_bits(width):
    mask = torch.rand(5, width) < 0.5
    packed = bits.pack(mask)
    assert packed.shape == (5, -(-width // 8)) and packed.dtype == torch.uint8
    assert torch.equal(bits.unpack(packed, width, torch.float64), mask.double())


def test_a_mask_is_that_of_dropout():
    values = torch.ones(4, 7)
    torch.manual_seed(3)
    dropped = image_dropout(values, 0.4, True)
    torch.manual_seed(3)
    assert torch.equal(image_mask(values, values.shape, 0.4), dropped != 0)


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.1, 0.3, 0.5, 0.9, 1 - 0.1, 1.0])
def test_coins_are_bernoullis(p):
    assert coins._draws_so(), "this torch draws in another way: the savings of coins.py are gone, its numbers are right"
    for shape in ((), (0,), (7,), (33, 1001)):
        torch.manual_seed(5)
        torchs, after = torch.empty(shape, dtype=torch.bool).bernoulli_(p), torch.rand(2)
        torch.manual_seed(5)
        assert torch.equal(coins.coins(shape, p, torch.zeros(1)), torchs) and torch.equal(torch.rand(2), after)


def test_coins_are_torchs_own_where_it_draws_otherwise(monkeypatch):
    monkeypatch.setattr(coins, "_draws_so", lambda: False)
    torch.manual_seed(5)
    torchs = torch.empty(40, dtype=torch.bool).bernoulli_(0.9)
    torch.manual_seed(5)
    assert torch.equal(coins.coins((40,), 0.9, torch.zeros(1)), torchs)


def test_clips_mlp_is_its_formula():
    torch.manual_seed(0)
    mlp = nn.Sequential()
    for name, module in (("c_fc", nn.Linear(6, 24)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(24, 6))):
        mlp.add_module(name, module.double())
    before = {name: value.clone() for name, value in mlp.state_dict().items()}
    tokens = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    trained = feed(mlp, tokens)
    assert torch.equal(trained, mlp(tokens)), "weights that get a gradient: the module itself"
    mlp.requires_grad_(False)
    torch.testing.assert_close(feed(mlp, tokens), trained, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda values: feed(mlp, values), (tokens,))
    assert all(torch.equal(value, before[name]) for name, value in mlp.state_dict().items())
    mlp.gelu = nn.GELU()
    assert torch.equal(feed(mlp, tokens), mlp(tokens))


@pytest.mark.skipif(products._PRODUCT is None, reason="this torch comes without oneDNN")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("activation", [nn.GELU, QuickGELU])
def test_clips_mlp_is_computed_by_onednn(activation, frozen, monkeypatch):
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(6, 24), activation(), nn.Linear(24, 6)).requires_grad_(not frozen)
    tokens, along = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 6)
    calls = []
    inner = products._PRODUCT
    monkeypatch.setattr(products, "_PRODUCT", lambda *given: calls.append(1) or inner(*given))
    ours, torchs = feed(mlp, tokens), mlp(tokens)
    torch.testing.assert_close(ours, torchs, rtol=2e-6, atol=2e-6)
    wanted = [tokens, *(weight for weight in mlp.parameters() if weight.requires_grad)]
    gradients = [torch.autograd.grad(result, wanted, along) for result in (ours, torchs)]
    torch.testing.assert_close(*gradients, rtol=2e-6, atol=4e-6)
    assert len(calls) == 4, "both maps, forward and backward"


@pytest.mark.parametrize("read", [slice(None), slice(1, 2)], ids=["all", "the end token"])
@pytest.mark.parametrize("levels", [(), (1,), (1, 3), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("few", [0, prefix_attention.FEW], ids=["products", "sums of rows"])
def test_attention_after_beginnings(levels, read, few, monkeypatch):
    monkeypatch.setattr(prefix_attention, "FEW", few)
    monkeypatch.setattr(prefix_attention, "PROMPTS_ON_A_CPU", 3)
    stream = torch.Generator().manual_seed(0)
    prompts, length, width, heads = 4, 2, 6, 2

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=torch.float64).requires_grad_()

    mask = torch.ones(length, length, dtype=torch.bool).tril()[read]
    rows = [None if count == 1 else torch.randint(count, (prompts,), generator=stream) for count in levels]
    own = (numbers(prompts, len(mask), width), numbers(prompts, length, width), numbers(prompts, length, width))
    older = [numbers(count, size + 1, width) for size, count in enumerate(levels) for _ in range(2)]

    def found(queries: Tensor, keys: Tensor, values: Tensor, *older: Tensor) -> Tensor:
        pairs = zip(older[::2], older[1::2], rows, strict=True)
        return attend_after(queries, keys, values, [Beginning(*pair) for pair in pairs], mask, heads)

    def by_torch(queries: Tensor, keys: Tensor, values: Tensor, *older: Tensor) -> Tensor:
        def whole(own: Tensor, older: tuple[Tensor, ...]) -> Tensor:
            pairs = zip(older, rows, strict=True)
            fetched = [part.expand(prompts, -1, -1) if row is None else part[row] for part, row in pairs]
            return torch.cat([*fetched, own], dim=1).unflatten(-1, (heads, -1)).transpose(1, 2)

        seen = torch.cat([torch.ones(len(mask), sum(range(1, len(levels) + 1)), dtype=torch.bool), mask], dim=1)
        split = queries.unflatten(-1, (heads, -1)).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            split, whole(keys, older[::2]), whole(values, older[1::2]), attn_mask=seen
        )
        return mixed.transpose(1, 2).flatten(2)

    torch.testing.assert_close(found(*own, *older), by_torch(*own, *older))
    assert torch.autograd.gradcheck(found, (*own, *older), fast_mode=True)
