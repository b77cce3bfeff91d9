"""Weights from a file: what is known of their activation and of their images' mean and deviation, and who says so."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from datasets.resizing import USUAL, Resizing
from errors import UserError
from methods.backbone import Backbone, build_clip, load_backbone
from methods.backbone.origin import OPENAI_MEAN, OPENAI_STD
from methods.backbone.weights_file import MARKS

HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
OPENAI = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "quick_gelu": True}
SQUASH = {"resize_mode": "squash", "interpolation": "bilinear"}
INCEPTION = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture
def definitions(small_config, monkeypatch):
    """Let open_clip know 'one' (a tag with OpenAI's mean), 'two' (tags with two means), 'three' (tags with two ways of
    resizing), 'none' (no tag), each also with QuickGELU where that exists of CLIP; return their configurations."""
    text = {**small_config["text_cfg"], "vocab_size": 128, "layers": 1, "context_length": 8}
    plain = {**small_config, "text_cfg": text}
    configs = {
        "one": plain,
        "two": plain,
        "three": plain,
        "none": plain,
        "one-quickgelu": {**plain, "quick_gelu": True},
    }
    web = {"hf_hub": "example/", "resize_mode": "shortest", "interpolation": "bicubic"}
    tags = {
        "one": {"openai": {**web, **OPENAI}, "laion": {**web, **OPENAI, "quick_gelu": False}},
        "three": {"first": {**web, **OPENAI}, "second": {**web, **OPENAI, **SQUASH}},
        "one-quickgelu": {"openai": {**web, **OPENAI}},
        "two": {"first": {**web, **OPENAI, "quick_gelu": False}, "second": {**web, **INCEPTION}},
    }
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS, **configs})
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", tags)
    return configs


@pytest.fixture
def state(definitions):
    return {name: value.half() for name, value in build_clip(definitions["one"], "one", seed=3).state_dict().items()}


def marked(state):
    return {**state, **{mark: torch.tensor(7) for mark in MARKS}}


def write(form: str, state, folder: Path) -> Path:
    """Write weights in one of the forms that they come in; return the path that a user names."""
    folder.mkdir(exist_ok=True)
    if form == "safetensors":
        save_file(state, folder / "w.safetensors")
    elif form == "folder":
        torch.save(state, folder / "open_clip_pytorch_model.bin")
        return folder
    elif form == "checkpoint":
        prefixed = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": prefixed}, folder / "w.pt")
    else:
        torch.save({"state_dict": state} if form == "wrapped" else state, folder / f"w.{form.replace('wrapped', 'pt')}")
    return next(folder.glob("w.*"))


FORMS = ("pt", "bin", "wrapped", "checkpoint", "safetensors", "folder")


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(name)
    assert caught.value.asked and caught.value.there and caught.value.next_step
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_openais_marks_say_activation_and_preprocessing(state, tmp_path, form):
    path = write(form, marked(state), tmp_path / "w")
    said = refusal(f"one/{path}")
    assert "were trained with QuickGELU, but 'one' computes the exact GELU" in said
    assert f"Pass 'one-quickgelu/{path}'." in said
    loaded = load_backbone(f"one-quickgelu/{path}")
    assert loaded.origin.facts["activation_from"] == loaded.origin.preprocessing_from == "OpenAI's marks in the file"
    assert (loaded.image_mean, loaded.image_std) == (OPENAI_MEAN, OPENAI_STD)
    assert loaded.origin.notes == ()
    assert loaded.origin.file.is_absolute() and loaded.name == f"one-quickgelu/{loaded.origin.file.name}"
    assert "the marks" not in refusal(f"two/{path}") and "no fitting definition" in refusal(f"two/{path}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("definition", ["one", "one-quickgelu"])
def test_a_file_that_says_nothing_is_as_the_definition_with_a_note(state, tmp_path, form, definition):
    loaded = load_backbone(f"{definition}/{write(form, state, tmp_path / 'w')}")
    origin = loaded.origin
    assert origin.activation_from == "unknown: taken from the definition"
    assert origin.activation == ("QuickGELU" if "quick" in definition else "the exact GELU")
    assert origin.mean == OPENAI_MEAN and "tag" in origin.preprocessing_from
    assert "Nothing says with which activation" in origin.notes[0]
    assert "says how its images were normalised and resized: as" in origin.notes[1]
    assert len(origin.notes) == 2 and origin.resizing == USUAL and "resizing" not in origin.facts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("two", "have [0.48"),
        ("none", "has no pretrained tag"),
        ("three", "have shortest, bicubic (first); or squash, bilinear (second)"),
    ],
)
def test_without_a_configuration_doubt_is_refused_with_what_to_write(state, tmp_path, form, definition, why):
    path = write(form, state, tmp_path / "w")
    said = refusal(f"{definition}/{path}")
    assert why in said
    place, written = said.partition("Put a file '")[2].split("' beside it with what it was trained with, for OpenAI's ")
    Path(place).write_text(written.rstrip("."))
    loaded = load_backbone(f"{definition}/{path}")
    assert loaded.image_mean == OPENAI_MEAN and loaded.image_std == OPENAI_STD
    assert loaded.origin.preprocessing_from == Path(place).name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["stem", "folder"])
def test_a_configuration_beside_it_is_open_clips(definitions, state, tmp_path, form, place):
    path = write(form, state, tmp_path / "w")
    weights = next((tmp_path / "w").iterdir())
    beside = weights.with_suffix(".json") if place == "stem" else tmp_path / "w/open_clip_config.json"
    images = HALF | SQUASH
    beside.write_text(json.dumps({"model_cfg": definitions["one-quickgelu"], "preprocess_cfg": images}))
    assert "'one' computes the exact GELU" in refusal(f"one/{path}")
    loaded = load_backbone(f"one-quickgelu/{path}")
    assert (loaded.image_mean, loaded.image_std) == ((0.5,) * 3, (0.5,) * 3)
    assert loaded.origin.preprocessing_from == loaded.origin.activation_from == beside.name
    assert loaded.origin.notes == () and loaded.resizing == Resizing("squash", "bilinear") == loaded.origin.resizing
    beside.write_text(json.dumps({"model_cfg": definitions["one-quickgelu"], "preprocess_cfg": HALF}))
    assert load_backbone(f"one-quickgelu/{path}").resizing == USUAL, "open_clip's default of what is left out"
    assert load_backbone(f"one-quickgelu/{path}").digest != loaded.digest, "another way of resizing is another run"
    beside.unlink()
    plain = load_backbone(f"one-quickgelu/{path}")
    assert plain.image_mean == OPENAI_MEAN
    assert plain.digest != loaded.digest, "another preprocessing is another run"


def test_the_digest_is_that_of_the_weights_where_the_preprocessing_is_openais(definitions, state, tmp_path):
    path = write("safetensors", state, tmp_path / "w")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": {"mean": OPENAI_MEAN, "std": OPENAI_STD}}))
    clip = build_clip(definitions["one"], "one", seed=3).half().float()
    assert load_backbone(f"two/{path}").digest == Backbone.from_open_clip(clip, None, "x").digest


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "neither model_cfg nor preprocess_cfg"),
        ('{"mean": 0.5}', "neither model_cfg nor preprocess_cfg"),
        ('{"model_cfg": 3, "preprocess_cfg": {}}', "have to be JSON objects"),
        ('{"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}', "has one alone"),
        ('{"preprocess_cfg": {"mean": [0.5, 0.5], "std": [1, 1, 1]}}', "mean is not three numbers"),
        ('{"preprocess_cfg": {"mean": "0.5", "std": [1, 1, 1]}}', "mean is not three numbers"),
        ('{"preprocess_cfg": {"mean": [0, NaN, 0], "std": [1, 1, 1]}}', "mean is not three numbers"),
        ('{"preprocess_cfg": {"resize_mode": "crop"}}', "'crop', and can be 'shortest', 'longest' or 'squash'."),
        ('{"preprocess_cfg": {"interpolation": "nearest"}}', "'nearest', and can be 'bicubic' or 'bilinear'."),
        ('{"preprocess_cfg": {"resize_mode": ["squash"]}}', "['squash'], and can be"),
        ('{"preprocess_cfg": {"fill_color": 256}}', "256, and can be a whole number from 0 to 255."),
        ('{"preprocess_cfg": {"mode": "L"}}', "mode is 'L', and pictures are 'RGB' here."),
        ('{"preprocess_cfg": {"mean": 0.5, "std": 0}}', "std is not three numbers above 0"),
        ('{"model_cfg": {"quick_gelu": "yes"}}', "quick_gelu is neither true nor false"),
        ('{"model_cfg": {"quick_gelu": false}}', "does not agree on its activation"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told(state, tmp_path, content, said):
    path = write("pt", marked(state), tmp_path / "w")
    path.with_suffix(".json").write_text(content)
    assert said in refusal(f"one-quickgelu/{path}")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("vision_cfg", "head_width", 8),
        ("text_cfg", "heads", 6),
        ("text_cfg", "no_causal_mask", True),
        ("", "embed_dim", 2),
    ],
)
def test_a_configuration_of_another_model_is_refused(definitions, state, tmp_path, section, key, value):
    """Widths show in the tensors; the number of heads does not."""
    path = write("pt", state, tmp_path / "w")
    config = copy.deepcopy(definitions["one"])
    (config[section] if section else config)[key] = value
    path.with_suffix(".json").write_text(json.dumps(config))
    said = refusal(f"one/{path}")
    assert f"{section}{'.' if section else ''}{key} is {value}" in said
    config = copy.deepcopy(definitions["one"])
    config["vision_cfg"] |= {"patch_dropout": 0.5, "image_size": [config["vision_cfg"]["image_size"]] * 2}
    path.with_suffix(".json").write_text(json.dumps(config))
    assert load_backbone(f"one/{path}").origin.activation_from == "w.json"


class Holder(torch.nn.Module):
    """A module whose TorchScript archive holds CLIP's weights and marks, as OpenAI's files do."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *folders, last = name.split(".")
            place = self
            for folder in folders:
                if not hasattr(place, folder):
                    place.add_module(folder, torch.nn.Module())
                place = getattr(place, folder)
            place.register_buffer(last, value)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_read_where_its_digest_is_a_tags(state, tmp_path, monkeypatch):
    path = tmp_path / "ViT.pt"
    torch.jit.trace(Holder(marked(state)), torch.zeros(1)).save(str(path))
    said = refusal(f"one-quickgelu/{path}")
    assert "TorchScript archive" in said and "torch.jit.load(FILE, 'cpu').state_dict()" in said
    url = f"https://openaipublic.azureedge.net/{hashlib.sha256(path.read_bytes()).hexdigest()}/ViT.pt"
    for name in ("one", "one-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED[name]["openai"], "url", url)
    assert "known by the tag openai, whose file it is" in refusal(f"one/{path}")
    loaded = load_backbone(f"one-quickgelu/{path}")
    assert loaded.origin.activation_from == "the tag openai, whose file it is" == loaded.origin.preprocessing_from
    assert "The file is that of 'one/openai'" in refusal(f"ViT-S-32/{path}")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": HALF}))
    assert "does not agree on how its images are normalised" in refusal(f"one-quickgelu/{path}")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": SQUASH}))
    assert "does not agree on how its images are resized" in refusal(f"one-quickgelu/{path}")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": {"resize_mode": "shortest", "size": 7}}))
    (note,) = load_backbone(f"one-quickgelu/{path}").origin.notes
    assert "not to the 7 that ViT.json says" in note


def test_the_first_digits_of_a_digest_in_an_address_are_enough(state, tmp_path, monkeypatch):
    path = write("pt", state, tmp_path / "w")
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    source = open_clip.pretrained._PRETRAINED["two"]["second"]
    monkeypatch.setitem(source, "url", f"https://github.com/mlfoundations/open_clip/w-{digits}.pt")
    assert load_backbone(f"two/{path}").image_mean == (0.5,) * 3


def test_unreadable_files_are_told_apart(state, tmp_path):
    whole = write("pt", state, tmp_path / "w").read_bytes()
    cut = write("safetensors", state, tmp_path / "s")
    cut.write_bytes(cut.read_bytes()[:-1000])
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.bin").write_bytes(bytes(range(256)) * 9)
    for path in (cut, tmp_path / "cut.pt", tmp_path / "junk.bin"):
        assert "cannot be read as weights" in refusal(f"one/{path}")
    (tmp_path / "p.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    assert "a pointer of Git LFS" in refusal(f"one/{tmp_path / 'p.bin'}")
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(2)}, tmp_path / "hf.bin")
    assert "a CLIP of the package transformers" in refusal(f"one/{tmp_path / 'hf.bin'}")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pt")
    assert "cannot be read as weights" in refusal(f"one/{tmp_path / 'numbers.pt'}")
    (tmp_path / "empty").mkdir()
    assert "It holds no file" in refusal(f"one/{tmp_path / 'empty'}")
    assert "Name the weights file" in refusal(f"one/{tmp_path}")


def test_a_file_is_looked_for_in_the_cache_folder_too(state, tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_HOME", str(tmp_path))
    path = write("pt", state, tmp_path / "weights")
    assert load_backbone("one/w.pt").origin.file == path


def test_resizing_alone_may_be_said_beside_a_file(state, tmp_path):
    path = write("pt", state, tmp_path / "w")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": {"resize_mode": "longest", "mean": None}}))
    loaded = load_backbone(f"three/{path}")
    assert loaded.resizing == Resizing("longest") and loaded.image_mean == OPENAI_MEAN
    assert loaded.origin.preprocessing_from == "all 2 pretrained tags of 'three'"
    assert loaded.origin.facts["resizing_from"] == "w.json"
    assert "says how its images were normalised: as" in loaded.origin.notes[1]
    assert loaded.origin.facts["resizing"] == {"resize_mode": "longest", "interpolation": "bicubic", "fill_color": 0}


def test_a_tag_says_how_images_are_resized(definitions, tmp_path, monkeypatch):
    save_file(build_clip(definitions["one"], "one").state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda source: str(tmp_path / "w.safetensors"))
    for tag in ("first", "second"):
        open_clip.pretrained._PRETRAINED["three"][tag]["quick_gelu"] = False
    usual, loaded = load_backbone("three/first"), load_backbone("three/second")
    assert loaded.origin.notes == () and loaded.resizing == Resizing("squash", "bilinear")
    assert loaded.origin.facts["resizing"]["resize_mode"] == "squash"
    assert "file" not in loaded.origin.facts and loaded.origin.facts["activation_from"] == "the tag second"
    assert usual.resizing == USUAL and "resizing" not in usual.origin.facts
    assert usual.digest == Backbone.from_open_clip(usual.clip, None, "x").digest != loaded.digest
    open_clip.pretrained._PRETRAINED["three"]["second"]["resize_mode"] = "tile"
    assert "as the tag second asks. There resize_mode is 'tile', and can be" in refusal("three/second")


def test_a_configuration_that_is_named_counts_alone(definitions, state, tmp_path):
    path = write("pt", state, tmp_path / "w")
    path.with_suffix(".json").write_text("not even JSON")
    place = tmp_path / "mine.json"
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    place.write_text(json.dumps({"model_cfg": {"quick_gelu": False}, "preprocess_cfg": half}))
    loaded = load_backbone(f"one/{path}::{place}")
    assert loaded.name == f"one/{path.name}" and loaded.image_mean == (0.5,) * 3
    assert loaded.origin.activation_from == loaded.origin.preprocessing_from == "mine.json"
    assert loaded.origin.facts["configuration"] == str(place) and loaded.origin.notes == ()
    assert "cannot be read as JSON" in refusal(f"one/{path}::{tmp_path / 'none.json'}")
    for name in ("one/random", "one/openai", "tiny-icons"):
        said = refusal(f"{name}::{place}")
        assert f"The configuration '{place}' was given for '{name}'" in said and "names no file" in said


def test_files_of_other_classes_are_read_as_open_clip_reads_them(definitions, tmp_path, monkeypatch):
    """A text tower of its own in the older names, a logit scale of one number, and no logit bias."""
    config = {**definitions["one"], "custom_text": True, "init_logit_bias": -10, "nonscalar_logit_scale": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "own", config)
    state = build_clip(config, "own", seed=3).state_dict()
    whole = Backbone.from_open_clip(build_clip(config, "own", seed=3), None, "own")
    older = {
        (name.removeprefix("text.") if name.startswith("text.") else name): value
        for name, value in state.items()
        if name != "logit_bias"
    }
    older["logit_scale"] = older["logit_scale"].reshape(())
    path = write("pt", older, tmp_path / "w")
    path.with_suffix(".json").write_text(json.dumps({"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    loaded = load_backbone(f"own/{path}").clip.state_dict()
    assert float(loaded.pop("logit_bias")) == 0
    assert all(torch.equal(value, whole.clip.state_dict()[name]) for name, value in loaded.items())
