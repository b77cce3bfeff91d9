"""Training and evaluation on kept image features equal those on images; what a key holds; what the record says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from toy_runs import CPU, make_backbone, make_trainer, numbers

from benchmarks.training import frozen_features
from benchmarks.training.batches import PhaseBatches, Surroundings, Views
from benchmarks.training.frozen_features import FeatureStore, feature_key
from datasets.feature_cache.entries import entries
from methods.backbone.clip import Backbone
from methods.clip_zero_shot import CLIPZeroShot
from methods.coop import CoOp, CoOpConfig
from methods.csp import CSP, CSPConfig
from methods.dfsp import DFSP, DFSPConfig
from methods.refiner_style import RefinerStyle, RefinerStyleConfig
from methods.troika import Troika, TroikaConfig

OFF = FeatureStore(enabled=False)
FROZEN = {
    "csp": (CSP, CSPConfig(dropout=0.3)),
    "coop": (CoOp, CoOpConfig()),
    "dfsp": (DFSP, DFSPConfig()),
    "refiner": (RefinerStyle, RefinerStyleConfig(adapters="none")),
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for each test, so that what one left is not what another finds."""
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def trained(folder: Path, toy, backbone, store, **changes):
    """Run a trainer; return its result, its trained tensors and the trainer."""
    trainer = make_trainer(folder, toy, backbone, store=store, **{"epochs": 2, **changes})
    result = trainer.run()
    return result, {name: value.detach().clone() for name, value in trainer.method.trained().items()}, trainer


def count_images(monkeypatch, method) -> list[int]:
    images: list[int] = []
    compute = method.image_features
    monkeypatch.setattr(method, "image_features", lambda batch: images.append(len(batch)) or compute(batch))
    return images


@pytest.mark.parametrize("how", [{"augmentation": "none"}, {"views": 2, "epochs": 3}], ids=["plain", "views"])
@pytest.mark.parametrize("name", FROZEN)
def test_training_on_kept_features_equals_training_on_images(tmp_path, toy, backbone, name, how):
    """Up to rounding only: features are computed in evaluation batches as listed, not in shuffled micro-batches."""
    method, config = FROZEN[name]
    runs = {
        kept: trained(
            tmp_path / str(kept), toy, backbone, FeatureStore(enabled=kept), method=method, config=config, **how
        )
        for kept in (True, False)
    }
    start = make_trainer(tmp_path / "start", toy, backbone, method=method, config=config).method.trained()
    moved = max((value - start[key]).abs().max() for key, value in runs[True][1].items())
    assert moved > 1e-3, "training moved nothing"
    for key, value in runs[True][1].items():
        torch.testing.assert_close(value, runs[False][1][key], atol=1e-5, rtol=1e-4)
    for phase in ("val", "test"):
        kept, fresh = (getattr(runs[which][0].metrics, phase).auc for which in (True, False))
        assert kept == pytest.approx(fresh, abs=1e-6)
    assert runs[True][0].cost.feature_cache == ["train", "val", "test"]
    assert runs[False][0].cost.feature_cache == [] and runs[False][0].cost.feature_seconds == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FROZEN)
def test_evaluation_on_kept_features_is_the_same_bit_by_bit(tmp_path, toy, backbone, name, precision):
    method, config = FROZEN[name]
    execution = dataclasses.replace(CPU, precision=precision)
    scores = []
    for store in (FeatureStore(), FeatureStore(), OFF):  # computed, read, and not kept
        trainer = make_trainer(
            tmp_path / str(len(scores)), toy, backbone, method=method, config=config, store=store, execution=execution
        )
        scores.append(trainer.score("test")[0].to_arrays())
    for other in scores[1:]:
        for key, values in scores[0].items():
            assert (values == other[key]).all(), key


def test_as_many_views_as_epochs_is_training_without_a_limit(tmp_path, toy, backbone):
    """View k is the view of epoch k, so a limit that is never reached changes nothing, not even a bit."""
    last = {"selection": "last"}  # after one epoch all are alike, and validation might choose that one
    results = [trained(tmp_path / str(views), toy, backbone, OFF, views=views, **last) for views in (None, 2, 5, 1)]
    assert len({numbers(result).replace(result.run_id, "") for result, _, _ in results[:3]}) == 1
    assert not torch.equal(results[0][1]["table.weight"], results[3][1]["table.weight"])


def test_views_follow_the_epoch_for_methods_that_read_images_too(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, method=Troika, config=TroikaConfig(), views=2)
    images = []
    for epoch in range(3):
        batches = list(trainer.batches["train"].epoch(epoch, 16))
        assert batches[0].features is None
        order = torch.cat([batch.pairs * 1000 for batch in batches])
        images.append(torch.cat([batch.images for batch in batches])[order.argsort(stable=True)].sum(dim=(1, 2, 3)))
    first, second, third = (values.sort().values for values in images)
    assert torch.equal(first, third) and not torch.equal(first, second)


def test_features_are_computed_once_per_image_and_view(toy, backbone, monkeypatch):
    method = CSP(backbone, toy.vocabulary, CSPConfig())
    images = count_images(monkeypatch, method)
    views = Views("clip", views=2)
    for count in (96, 0):  # the second time from another store, as another process would
        batches = PhaseBatches(method, toy, "train", toy.candidates("train"), CPU, views, Surroundings(FeatureStore()))
        for epoch in range(5):
            assert sum(len(batch) for batch in batches.epoch(epoch, 10)) == 48
        assert sum(images) == count
        images.clear()
    assert sorted(entry.about["view"][1] for entry in entries()) == [0, 1]


def test_without_the_cache_every_epoch_encodes_every_image(toy, backbone, monkeypatch, home):
    method = CSP(backbone, toy.vocabulary, CSPConfig())
    images = count_images(monkeypatch, method)
    batches = PhaseBatches(method, toy, "train", toy.candidates("train"), CPU)
    for epoch in range(2):
        for batch in batches.epoch(epoch, 10):
            method.encode(batch)
    assert sum(images) == 96
    assert not home.exists()


def test_augmented_images_without_a_limit_are_not_kept(tmp_path, toy, backbone):
    result, _, trainer = trained(tmp_path / "run", toy, backbone, FeatureStore())
    assert result.cost.feature_cache == ["val", "test"]
    assert next(trainer.batches["train"].epoch(0, 8)).features is None


def test_features_are_shared_by_methods_that_see_images_alike(toy, backbone, monkeypatch):
    csp = CSP(backbone, toy.vocabulary, CSPConfig())
    next(PhaseBatches(csp, toy, "val", toy.candidates("val"), CPU, surroundings=Surroundings(FeatureStore())).ordered())
    clip = CLIPZeroShot(backbone, toy.vocabulary, CLIPZeroShot.Config())
    monkeypatch.setattr(toy.__class__, "load_image", lambda *_: pytest.fail("an image was read again"))
    next(
        PhaseBatches(clip, toy, "val", toy.candidates("val"), CPU, surroundings=Surroundings(FeatureStore())).ordered()
    )
    assert len(entries()) == 1


def test_the_key_changes_with_all_that_changes_features(toy, backbone, monkeypatch):
    csp, dfsp = CSP(backbone, toy.vocabulary, CSPConfig()), DFSP(backbone, toy.vocabulary, DFSPConfig())
    same = feature_key(csp, toy, "val", CPU)
    assert feature_key(CSP(backbone, toy.vocabulary, CSPConfig(dropout=0.1)), toy, "val", CPU).digest == same.digest
    others = [
        feature_key(csp, toy, "test", CPU),
        feature_key(dfsp, toy, "val", CPU),
        feature_key(csp, dataclasses.replace(toy, digest="other"), "val", CPU),
        feature_key(csp, toy, "val", dataclasses.replace(CPU, precision="bf16")),
        feature_key(csp, toy, "val", dataclasses.replace(CPU, eval_batch=8)),
        feature_key(csp, toy, "val", CPU, "clip", (0, 0)),
        feature_key(csp, toy, "val", CPU, "clip", (0, 1)),
        feature_key(csp, toy, "val", CPU, "clip", (1, 0)),
    ]
    for attribute, value in (("digest", "other weights"), ("name", "other")):
        with monkeypatch.context() as patch:
            patch.setattr(backbone, attribute, value)
            others.append(feature_key(csp, toy, "val", CPU))
    for resizing in ({"resize_mode": "squash"}, {"resize_mode": "longest"}, {"interpolation": "bilinear"}):
        with monkeypatch.context() as patch:
            patch.setattr(backbone.clip.visual, "preprocess_cfg", resizing, raising=False)
            others.append(feature_key(csp, toy, "val", CPU))
    with monkeypatch.context() as patch:
        patch.setattr(frozen_features, "package_version", lambda name: "another")
        frozen_features._made_with.cache_clear()
        others.append(feature_key(csp, toy, "val", CPU))
    frozen_features._made_with.cache_clear()
    digests = [key.digest for key in (same, *others)]
    assert len(set(digests)) == len(digests)
    assert len({key.name for key in (same, *others)}) == len(digests)


def test_another_source_of_the_features_is_another_key(toy, backbone):
    class Own(CSP):
        def image_features(self, images):
            return super().image_features(images)

    keys = {feature_key(kind(backbone, toy.vocabulary, CSPConfig()), toy, "val", CPU).code for kind in (CSP, Own)}
    assert len(keys) == 2


def test_computing_features_shows_its_progress(tmp_path, toy, backbone):
    seen = []
    trainer = make_trainer(tmp_path / "run", toy, backbone, report=lambda *what: seen.append(what))
    next(trainer.batches["val"].ordered())
    count = len(toy.splits["val"])
    assert [item[1:3] for item in seen] == [(min(done, count), count) for done in range(0, count + 7, 7)]
    assert {item[0] for item in seen} == {"image features of val"}
