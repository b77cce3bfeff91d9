"""A finished run's weights file is found again: where it was, in CZSL_HOME, in the current folder; by its digest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
from toy_runs import CONFIG
from toy_world import make_toy

from benchmarks.launchers.job import read_job
from benchmarks.report.finished import load_method
from benchmarks.report.reproduce import provenance, reproduce
from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.places import unknown_places
from benchmarks.runs.records import RunFolder
from benchmarks.runs.suites import RunRequest
from errors import UserError
from methods.backbone import build_clip

HALF = {"preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run on the weights file 'a/w.pt', whose images are normalised as a configuration beside it says."""
    import torch

    root = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS, "tiny": CONFIG})
        patch.setenv("CZSL_HOME", str(root / "home"))
        toy = make_toy(root / "toy")
        (root / "a").mkdir()
        torch.save(build_clip(CONFIG, "tiny", 4).state_dict(), root / "a/w.pt")
        torch.save(build_clip(CONFIG, "tiny", 5).state_dict(), root / "other.pt")
        (root / "a/w.json").write_text(json.dumps(HALF))
        request = RunRequest("clip_zero_shot", "toy", f"tiny/{root}/a/w.pt", "closed", "clean", 0)
        workbench = Workbench(
            Choices(results=root / "results", how=How(device="cpu", feature_cache=False)), datasets={"toy": toy}
        )
        (planned,) = plan_runs([request], workbench)
        run = execute(planned, workbench)
        assert any("Nothing says with which activation" in note for note in workbench.notes)
        yield root, run, toy.vocabulary


def test_the_record_says_where_the_weights_are_and_how_they_were_trained(made):
    root, run, _ = made
    facts = run.environment["backbone"]
    assert facts["file"] == str(root / "a/w.pt")
    assert facts["mean"] == [0.5] * 3 and facts["preprocessing_from"] == "w.json"
    assert facts["activation_from"] == "unknown: taken from the definition"
    assert facts["resizing"] == {"resize_mode": "squash", "interpolation": "bicubic", "fill_color": 0}
    assert run.spec.backbone == "tiny/w.pt", "the identity has no folder"
    assert str(root) not in json.dumps(run.spec.model_dump(mode="json"))
    shown = provenance(run)["facts"]
    assert shown["images"] == "mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5, squash, bicubic (w.json)"


@pytest.mark.parametrize("place", ["recorded", "weights", "home", "current"])
def test_it_is_found_where_it_lies_now(made, tmp_path, monkeypatch, place):
    root, run, vocabulary = made
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))
    where = {
        "recorded": root / "a",
        "weights": tmp_path / "home/weights",
        "home": tmp_path / "home",
        "current": empty,
    }[place]
    gone = root / "gone"
    if place != "recorded":
        (root / "a").rename(gone)
        shutil.copytree(gone, where, dirs_exist_ok=True)
        other = tmp_path / "home/weights" if place != "weights" else empty
        other.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "other.pt", other / "w.pt")  # another file of that name is passed over
        (other / "w.json").write_text(json.dumps(HALF))
    try:
        method = load_method(run, vocabulary)
        assert method.backbone.digest == run.spec.backbone_digest
        assert method.backbone.origin.file == where / "w.pt"
        first = where if place in ("recorded", "weights") else tmp_path / "home/weights"
        assert f"--backbone tiny/{first / 'w.pt'}" in reproduce(run)
        assert read_job(run.path / "spec.json")[0].backbone == f"tiny/{first / 'w.pt'}"
    finally:
        if place != "recorded":
            gone.rename(root / "a")


def test_what_is_not_there_or_is_another_file_is_told(made, tmp_path, monkeypatch):
    root, run, vocabulary = made
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))
    (root / "a").rename(root / "gone")
    try:
        said = refusal(run, vocabulary)
        assert (
            f"The weights 'w.pt' with the digest {run.spec.backbone_digest[:12]} are not at {root / 'a/w.pt'}." in said
        )
        assert f"Put that file there or into {tmp_path / 'home/weights'}" in said
        assert said.endswith("in the folder that holds it.")
        shutil.copy(root / "other.pt", tmp_path / "w.pt")
        assert "says with which mean and deviation" in refusal(run, vocabulary)
        (tmp_path / "w.json").write_text(json.dumps(HALF))
        assert f"{tmp_path / 'w.pt'} here has the digest" in refusal(run, vocabulary)
    finally:
        (root / "gone").rename(root / "a")


def test_the_configuration_belongs_to_the_weights(made, tmp_path, monkeypatch):
    root, run, vocabulary = made
    monkeypatch.chdir(tmp_path)
    beside = root / "a/w.json"
    text = beside.read_text()
    beside.write_text(text.replace("0.5", "0.4"))
    try:
        assert f"{root / 'a/w.pt'} here has the digest" in refusal(run, vocabulary)
    finally:
        beside.write_text(text)


def test_a_record_from_before_places_were_kept_is_searched_by_name(made, tmp_path, monkeypatch):
    root, run, vocabulary = made
    folder = shutil.copytree(run.path, tmp_path / "old")
    content = json.loads((folder / "spec.json").read_text())
    del content["starts"][0]["environment"]["backbone"], content["starts"][0]["asked"]
    (folder / "spec.json").write_text(json.dumps(content))
    old = RunFolder(folder).read()
    monkeypatch.chdir(root / "a")
    assert load_method(old, vocabulary).backbone.origin.file == Path.cwd() / "w.pt"
    assert "--backbone" not in reproduce(old)  # a command without its place would not work: the page says it in words
    assert ("the weights of tiny/w.pt", "--backbone tiny/<path of the weights file>") in unknown_places(old)
    monkeypatch.chdir(tmp_path)
    assert "in the folder that holds it." in refusal(old, vocabulary)


def refusal(run, vocabulary) -> str:
    with pytest.raises(UserError) as caught:
        load_method(run, vocabulary)
    return str(caught.value)
