"""Figures with images: which ones are drawn, what is shown of them, and that weights give what the record says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.report import attention_maps, figure_plans, gallery, pictures
from benchmarks.report.finished import load_method
from benchmarks.report.groups import groups
from benchmarks.report.images import Library
from benchmarks.report.rescoring import load
from benchmarks.report.scored_runs import read_scored
from benchmarks.runs.checkpoints import BEST
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.records import RunFolder
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.training.execution import Execution
from benchmarks.training.loop import Trainer
from datasets.streams import derived_seed
from errors import UserError
from registry import BACKBONES, METHODS


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    """CLIP zero-shot and, after one epoch, MSCI on the toy data, with the shipped backbone."""
    root = tmp_path_factory.mktemp("results")
    return [trained(name, toy, root / name, epochs) for name, epochs in (("clip_zero_shot", 0), ("msci", 1))]


def trained(name, toy, path, epochs):
    method_class = METHODS.get(name)
    backbone = BACKBONES.get("tiny-icons")()
    spec = RunSpec(
        method=name,
        method_config=method_class.Config().model_dump(mode="json"),
        training=TrainingConfig(epochs=epochs, batch_size=16, lr=1e-3, augmentation="none"),
        dataset="toy",
        dataset_digest="toy",
        backbone="tiny-icons",
        backbone_digest=backbone.digest,
        seed=3,
    )
    folder = RunFolder(path)
    folder.start(spec, provenance={}, command_line=[], environment={"device": "cpu"})
    torch.manual_seed(derived_seed("init", spec.seed))
    method = method_class(backbone, toy.vocabulary, method_class.Config())
    folder.finish(Trainer(spec, folder, method, toy, Execution(torch.device("cpu"))).run())
    return folder.read()


@pytest.fixture
def library(toy):
    return Library({"toy": toy})


def test_loaded_weights_rank_first_what_the_record_predicts(runs, toy):
    for run in runs:
        scored, loaded = read_scored(run), load(run, toy)
        rows = range(0, len(scored.scores), 3)
        for bias in (-1.0, scored.bias, 1.0):
            best = loaded.top(rows, bias, 4)
            assert np.array_equal(best[:, 0], scored.predictions(bias)[list(rows)])
            assert all(len(set(line)) == 4 for line in best.tolist())


def test_top_is_the_order_of_biased_scores(runs, toy):
    loaded, candidates = load(runs[1], toy), toy.candidates("test")
    with torch.inference_mode():
        batch = loaded.method.encode(loaded.batch([0, 5]))
        scores = loaded.method.score(batch, loaded.method.prepare(candidates), slice(None)).double().numpy()
    for line, best in zip(scores, loaded.top([0, 5], 0.5, 3), strict=True):
        biased = [score + (0 if seen else 0.5) for score, seen in zip(line, candidates.seen, strict=True)]
        assert best.tolist() == sorted(range(len(biased)), key=lambda column: (-biased[column], column))[:3]


def test_what_cannot_be_loaded_says_why(runs, toy, tmp_path):
    run = runs[1]
    with pytest.raises(UserError, match="partial, not done"):
        load_method(dataclasses.replace(run, result=None, status="partial"), toy.vocabulary)
    with pytest.raises(UserError, match="no best"):
        load_method(dataclasses.replace(run, path=tmp_path), toy.vocabulary)
    (tmp_path / BEST).write_bytes(b"not weights")
    with pytest.raises(UserError, match="Restore the file"):
        load_method(dataclasses.replace(run, path=tmp_path), toy.vocabulary)
    other = run.spec.model_copy(update={"backbone_digest": "0" * 64})
    with pytest.raises(UserError, match="has the digest"):
        load_method(dataclasses.replace(run, spec=other), toy.vocabulary)
    world = run.spec.model_copy(update={"open_world": OpenWorld(feasibility="clip")})
    with pytest.raises(UserError, match="feasibility threshold"):
        load(dataclasses.replace(run, spec=world), toy)


def test_images_are_drawn_by_kind_from_named_streams():
    rng = np.random.default_rng(0)
    one, other = rng.random(200) < 0.5, rng.random(200) < 0.5
    chosen = gallery.choose(one, other, "toy", "a", "b")
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    for rows, kind in zip(chosen, kinds, strict=True):
        assert len(set(rows)) == 3 and all((one[row], other[row]) == kind for row in rows)
    assert gallery.choose(one, other, "toy", "a", "b") == chosen != gallery.choose(one, other, "toy", "a", "c")
    changed = other.copy()
    changed[np.flatnonzero(~one & other)] = False  # moves images between the last two kinds alone
    assert gallery.choose(one, changed, "toy", "a", "b")[:2] == chosen[:2]
    few = gallery.choose(np.ones(2, dtype=bool), np.ones(2, dtype=bool), "toy")
    assert few == [[0, 1], [], [], []]


def test_right_is_what_the_metrics_say(runs):
    for run in runs:
        scored = read_scored(run)
        accuracy = run.result.metrics.test.at_bias.pair
        assert gallery.predicted_right(scored).mean() == pytest.approx(accuracy)


def test_gallery_and_attention_of_a_group(runs, library, tmp_path):
    (group,) = groups(runs)
    drawn = pictures.draw(group, tmp_path / "figures", library)
    captions = {picture.title: picture.caption for picture in drawn.pictures}
    assert drawn.absent == [] and drawn.problems == []
    assert "drawn at random from those that both get right" in captions["Successes and failures"]
    assert "from the record" not in captions["Successes and failures"]
    assert "whether right or wrong" in captions["Attention of MSCI"]
    scored = [(row.label, [read_scored(run) for run in row.done]) for row in group.full]
    again = pictures.Drawn()
    for plan in figure_plans.of_images(scored, library):
        pictures._write(plan, tmp_path / "again", again)
    assert again.files
    assert all(path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes() for path in again.files)


def test_without_weights_the_grid_shows_what_the_record_keeps(runs, library, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("spec.json", "result.json", "scores.npz"):
        (bare / name).write_bytes((runs[1].path / name).read_bytes())
    (group,) = groups([runs[0], RunFolder(bare).read()])
    scored = [(row.label, [read_scored(run) for run in row.done]) for row in group.full]
    _, said = gallery.gallery(scored, library)
    assert "MSCI: only the predicted pair, from the record. Its folder has no best.safetensors" in said
    with pytest.raises(UserError, match="no best"):
        attention_maps.attention(next(own[0] for label, own in scored if label == "MSCI"), library)


def test_missing_images_leave_a_reason(runs, toy, tmp_path):
    library = Library({"toy": dataclasses.replace(toy, root=tmp_path / "nowhere")})
    (group,) = groups(runs)
    scored = [(row.label, [read_scored(run) for run in row.done]) for row in group.full]
    with pytest.raises(UserError, match="cannot be read"):
        gallery.gallery(scored, library)
    other = Library({"toy": dataclasses.replace(toy, digest="another")})
    with pytest.raises(UserError, match="has the digest another"):
        gallery.gallery(scored, other)


def test_maps_are_shares_of_the_layer(runs, toy):
    scored = read_scored(runs[1])
    found = attention_maps.maps(load(runs[1], toy), attention_maps.choose(scored), scored.bias)
    for stage in ("local", "global"):
        patches, tokens = found.patches[stage], found.patches[stage][0].size + 1
        total = patches.sum(axis=(1, 2)) + found.class_token[stage]
        assert total == pytest.approx(np.full(len(patches), tokens), rel=1e-5), "shares of 1, times the tokens"
    shown = attention_maps.choose(scored)
    assert len({(scored.labels.states[row], scored.labels.objects[row]) for row in shown}) == 4, "of different pairs"
