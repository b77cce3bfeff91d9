"""CAILA apart from its golden numbers: what is trained, second images, switches, sentences."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from branch_cases import full_size_backbone
from small_world import VOCABULARY, every_pair, scores, some_images

from benchmarks.runs.resolution import resolve
from benchmarks.training.steps import rows
from datasets.base import Vocabulary
from errors import UserError
from methods.base import SecondImages
from methods.caila import CAILA
from methods.parts.caila_settings import WORDS, CAILAConfig
from methods.parts.sentences import Sentences


def build(backbone, vocabulary=VOCABULARY, **settings) -> CAILA:
    torch.manual_seed(0)
    given = {"up_init": "uniform", "image_dropout": 0.0, **settings}
    return CAILA(copy.deepcopy(backbone), vocabulary, CAILA.Config(**given)).train()


def shifted(batch, images, state: int | None = 1, thing: int | None = 4):
    """The batch with second images: sample 1 shows another state, sample 4 another object."""
    second = {}
    if state is not None:
        second["state"] = SecondImages(
            *map(torch.tensor, ([state],)), images[:1], torch.tensor([2]), torch.tensor([10])
        )
    if thing is not None:
        second["object"] = SecondImages(torch.tensor([thing]), images[1:2], torch.tensor([0]), torch.tensor([4]))
    return dataclasses.replace(batch, second=second)


def gradients(method, batch):
    method.zero_grad()
    losses = method.training_loss(batch, every_pair())
    losses.total.backward()
    return losses, {name: parameter.grad for name, parameter in method.trained().items()}


def test_what_is_trained_and_what_is_not(backbone):
    trained = set(build(backbone).trained())
    clip = {name.removeprefix("backbone.clip.") for name in trained if name.startswith("backbone.clip.")}
    norms = {name for name, _ in backbone.clip.named_parameters() if ".ln_" in f".{name}"}
    assert clip == norms | {"visual.proj", "text_projection", "logit_scale", "token_embedding.weight"}
    assert "backbone.clip.token_embedding.weight" not in build(backbone, learn_tokens=False).trained()
    with pytest.raises(UserError, match="at most 4"):
        build(backbone, mixture_layers=5)


@pytest.mark.parametrize(
    ("name", "tensors", "numbers"), [("ViT-L-14-quickgelu", 924, 123_833_347), ("ViT-B-32-quickgelu", 636, 53_253_379)]
)
def test_trained_tensors_at_full_size(name, tensors, numbers):
    backbone = copy.deepcopy(full_size_backbone(name))  # others use it frozen
    with torch.device("meta"):
        trained = CAILA(backbone, VOCABULARY, CAILA.Config()).trained()
    assert (len(trained), sum(parameter.numel() for parameter in trained.values())) == (tensors, numbers)


def test_second_images_take_the_place_of_one_stream_and_of_its_labels(backbone):
    """The same as computing both streams of their own images, with the labels written by hand."""
    method, batch, other = build(backbone), some_images(6), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = method.training_loss(shifted(batch, other), every_pair())
        states, objects = batch.images.clone(), batch.images.clone()
        states[1], objects[4] = other[0], other[1]
        tokens = {"state": method.stream(states, "state"), "object": method.stream(objects, "object")}
        image = {name: method.primitive_feature(value, name) for name, value in tokens.items()}
        image["pair"] = method.mixed_feature(tokens["state"], tokens["object"])
        text = method.text_features(every_pair())
        labels = {"state": batch.states.clone(), "object": batch.objects.clone(), "pair": batch.pairs.clone()}
        labels["state"][1], labels["pair"][1] = 2, 10
        labels["object"][4], labels["pair"][4] = 0, 4
        of = {**text, "pair": method.pair_text(text, every_pair())}
        for name, label in labels.items():
            scale = method.scales[name].exp() if name in method.scales else method.backbone.logit_scale
            cosines = torch.nn.functional.cosine_similarity(image[name][:, None], of[name][None], dim=-1)
            expected = torch.nn.functional.cross_entropy(scale * cosines, label)
            torch.testing.assert_close(found.terms[name], expected, atol=1e-4, rtol=1e-4)


def test_no_gradient_reaches_a_stream_that_was_replaced(backbone):
    method, batch = build(backbone, loss_weights=(0.0, 1.0, 0.0)), some_images(6)
    batch.images.requires_grad_()
    method.training_loss(shifted(batch, torch.randn(2, 3, 32, 32), thing=None), every_pair()).total.backward()
    reached = batch.images.grad.flatten(1).abs().amax(dim=1) > 0
    assert reached.tolist() == [True, False, True, True, True, True]


def test_micro_batches_add_up_to_the_batch(backbone):
    method, batch = build(backbone), shifted(some_images(6), torch.randn(2, 3, 32, 32))
    _, whole = gradients(method, batch)
    parts = [rows(batch, 0, 2), rows(batch, 2, 6)]
    assert [sorted(part.second) for part in parts] == [["state"], ["object"]]
    assert parts[1].second["object"].rows.tolist() == [2]
    added = dict.fromkeys(whole, 0.0)
    for part in parts:
        for name, gradient in gradients(method, part)[1].items():
            added[name] = added[name] + gradient * len(part) / 6
    for name, gradient in whole.items():
        assert (added[name] - gradient).abs().max() <= 3e-5 * gradient.abs().max() + 1e-7, name


MIXED = Vocabulary(("Faux.Leather", "red", "anthropomorphic"), ("Boots.Mid-Calf", "apple", "rhododendron", "dog"))


def test_sentences_of_any_length_are_those_of_the_tokenizer(backbone):
    """Against CLIP's ordinary features of whole sentences, with shared beginnings and with none, in chunks of two."""
    pairs = dataclasses.replace(every_pair(), vocabulary=MIXED)
    own, sentences = copy.deepcopy(backbone), Sentences(backbone, MIXED, WORDS)
    own.text_chunk = 2
    states, objects = ("fake leather", "red", "anthropomorphic"), ("midcalf boots", "apple", "rhododendron", "dog")
    expected = {
        "pair": [f"a photo of a {state} {thing}" for state in states for thing in objects],
        "state": [f"a photo of a {state} object" for state in states],
        "object": [f"a photo of a {thing}" for thing in objects],
    }
    assert len({len(own.tokenizer.encode(name)) for name in states + objects}) > 2
    for own.shared_prefix in (True, False):
        for branch, texts in expected.items():
            found = sentences.encode(own, branch, pairs, sentences.token_vectors(own))
            torch.testing.assert_close(found, backbone.encode_sentences(texts), atol=1e-5, rtol=1e-5)


def test_a_label_too_long_for_the_context_is_a_user_error(backbone):
    long = Vocabulary(("red",), (" ".join(["rhododendron"] * 40),))
    with pytest.raises(UserError, match="context length is 77"):
        Sentences(backbone, long, WORDS)


def test_recomputing_changes_nothing(backbone):
    batch = some_images(4)
    method = build(backbone)
    _, plain = gradients(method, batch)
    method.backbone.recompute = True
    _, again = gradients(method, batch)
    assert all(torch.equal(gradient, again[name]) for name, gradient in plain.items())


def test_switches_that_no_golden_number_holds(backbone):
    batch, pairs = some_images(3), every_pair()
    whole = scores(build(backbone).eval(), batch, pairs)
    for changes in (
        {"combination": "concat"}, {"combine_output": False}, {"combine_latent": False}, {"pair_text": "pair"},
    ):  # fmt: skip
        method = build(backbone, **changes)
        _, found = gradients(method, batch)
        assert all(gradient is not None and gradient.any() for gradient in found.values()), changes
        assert (scores(method.eval(), batch, pairs) - whole).abs().max() > 1e-4, changes
    table = "backbone.clip.token_embedding.weight"
    start = [backbone.tokenizer.sot_token_id]
    assert not gradients(build(backbone), batch)[1][table][start].any()
    assert gradients(build(backbone, template_gradient=True), batch)[1][table][start].any()


def test_scores_are_cosines_or_scaled_and_do_not_read_the_own_scales(backbone):
    method, batch = build(backbone).eval(), some_images(6)
    logits = scores(method, batch, every_pair())
    with torch.no_grad():
        method.scales["state"].add_(1.0)
    assert torch.equal(scores(method, batch, every_pair()), logits)
    method.config = method.config.model_copy(update={"score": "cosine"})
    cosines = scores(method, batch, every_pair())
    torch.testing.assert_close(cosines * method.backbone.logit_scale.detach(), logits)
    assert cosines.abs().max() <= 1


def test_dropout_stands_behind_the_norm_or_before_it(backbone):
    for behind in (True, False):
        method = build(backbone, image_dropout=0.5, dropout_after_norm=behind)
        seen = []
        method.logits = lambda image, text, scale, *, may_round, seen=seen: seen.append(image) or image @ text.T
        method.training_loss(some_images(6), every_pair())
        lengths = seen[0].norm(dim=1)
        assert (seen[0] == 0).float().mean() > 0.2
        assert torch.allclose(lengths, torch.ones(6), atol=1e-5) is not behind


def test_half_logits_round_under_autocast_alone(backbone):
    kinds = {}
    for half in (True, False):
        method = build(backbone, half_logits=half)
        image, text = (torch.nn.functional.normalize(torch.randn(3, 24), dim=-1) for _ in range(2))
        assert method.logits(image, text, method.backbone.logit_scale, may_round=half).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            kinds[half] = method.logits(image, text, method.backbone.logit_scale, may_round=half).dtype
    assert kinds == {True: torch.bfloat16, False: torch.float32}


def test_the_released_open_world_keeps_every_pair():
    found = {profile: resolve("caila", CAILAConfig, "mit_states", profile=profile, world="open").open_world.feasibility
             for profile in ("clean", "official")}  # fmt: skip
    assert found == {"clean": "auto", "official": "none"}


def test_half_logits_round_in_training_and_never_what_is_judged(backbone):
    def under_autocast(half):
        torch.manual_seed(0)
        method, batch, candidates = build(backbone, half_logits=half), some_images(6), every_pair()
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.eval().training_loss(batch, candidates).total
            with torch.no_grad():
                prepared = method.prepare(candidates)
                encoded = method.encode(batch)
                judged = method.score(encoded, prepared, slice(None)), method.validation_losses(encoded, prepared).total
        return loss, *judged

    rounded, plain = under_autocast(True), under_autocast(False)
    assert rounded[0] != plain[0]
    assert rounded[1].dtype == torch.float32 and torch.equal(rounded[1], plain[1]) and rounded[2] == plain[2]
