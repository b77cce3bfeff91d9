"""Shared beginnings of prompts: the same numbers and gradients as encoding every prompt in full."""

from __future__ import annotations

import pytest
import torch

from datasets.base import Vocabulary
from methods.backbone import Backbone, build_clip, prefix
from methods.parts.prompts import PAIR_TEMPLATE, PrimitiveTable, SoftPrompt

VOCABULARY = Vocabulary(("Faux.Leather", "red", "wet"), ("Boots.Mid-Calf", "apple", "car", "dog"))
PAIRS = {
    "all": [[state, 3 + obj] for state in range(3) for obj in range(4)],
    "some, mixed and twice": [[2, 5], [0, 3], [2, 5], [1, 6], [0, 4], [2, 3], [1, 3]],
    "one": [[1, 4]],
    "one state": [[2, 3], [2, 6], [2, 4]],
}


@pytest.fixture(scope="module", params=[1, 3], ids=["one block", "three blocks"])
def towers(request, backbone, small_config, tokenizer) -> Backbone:
    """The small CLIP, and one with a single text block, which is first and last at once."""
    if request.param == 3:
        return backbone
    clip = build_clip({**small_config, "text_cfg": {**small_config["text_cfg"], "layers": 1}}, "flat", seed=2)
    with torch.no_grad():
        clip.token_embedding.weight.mul_(30)
        clip.positional_embedding.mul_(30)
    return Backbone.from_open_clip(clip, tokenizer, "flat")


def prompts_of(backbone: Backbone, template: str = PAIR_TEMPLATE, slots: int = 2, length: int | None = None):
    """A prompt with a learned context, and a table, both moved from where they start."""
    torch.manual_seed(0)
    prompt = SoftPrompt(backbone, template, slots, learn_context=True, context_length=length)
    table = PrimitiveTable(backbone, VOCABULARY)
    with torch.no_grad():
        for parameter in (prompt.context, table.weight):
            parameter.add_(torch.randn(parameter.shape))
    return prompt, table


def both_ways(backbone, monkeypatch, compute, parameters):
    """Return (value, gradients) with every prompt in full and with shared beginnings, for one random direction."""
    results = []
    for shared in (False, True):
        monkeypatch.setattr(backbone, "shared_prefix", shared)
        value = compute()
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(5))
        results.append((value, torch.autograd.grad((value * direction).sum(), parameters)))
    return results


def assert_equal(results, near) -> None:
    (plain, plain_gradients), (shared, gradients) = results
    near("features", shared, plain.detach(), 1e-5)
    for ours, expected in zip(gradients, plain_gradients, strict=True):
        near("gradient", ours, expected, 1e-5, relative=True)


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("length", [None, 8])
def test_pairs(towers, pairs, length, near, monkeypatch):
    prompt, table = prompts_of(towers, length=length)
    rows = torch.tensor(pairs)
    results = both_ways(
        towers, monkeypatch, lambda: prompt.encode(towers, table(), rows), [prompt.context, table.weight]
    )
    assert_equal(results, near)
    plain = towers.encode_text(prompt(table(), rows), prompt.eot)
    near("against encode_text", results[1][0], plain.detach(), 1e-5)


@pytest.mark.parametrize(("template", "slots"), [("a photo of x", 1), ("a photo of x x x", 3), ("x x", 2)])
def test_other_templates(towers, template, slots, near, monkeypatch):
    prompt, table = prompts_of(towers, template, slots)
    rows = torch.randint(7, (9, slots), generator=torch.Generator().manual_seed(1))
    parameters = [table.weight] if template == "x x" else [prompt.context, table.weight]
    assert_equal(both_ways(towers, monkeypatch, lambda: prompt.encode(towers, table(), rows), parameters), near)


def test_all_tokens(towers, near, monkeypatch):
    prompt, table = prompts_of(towers, length=8)
    rows = torch.tensor(PAIRS["some, mixed and twice"])

    def compute() -> torch.Tensor:
        ((features, tokens),) = prompt.passes(towers, table(), rows, all_tokens=True)
        assert tokens.shape == (7, 8, 48)
        return torch.cat([features.flatten(1), tokens.flatten(1)], dim=1)

    assert_equal(both_ways(towers, monkeypatch, compute, [prompt.context, table.weight]), near)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_passes_and_recomputing(towers, checkpoint, near, monkeypatch):
    prompt, table = prompts_of(towers)
    rows = torch.tensor(PAIRS["all"])
    monkeypatch.setattr(towers, "text_chunk", 5)
    monkeypatch.setattr(towers, "recompute", checkpoint)
    assert [len(features) for features, _ in prompt.passes(towers, table(), rows)] == [5, 5, 2]
    results = both_ways(
        towers, monkeypatch, lambda: prompt.encode(towers, table(), rows), [prompt.context, table.weight]
    )
    assert_equal(results, near)


def test_without_gradient_and_under_autocast(backbone, monkeypatch):
    prompt, table = prompts_of(backbone)
    rows = torch.tensor(PAIRS["all"])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        shared = prompt.encode(backbone, table(), rows)
        monkeypatch.setattr(backbone, "shared_prefix", False)
        plain = prompt.encode(backbone, table(), rows)
    assert not shared.requires_grad
    assert (shared - plain).abs().max() < 0.05 * plain.abs().max()


def test_an_unknown_kind_of_attention_is_encoded_in_full(backbone, monkeypatch):
    prompt, table = prompts_of(backbone)
    rows = torch.tensor(PAIRS["one"])
    assert prefix.can_share(backbone)
    monkeypatch.setattr(prefix, "can_share", lambda _: False)
    monkeypatch.setattr(prefix, "extend", None)
    assert prompt.encode(backbone, table(), rows).shape == (1, 24)
