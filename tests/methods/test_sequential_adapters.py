"""Adapters on a sub-layer's output and their mixture, apart from the golden numbers of CAILA (test_caila_parity.py)."""

from __future__ import annotations

import pytest
import torch

from methods.parts.sequential_adapters import Join, Mixture, SequentialAdapter


def adapter(width: int = 12, up_init: str = "uniform") -> SequentialAdapter:
    return SequentialAdapter(width, 4, torch.nn.GELU(), up_init)


def test_a_mixture_of_three_equal_adapters_is_that_adapter():
    torch.manual_seed(0)
    own, output = adapter(), torch.randn(2, 5, 12)
    for latents, outputs in (("mean", "mean"), (None, "mean"), ("mean", None)):
        torch.testing.assert_close(Mixture(own, latents, outputs).of(own, own)(output), own(output))
    assert torch.equal(Mixture(own, None, None).of(adapter(), adapter())(output), own(output))


def test_latents_and_outputs_are_joined_as_written():
    torch.manual_seed(0)
    own, state, thing, output = adapter(), adapter(), adapter(), torch.randn(2, 5, 12)

    def latent(one):
        return torch.nn.functional.gelu(output @ one.down.weight.T + one.down.bias)

    z = (latent(own) + latent(state) + latent(thing)) / 3
    parts = (z @ own.up.weight.T, latent(state) @ state.up.weight.T, latent(thing) @ thing.up.weight.T)
    torch.testing.assert_close(Mixture(own, "mean", "mean").of(state, thing)(output), sum(parts) / 3)
    torch.testing.assert_close(Mixture(own, "mean", None).of(state, thing)(output), parts[0])
    alone = latent(own) @ own.up.weight.T
    torch.testing.assert_close(Mixture(own, None, "sum").of(state, thing)(output), alone + parts[1] + parts[2])
    joined = Join(12, "concat")
    torch.testing.assert_close(joined(parts), torch.cat(parts, dim=-1) @ joined.linear.weight.T + joined.linear.bias)


@torch.no_grad()
def test_zero_adapters_leave_clip_as_it_is_and_others_do_not(backbone):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    slots = backbone.slot_names("vision", "out")
    assert slots[:2] == ("vision.0.attn.out", "vision.0.mlp.out") and len(slots) == len(backbone.slot_names("vision"))
    plain = backbone.image_embedding(images)
    zero = {slot: adapter(backbone.vision_width, "zero") for slot in slots}
    assert torch.equal(backbone.image_embedding(images, adapters=zero), plain)
    uniform = {slot: adapter(backbone.vision_width) for slot in slots}
    assert (backbone.image_embedding(images, adapters=uniform) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_an_output_slot_reads_the_output_of_its_sub_layer(backbone):
    """A block by hand: h + 2 o is what an adapter that gives its input back makes of it."""
    block = backbone.clip.visual.transformer.resblocks[0]
    tokens = torch.randn(2, 17, backbone.vision_width)
    attended = tokens + 2 * block.attention(q_x=block.ln_1(tokens))
    expected = attended + 3 * block.mlp(block.ln_2(attended))
    slots = {"vision.0.attn.out": lambda output: output, "vision.0.mlp.out": lambda output: 2 * output}
    torch.testing.assert_close(backbone.run_vision_blocks(tokens, 0, 1, slots), expected, atol=1e-5, rtol=1e-5)


def test_an_unknown_output_slot_is_named(backbone):
    with pytest.raises(ValueError, match=r"vision\.0\.attn\.in"):
        backbone.image_embedding(torch.zeros(1, 3, 32, 32), adapters={"vision.0.attn.in": torch.nn.Identity()})
