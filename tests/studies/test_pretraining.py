"""Pretraining of the tiny CLIP: what it may show, the same numbers after an interruption, and the committed weights."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

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
from methods.backbone import load_backbone

WEIGHTS = pretrain.CONFIG.with_suffix(".safetensors")


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


def test_captions_use_no_word_that_training_would_miss():
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.integers(len(data.STATE_WORDS), size=300), rng.integers(len(data.OBJECT_WORDS), size=300)], 1)
    import open_clip

    tokenizer = open_clip.SimpleTokenizer(context_length=16)
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


def test_only_token_rows_in_use_are_trained(tmp_path):
    model, text, _ = pretrain.build(0)
    trained = load_file(WEIGHTS)["token_embedding.weight"]
    fresh = model.token_embedding.weight.detach().half()
    unused = torch.ones(len(fresh), dtype=torch.bool)
    unused[text.used] = False
    assert torch.equal(trained[unused], fresh[unused])
    assert not torch.equal(trained[~unused], fresh[~unused])


def test_the_committed_weights():
    assert WEIGHTS.stat().st_size <= 16e6
    with safe_open(WEIGHTS, "pt") as file:
        meta = file.metadata()
    assert meta["seed"] == "0"
    backbone = load_backbone("tiny-icons")
    assert (backbone.embed_dim, backbone.image_size, backbone.n_vision_blocks) == (128, 64, 6)


def test_zero_shot_is_at_least_ten_times_chance_on_unseen_pairs():
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
    method = CLIPZeroShot(load_backbone("tiny-icons"), dataset.vocabulary, MethodConfig())
    batches = PhaseBatches(method, dataset, "test", candidates, Execution(torch.device("cpu")))
    scores = score_images(method, batches.ordered(), candidates)
    assert len(scores) == len(rows) > 500 and not scores.is_seen.any()
    own = scores.correct.mean()
    anywhere = (scores.correct * (scores.margins < 0)).mean()
    assert own >= 10 / (~candidates.seen).sum()
    assert anywhere >= 10 / len(candidates)
