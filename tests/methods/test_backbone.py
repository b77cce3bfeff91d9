"""The backbone against open_clip's own encoders and against blocks written by hand."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn

from datasets.base import Vocabulary, clean_label
from datasets.published import shipped_lists
from errors import UserError

SENTENCES = ["a photo of wet dog", "red", "a photo of faux leather boots mid-calf", "an old, rusty bridge at night"]


def with_positions(backbone, embeddings: torch.Tensor) -> torch.Tensor:
    """What enters text block 0."""
    return embeddings + backbone.clip.positional_embedding[: embeddings.shape[1]]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def adapters(backbone) -> dict[str, nn.Module]:
    """A random linear map in every slot of both towers."""
    torch.manual_seed(0)
    widths = {"vision": backbone.vision_width, "text": backbone.text_width}
    return {name: nn.Linear(widths[name.split(".")[0]], widths[name.split(".")[0]]) for name in backbone.slot_names()}


def test_it_asks_the_model(backbone):
    assert (backbone.text_width, backbone.vision_width, backbone.embed_dim) == (48, 32, 24)
    assert (backbone.n_vision_blocks, len(backbone.clip.transformer.resblocks)) == (4, 3)
    assert (backbone.n_patches, backbone.image_size, backbone.context_length) == (16, 32, 77)
    assert backbone.image_mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert backbone.image_std == pytest.approx(open_clip.OPENAI_DATASET_STD)
    assert backbone.logit_scale.item() == pytest.approx(1 / 0.07)
    assert backbone.slot_names("text")[:3] == ("text.0.attn", "text.0.mlp", "text.1.attn")
    assert len(backbone.slot_names()) == 2 * (4 + 3)


def test_it_is_frozen_and_stays_in_evaluation_mode(backbone):
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.train().training
    assert not any(module.training for module in backbone.clip.modules())


# Images --------------------------------------------------------------------------------------------------------------


def test_image_embedding_is_open_clips(backbone, images):
    expected = backbone.clip.encode_image(images)
    torch.testing.assert_close(backbone.image_embedding(images), expected, atol=1e-6, rtol=1e-5)
    (last,) = backbone.image_tokens(images)
    torch.testing.assert_close(backbone.project_tokens(last)[:, 0], expected, atol=1e-6, rtol=1e-5)


def test_taps_are_open_clips_intermediates(backbone, images):
    reference = backbone.clip.visual.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
    for taps in [(0, 1, 2, 3), (3, 1), (-1, 0, -1), (2,)]:
        for tap, tokens in zip(taps, backbone.image_tokens(images, taps), strict=True):
            expected = torch.cat(
                [reference["image_intermediates_prefix"][tap], reference["image_intermediates"][tap]], dim=1
            )
            assert tokens.shape == (3, 1 + backbone.n_patches, backbone.vision_width)
            torch.testing.assert_close(tokens, expected, atol=1e-6, rtol=1e-5)


def test_blocks_after_the_last_tap_are_not_run(backbone, images, monkeypatch):
    monkeypatch.setattr(backbone.clip.visual.transformer.resblocks[2].ln_1, "forward", None)
    backbone.image_tokens(images, (1, 0))
    with pytest.raises(TypeError):
        backbone.image_tokens(images, (2,))


def test_vision_runs_compose(backbone, images, adapters):
    start = backbone.embed_images(images)
    for slots in (None, adapters):
        whole = backbone.run_vision_blocks(start, adapters=slots)
        halves = backbone.run_vision_blocks(backbone.run_vision_blocks(start, 0, 2, slots), 2, 4, slots)
        assert torch.equal(whole, halves)
    assert torch.equal(backbone.run_vision_blocks(start, 2, 2), start)


def test_vision_blocks_take_any_number_of_tokens(backbone, images):
    start = backbone.embed_images(images)
    twice = torch.cat([start, start], dim=1)  # every token doubled: attention averages over equal pairs
    torch.testing.assert_close(
        backbone.run_vision_blocks(twice)[:, : start.shape[1]],
        backbone.run_vision_blocks(start),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda backbone, images: backbone.image_tokens(images, (4,)),
        lambda backbone, images: backbone.image_tokens(images, ()),
        lambda backbone, images: backbone.image_tokens(images[..., :24, :24]),
        lambda backbone, images: backbone.run_vision_blocks(images.new_zeros(1, 2, 32), 3, 5),
        lambda backbone, images: backbone.image_tokens(images, adapters={"vision.4.attn": nn.Identity()}),
        lambda backbone, images: backbone.image_tokens(images, adapters={"vision.0.attention": nn.Identity()}),
        lambda backbone, images: backbone.tokenize(["red"], 78),
    ],
)
def test_wrong_calls_raise_at_once(backbone, images, call):
    with pytest.raises(ValueError):
        call(backbone, images)


# Adapters ------------------------------------------------------------------------------------------------------------


def test_zero_adapters_change_nothing(backbone, images, adapters):
    zero = {name: nn.Linear(module.in_features, module.in_features) for name, module in adapters.items()}
    for module in zero.values():
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    ids = backbone.tokenize(SENTENCES)
    embeddings, ends = backbone.token_embedding(ids), ids.argmax(dim=1)
    torch.testing.assert_close(
        backbone.image_embedding(images, zero), backbone.image_embedding(images), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        backbone.encode_text(embeddings, ends, adapters=zero),
        backbone.encode_text(embeddings, ends),
        atol=1e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize("only", ["attn", "mlp", ""])
def test_adapted_blocks_equal_blocks_written_by_hand(backbone, images, adapters, only):
    used = {name: module for name, module in adapters.items() if name.endswith(only)}
    nothing = torch.zeros_like

    def by_hand(tower, blocks, h, mask):
        for index, block in enumerate(blocks):
            attention, mlp = used.get(f"{tower}.{index}.attn", nothing), used.get(f"{tower}.{index}.mlp", nothing)
            normed = block.ln_1(h)
            h = h + block.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0] + attention(h)
            h = h + block.mlp(block.ln_2(h)) + mlp(h)
        return h

    start = backbone.embed_images(images)
    expected = by_hand("vision", backbone.clip.visual.transformer.resblocks, start, None)
    torch.testing.assert_close(backbone.run_vision_blocks(start, adapters=used), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(expected, backbone.run_vision_blocks(start), atol=1e-2)

    text = with_positions(backbone, backbone.token_embedding(backbone.tokenize(SENTENCES)))
    causal = torch.full((text.shape[1],) * 2, float("-inf")).triu(1)
    expected = by_hand("text", backbone.clip.transformer.resblocks, text, causal)
    torch.testing.assert_close(backbone.run_text_blocks(text, adapters=used), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(expected, backbone.run_text_blocks(text), atol=1e-2)


def test_adapters_get_gradients_and_clip_gets_none(backbone, images, adapters):
    backbone.image_embedding(images, adapters).square().sum().backward()
    for name, module in adapters.items():
        assert (module.weight.grad is not None) == name.startswith("vision"), name
    assert all(parameter.grad is None for parameter in backbone.parameters())


# Text ----------------------------------------------------------------------------------------------------------------


def test_tokenize_equals_open_clips(backbone, tokenizer):
    assert backbone.tokenize(SENTENCES, 77).equal(tokenizer(SENTENCES, context_length=77))
    shortest = backbone.tokenize(SENTENCES)
    assert shortest.dtype == torch.int64
    assert shortest.equal(tokenizer(SENTENCES)[:, : shortest.shape[1]])
    assert shortest[:, -1].any(), "the longest sentence ends in the last column"


def test_tokenize_never_cuts(backbone):
    assert backbone.tokenize(["a photo of wet dog"], 7).shape == (1, 7)
    with pytest.raises(UserError, match=r"'a photo of wet dog' has 7 tokens.* The context length is 6\. "):
        backbone.tokenize(["red", "a photo of wet dog"], 6)
    with pytest.raises(UserError, match="The context length is 77"):
        backbone.tokenize(["word " * 80])


@pytest.mark.parametrize("name", ["mit_states", "ut_zappos", "cgqa"])
def test_words_tokenised_once_give_the_ids_of_every_sentence(backbone, name):
    pairs = [pair for pairs in shipped_lists(name).values() for pair in pairs]
    vocabulary = Vocabulary.from_pairs(pairs)
    parts = ["a photo of", *map(clean_label, vocabulary.states), *map(clean_label, vocabulary.objects)]
    rows = torch.from_numpy(vocabulary.indices(pairs)) + torch.tensor([1, 1 + len(vocabulary.states)])
    rows = torch.cat([torch.zeros_like(rows[:, :1]), rows], dim=1)
    sentences = [f"a photo of {clean_label(state)} {clean_label(obj)}" for state, obj in pairs]
    assert torch.equal(backbone.tokenize_joined(parts, rows), backbone.tokenize(sentences))


def test_joined_words_that_do_not_fit_are_named(backbone):
    with pytest.raises(UserError, match=r"The text 'red car car.*The context length is 77"):
        backbone.tokenize_joined(["red", "car " * 80], torch.tensor([[0, 0], [0, 1]]))


def test_encode_text_equals_open_clips(backbone, tokenizer):
    expected = backbone.clip.encode_text(tokenizer(SENTENCES))
    ids = tokenizer(SENTENCES)
    features = backbone.encode_text(backbone.token_embedding(ids), ids.argmax(dim=1))
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(backbone.encode_sentences(SENTENCES), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("length", [7, 8, 16, 77])
@pytest.mark.parametrize("each", [False, True], ids=["one end for all", "an end each"])
def test_features_do_not_depend_on_the_context_length(backbone, tokenizer, length, each):
    text = ["a photo of x x"] * 3
    expected = backbone.clip.encode_text(tokenizer(text))
    embeddings = backbone.token_embedding(backbone.tokenize(text, length))
    features = backbone.encode_text(embeddings, torch.full((3,), 6) if each else 6)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)


def test_all_tokens_are_those_before_the_final_norm(backbone):
    ids = backbone.tokenize(SENTENCES)
    embeddings, ends = backbone.token_embedding(ids), ids.argmax(dim=1)
    features, tokens = backbone.encode_text(embeddings, ends, all_tokens=True, chunk=3)
    assert tokens.shape == embeddings.shape
    assert torch.equal(features, backbone.encode_text(embeddings, ends, chunk=3))
    torch.testing.assert_close(tokens, backbone.run_text_blocks(with_positions(backbone, embeddings)))
    torch.testing.assert_close(backbone.project_text(tokens[range(len(ids)), ends]), features)


def test_text_runs_compose(backbone):
    start = with_positions(backbone, backbone.token_embedding(backbone.tokenize(SENTENCES)))
    halves = backbone.run_text_blocks(backbone.run_text_blocks(start, 0, 1), 1)
    assert torch.equal(backbone.run_text_blocks(start), halves)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_passes_and_recomputing_change_nothing(backbone, chunk, checkpoint):
    ids = backbone.tokenize(SENTENCES)
    ends = ids.argmax(dim=1)
    plain, cut = (backbone.token_embedding(ids).requires_grad_() for _ in range(2))
    expected = backbone.encode_text(plain, ends)
    features = backbone.encode_text(cut, ends, chunk=chunk, checkpoint=checkpoint)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    expected.square().sum().backward()
    features.square().sum().backward()
    torch.testing.assert_close(cut.grad, plain.grad, atol=1e-5, rtol=1e-4)


def test_mean_token_embedding(backbone):
    table = backbone.clip.token_embedding.weight
    means = backbone.mean_token_embedding(["Photo", "Faux.Leather", "Boots.Knee.High"])
    expected = [table[ids].mean(dim=0) for ids in ([1125], [19429, 5862], [7319, 9897, 1400])]
    torch.testing.assert_close(means, torch.stack(expected))
    assert not means.requires_grad
    with pytest.raises(UserError, match="has no text"):
        backbone.mean_token_embedding(["..."])


def test_images_in_passes_give_the_tokens_of_one_batch(backbone, monkeypatch):
    images = torch.randn(7, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        whole = backbone.image_tokens(images, taps=(0, -1))
        monkeypatch.setattr("methods.backbone.vision.IMAGES_ON_A_CPU", 3)
        for one, other in zip(whole, backbone.image_tokens(images, taps=(0, -1)), strict=True):
            assert other.shape == one.shape and torch.allclose(other, one, rtol=0, atol=2e-6)
