"""Linear maps by oneDNN: torch's own values and gradients up to rounding, and torch's own where they do not apply."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from methods.backbone import products
from methods.backbone.products import Linear, as_torch_does, linear, on_a_cpu, product

needs_one_dnn = pytest.mark.skipif(products._PRODUCT is None, reason="this torch comes without oneDNN")


def made(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("lead", [(), (7,), (3, 5), (0,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_values_and_gradients_are_those_of_torch(lead, bias, trained):
    weight, offset = made(24, 16).requires_grad_(trained), made(24).requires_grad_(trained) if bias else None
    tokens = made(*lead, 16).requires_grad_()
    wanted = [tokens, *([weight] if trained else []), *([offset] if trained and bias else [])]
    ours, torchs = linear(tokens, weight, offset), functional.linear(tokens, weight, offset)
    torch.testing.assert_close(ours, torchs, rtol=2e-6, atol=2e-6)
    along = made(*ours.shape)
    for one, two in zip(
        torch.autograd.grad(ours, wanted, along), torch.autograd.grad(torchs, wanted, along), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=2e-6, atol=4e-6)


def test_tokens_and_weights_may_lie_in_memory_in_any_way():
    weight, offset = made(16, 40).mT[8:32], made(48)[::2]
    tokens = made(9, 4, 3, 16)[:, 1, ::2]
    torch.testing.assert_close(linear(tokens, weight, offset), functional.linear(tokens, weight, offset))
    torch.testing.assert_close(product(made(24, 9).mT, weight.mT), made(24, 9).mT @ weight)


def test_a_packed_weight_gives_the_same():
    tokens, weight, offset = made(64, 96), made(128, 96), made(128)
    assert torch.equal(product(tokens, products.packed(weight, 64), offset), product(tokens, weight, offset))
    back = made(64, 128)
    assert torch.equal(product(back, products.packed(weight.mT, 64)), product(back, weight.mT))
    torch.testing.assert_close(product(tokens[:7], products.packed(weight, 64)), tokens[:7] @ weight.mT)
    assert products.packed(weight.double(), 64).dtype == torch.float64
    with as_torch_does():
        assert products.packed(weight, 64) is weight


def test_other_types_and_autocast_are_computed_as_torch_does():
    tokens, weight = made(5, 16), made(24, 16)
    double = linear(tokens.double(), weight.double())
    assert torch.equal(double, functional.linear(tokens.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        half = linear(tokens, weight)
        assert half.dtype == torch.bfloat16 and torch.equal(half, functional.linear(tokens, weight))


def test_a_layer_is_torchs_layer_with_its_initial_values():
    torch.manual_seed(3)
    ours = Linear(16, 24)
    torch.manual_seed(3)
    torchs = nn.Linear(16, 24)
    assert all(torch.equal(one, two) for one, two in zip(ours.parameters(), torchs.parameters(), strict=True))
    torch.testing.assert_close(ours(made(2, 3, 16)), torchs(made(2, 3, 16)))


def test_without_values_and_while_counting_torchs_operations_are_used():
    tokens, weight = made(5, 16), made(24, 16)
    assert on_a_cpu(tokens, weight)
    with FakeTensorMode() as mode:
        assert not on_a_cpu(mode.from_tensor(tokens), weight)
    with as_torch_does(), FlopCounterMode(display=False) as counter:
        assert not on_a_cpu(tokens, weight)
        linear(tokens, weight)
    assert counter.get_total_flops() == 2 * 5 * 16 * 24
    assert on_a_cpu(tokens, weight)


@needs_one_dnn
def test_the_fast_way_is_taken_where_it_applies(monkeypatch):
    """On a processor, in fp32, forward and backward, with gradients and without."""
    calls = []
    inner = products._PRODUCT
    monkeypatch.setattr(products, "_PRODUCT", lambda *given: calls.append(1) or inner(*given))
    tokens, weight = made(5, 16).requires_grad_(), made(24, 16)
    linear(tokens, weight).sum().backward()
    with torch.no_grad():
        linear(tokens, weight)
    assert len(calls) == 3
