"""Families of towers at small sizes: features equal open_clip's, prompts equal texts, and taps and slots are there."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.studies.backbones import compare, stir, wrapped
from datasets.base import Candidates, Vocabulary
from methods.backbone.text_activation import OtherActivation
from methods.offers import OFFERS, offers_of_config
from methods.parts.prompts import PrimitiveTable, SoftPrompt
from registry import METHODS

TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SIGLIP = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3}


def timm_images(name: str, **changes) -> dict:
    return {"timm_model_name": name, "timm_pool": "token", "timm_proj": None, "image_size": 160, **changes}


def config(vision: dict, text: dict = TEXT, **changes) -> dict:
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "custom_text": True, **changes}


CAPTIONS = {"multimodal_cfg": {"context_length": 20, "width": 32, "heads": 2, "layers": 1}}
FAMILIES = {
    "own text": config(VIT),
    "mean, last": config({**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, {**SIGLIP}),
    "captions": config(
        {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {**TEXT, "embed_cls": True, "output_tokens": True},
        **CAPTIONS,
    ),
    "resnet": config({"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}),
    "timm token": config(timm_images("test_vit"), {**TEXT, "no_causal_mask": True}),
    "timm map": config(timm_images("test_vit3", timm_pool="map", timm_proj="none"), SIGLIP, embed_dim=96),
    "timm mean": config(timm_images("test_vit2", timm_pool="avg", timm_proj="linear")),
    "timm rotary": config(timm_images("vit_pe_core_tiny_patch16_384", timm_pool="map", image_size=384)),
    "timm convnext": config(
        timm_images("test_convnext", timm_pool="", timm_proj="linear"), {**TEXT, "pool_type": "first"}
    ),
}


@pytest.fixture(scope="module")
def built(tokenizer):
    """Return a function that gives a family's backbone, with weights that hide nothing; each is built once."""
    kept = {}

    def give(name: str):
        if name not in kept:
            kept[name] = wrapped(name, copy.deepcopy(FAMILIES[name]))
            stir(kept[name])
            kept[name].tokenizer = tokenizer
        return kept[name]

    return give


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_open_clips(built, name):
    backbone = built(name)
    assert max(compare(backbone)) < 1e-5
    assert backbone.offers == offers_of_config(FAMILIES[name]).names <= set(OFFERS)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_of_words_is_a_text(built, name):
    """A prompt with the words' own vectors in its slots has the features of the sentence, padded as open_clip does."""
    backbone = built(name)
    vocabulary = Vocabulary(("red", "old"), ("car", "dog"))
    table = PrimitiveTable(backbone, vocabulary)
    pairs = torch.tensor([[0, 2], [0, 3], [1, 3]])
    found = SoftPrompt(backbone).encode(backbone, table.weight, pairs)
    texts = ["a photo of red car", "a photo of red dog", "a photo of old dog"]
    ids = backbone.tokenize(texts, backbone.context_length)
    expected = backbone.clip.encode_text(ids, normalize=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(
        backbone.encode_sentences(texts), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


@torch.no_grad()
def test_another_activation_in_a_text_tower_that_is_a_module_of_its_own(built):
    backbone = built("own text")
    replaced = copy.deepcopy(backbone, {id(backbone.tokenizer): backbone.tokenizer})
    for block in replaced.clip.text.transformer.resblocks:
        block.mlp.gelu = torch.nn.Tanh()
    texts = ["a photo of old dog", "a photo of red car"]
    found = OtherActivation(backbone, torch.nn.Tanh).encode_sentences(texts)
    torch.testing.assert_close(found, replaced.encode_sentences(texts), rtol=1e-5, atol=1e-6)
    assert (found - backbone.encode_sentences(texts)).abs().max() > 1e-3


WALKED = [name for name in FAMILIES if "taps" in offers_of_config(FAMILIES[name]).names]


@pytest.mark.parametrize("name", WALKED)
@torch.no_grad()
def test_taps_are_what_blocks_give(built, name):
    """Each tap is what a hook on the tower's own block sees in open_clip's own pass."""
    backbone = built(name)
    blocks, seen = backbone.image_tower.blocks, {}
    hooks = [
        block.register_forward_hook(lambda _module, _given, found, at=at: seen.__setitem__(at, found))
        for at, block in enumerate(blocks)
    ]
    images = torch.randn(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(4))
    feature = backbone.clip.encode_image(images, normalize=False)
    for hook in hooks:
        hook.remove()
    taps = backbone.image_tokens(images, range(len(blocks)))
    for at, tokens in enumerate(taps):
        torch.testing.assert_close(tokens, seen[at], rtol=1e-4, atol=1e-5 * float(seen[at].abs().max()))
    joint = backbone.joint_tokens(taps[-1])
    assert joint.shape == (1, 1 + backbone.n_patches, backbone.embed_dim)
    torch.testing.assert_close(joint[:, 0], feature, rtol=1e-4, atol=1e-5 * float(feature.abs().max()))
    assert backbone.patch_tokens(taps[0]).shape[1] == backbone.n_patches
    part = backbone.run_vision_blocks(taps[0], 1, len(blocks))
    torch.testing.assert_close(part, taps[-1], rtol=1e-4, atol=1e-5 * float(part.abs().max()))


@pytest.mark.parametrize("name", WALKED)
@torch.no_grad()
def test_slots_beside_and_on_the_output(built, name):
    """An adapter is computed by hand with the parts of the tower's own block: h + o + A(h) and h + o + B(o)."""
    backbone = built(name)
    width = backbone.vision_width
    torch.manual_seed(5)
    beside, out = nn.Linear(width, width), nn.Linear(width, width)
    images = torch.randn(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(4))
    entering = backbone.embed_images(images)
    plain = backbone.run_vision_blocks(entering, 0, 1)
    block = backbone.image_tower.blocks[0]
    found = {}
    places = (
        ("ls_1", "ls_2") if hasattr(block, "ls_1") else ("ls1", "ls2") if hasattr(block, "ls1") else ("attn", "mlp")
    )
    hooks = [
        getattr(block, place).register_forward_hook(lambda _m, _g, o, part=part: found.__setitem__(part, o))
        for part, place in zip(("attn", "mlp"), places, strict=True)
    ]
    backbone.run_vision_blocks(entering, 0, 1)
    for hook in hooks:
        hook.remove()
    if getattr(block, "gamma_1", None) is not None:
        found["mlp"] = block.gamma_2 * found["mlp"]
    attended = plain - found["mlp"]
    assert backbone.slot_names("vision", "out")[1] == "vision.0.mlp.out"
    both = backbone.run_vision_blocks(entering, 0, 1, {"vision.0.mlp": beside, "vision.0.mlp.out": out})
    expected = plain + beside(attended) + out(found["mlp"])
    torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    first = backbone.run_vision_blocks(entering, 0, 1, {"vision.0.attn.out": lambda given: torch.zeros_like(given)})
    torch.testing.assert_close(first, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def world() -> SimpleNamespace:
    vocabulary = Vocabulary(("red", "old"), ("car", "dog"))
    pairs = torch.tensor([[0, 0], [0, 1], [1, 1]]).numpy()
    return SimpleNamespace(vocabulary=vocabulary, candidates=Candidates(vocabulary, pairs, pairs[:, 0] == 0))


@pytest.mark.parametrize("name", ["mean, last", "timm map", "resnet", "captions"])
def test_methods_that_fit_train_and_score(built, name):
    """Every method whose needs are offered takes a step; the others are refused before they build anything."""
    from errors import UserError
    from methods.base import Batch

    backbone, toy = built(name), world()
    labels = torch.tensor([0, 1])
    size = backbone.image_size
    batch = Batch(labels, labels, torch.tensor([0, 2]), images=torch.randn(2, 3, size, size))
    ran = []
    for method_name in METHODS.names():
        kind = METHODS.get(method_name)
        if set(kind.info.needs) - backbone.offers:
            with pytest.raises(UserError, match=f"'{method_name}' cannot run on"):
                kind(backbone, toy.vocabulary, kind.Config())
            continue
        settings = {"heads": 8} if method_name == "vp_cmjl" else {}  # 16 do not divide these 24 channels
        method = kind(backbone, toy.vocabulary, kind.Config(**settings))
        loss = method.training_loss(batch, toy.candidates).total
        assert torch.isfinite(loss)
        if method.info.trains:
            loss.backward()
            assert any(parameter.grad is not None for parameter in method.trained().values())
        method.eval()
        with torch.no_grad():
            scores = method.score(method.encode(batch), method.prepare(toy.candidates), slice(None))
        assert scores.shape == (2, 3) and bool(torch.isfinite(scores).all())
        ran.append(method_name)
    assert {"clip_zero_shot", "coop", "csp"} <= set(ran)
    assert ("troika" in ran) == ("patch_tokens" in backbone.offers) and "dfsp" not in ran
