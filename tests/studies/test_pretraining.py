"""Pretraining of the committed models: what it may show, the same numbers after an interruption, the weights."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks.studies.tiny_clip import pretrain
from benchmarks.studies.tiny_clip import pretrain_data as data
from datasets import icon_states
from datasets.base import Split
from datasets.icons.paint import STATES
from datasets.icons.words import is_plausible, objects
from methods.backbone import Backbone, load_backbone
from methods.backbone.loading import identity
from methods.backbone.text_tower import text_part
from methods.backbone.tokens import tokenizer_of
from methods.offers import committed_config, offers_of

MODELS = {
    "tiny-icons": (16e6, "1300", (128, 64, 6)),
    "tiny-icons-siglip": (2e6, "1800", (96, 64, 6)),
}
"""Of each committed model the bytes it may take, the steps it was trained, and its joint width, pixels and blocks."""


def weights_of(model: str) -> Path:
    return pretrain.FOLDER / f"{model}.safetensors"


@pytest.fixture(scope="module")
def shown() -> set[tuple[str, str]]:
    return {(data.STATE_WORDS[i], data.OBJECT_WORDS[j]) for i, j in data.shown_pairs(seed=0)}


def test_no_unseen_pair_of_the_benchmark_is_ever_shown(shown):
    plan = icon_states.plan_pairs()
    assert not shown & plan.unseen
    assert len(plan.unseen) == 150
    assert set(plan.train) <= shown


def test_other_pairs_are_missing_too(shown):
    plan = icon_states.plan_pairs()
    every = {(state, obj) for state in STATES for obj in objects()}
    never = every - set(plan.train) - plan.unseen
    assert not any(pair in shown for pair in every if not is_plausible(*pair))
    plausible = {pair for pair in never if is_plausible(*pair)}
    assert 0.2 < len(plausible - shown) / len(plausible) < 0.45


def test_there_are_more_words_than_the_benchmark_has(shown):
    assert {state for state, _ in shown} > set(STATES)
    assert {obj for _, obj in shown} > set(objects())


def test_no_image_of_the_benchmark_is_shown(tmp_path):
    """Streams are named apart; as a check on one pair, none of its pretraining images is one of the benchmark's."""
    drawings = [d for d in icon_states.plan_images(icon_states.plan_pairs()) if d.phase != "train"][:40]
    benchmark = {icon_states.draw(drawing).tobytes() for drawing in drawings}
    index = [(data.STATE_WORDS.index(d.state), data.OBJECT_WORDS.index(d.obj)) for d in drawings]
    for stage in range(len(data.STAGES)):
        images = data._render_rows(0, 0, stage, 0, np.array(index))
        assert not benchmark & {image.tobytes() for image in images}


@pytest.mark.parametrize("model", MODELS)
def test_captions_use_no_word_that_training_would_miss(model):
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.integers(len(data.STATE_WORDS), size=300), rng.integers(len(data.OBJECT_WORDS), size=300)], 1)
    tokenizer = tokenizer_of(committed_config(model), model)
    known = set(tokenizer(data.every_caption()).unique().tolist())
    for speaker in (data.even_speaker(), data.uneven_speaker(0)):
        states, things = data.class_captions(rng, speaker)
        texts = data.captions(rng, pairs, speaker)
        assert set(tokenizer(texts + states + things).unique().tolist()) <= known
        assert not any(tokenizer([text])[0, -1] for text in texts), "no caption is cut off"


def test_an_interrupted_pretraining_ends_bit_identical(tmp_path, monkeypatch):
    def run(name: str) -> None:
        arguments = [
            "--steps",
            "8",
            "--batch",
            "4",
            "--pool",
            "12",
            "--held",
            "4",
            "--checkpoint-every",
            "2",
            "--text-steps",
            "2",
        ]
        monkeypatch.setattr(
            sys, "argv", ["pretrain", *arguments, "--work", str(tmp_path / name), "--out", str(tmp_path / f"{name}.st")]
        )
        pretrain.main()

    run("whole")
    save, calls = torch.save, []

    def stop_after_the_third(state, path):
        save(state, path)
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop_after_the_third)
    with pytest.raises(KeyboardInterrupt):
        run("broken")
    monkeypatch.setattr(torch, "save", save)
    run("broken")
    whole, broken = load_file(tmp_path / "whole.st"), load_file(tmp_path / "broken.st")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken/log.jsonl").read_text().splitlines()]
    assert steps[-1] == 8


@pytest.mark.parametrize(("name", "part"), [("tiny-icons", ""), ("tiny-icons-siglip", "text.")])
def test_only_token_rows_in_use_are_trained(name, part):
    model, text, _ = pretrain.build(0, name)
    trained = load_file(weights_of(name))[f"{part}token_embedding.weight"]
    fresh = text_part(model).token_embedding.weight.detach().half()
    unused = torch.ones(len(fresh), dtype=torch.bool)
    unused[text.used] = False
    assert torch.equal(trained[unused], fresh[unused])
    assert not torch.equal(trained[~unused], fresh[~unused])


@pytest.mark.parametrize("model", MODELS)
def test_the_committed_weights(model):
    most, steps, sizes = MODELS[model]
    assert weights_of(model).stat().st_size <= most
    with safe_open(weights_of(model), "pt") as file:
        meta = file.metadata()
    assert (meta["seed"], meta["steps"]) == ("0", steps)
    backbone = load_backbone(model)
    assert (backbone.embed_dim, backbone.image_size, backbone.n_vision_blocks) == sizes
    assert backbone.offers == offers_of(model).names
    assert (model, backbone.digest) == identity(model)


def test_the_text_that_is_trained_is_the_text_that_is_used():
    """Features of captions by the tower of pretraining, and by open_clip's own and the suite's reading of it."""
    model, text, _ = pretrain.build(3, "tiny-icons-siglip")
    text.write_rows()
    captions = ["a photo of a rusty bicycle", "golden"]
    ours = Backbone.from_open_clip(model, text.tokenizer, "x").encode_sentences(captions)
    theirs = model.encode_text(text.tokenizer(captions))
    assert torch.allclose(text(captions), theirs, atol=1e-5) and torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_zero_shot_is_at_least_ten_times_chance_on_unseen_pairs(model):
    """Of images of test unseen pairs, against all test candidates and against the unseen ones alone."""
    from benchmarks.evaluation.scoring import score_images
    from benchmarks.training.batches import PhaseBatches
    from benchmarks.training.execution import Execution
    from methods.base import MethodConfig
    from methods.clip_zero_shot import CLIPZeroShot

    dataset = icon_states.load()
    candidates = dataset.candidates("test")
    whole = dataset.splits["test"]
    rows = np.flatnonzero(~dataset.seen[whole.states, whole.objects])
    images = tuple(np.array(whole.images)[rows].tolist())
    test = Split("test", images, whole.states[rows], whole.objects[rows], {})
    dataset = replace(dataset, splits={**dataset.splits, "test": test})
    method = CLIPZeroShot(load_backbone(model), dataset.vocabulary, MethodConfig())
    batches = PhaseBatches(method, dataset, "test", candidates, Execution(torch.device("cpu")))
    scores = score_images(method, batches.ordered(), candidates)
    assert len(scores) == len(rows) > 500 and not scores.is_seen.any()
    own = scores.correct.mean()
    anywhere = (scores.correct * (scores.margins < 0)).mean()
    assert own >= 10 / (~candidates.seen).sum()
    assert anywhere >= 10 / len(candidates)
