"""Loading backbones: names, weights files, digests, and errors that say what to do."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from errors import UserError
from methods.backbone import Backbone, build_clip, load_backbone, loading


@pytest.fixture
def small_definition(small_config, monkeypatch):
    """Let open_clip know a small model 'ViT-small', and with QuickGELU; both have a tag 'openai'."""
    config = {**small_config, "text_cfg": {**small_config["text_cfg"], "vocab_size": 512, "layers": 1}}
    configs = {"ViT-small": config, "ViT-small-quickgelu": {**config, "quick_gelu": True}}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS, **configs})
    source = {"url": "https://example.org/w.pt", "mean": (0.1,) * 3, "std": (0.2,) * 3, "quick_gelu": True}
    tags = {name: {"openai": source} for name in configs}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", {**open_clip.pretrained._PRETRAINED, **tags})
    return config


def test_random_weights_depend_on_the_seed_alone(small_definition):
    before = torch.get_rng_state()
    first, again, other = (load_backbone("ViT-small/random", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.digest == again.digest != other.digest
    assert first.name == "ViT-small/random"


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt", "nested.pt"])
def test_local_weights(small_definition, tmp_path, file):
    source = load_backbone("ViT-small/random", seed=3)
    state = {name: value.half() for name, value in source.clip.state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(state, tmp_path / file)
    else:
        torch.save(
            {"state_dict": {f"module.{n}": v for n, v in state.items()}} if "nested" in file else state, tmp_path / file
        )
    loaded = load_backbone(f"ViT-small/{tmp_path / file}")
    assert loaded.name == f"ViT-small/{file}", "a record never holds a folder"
    assert all(value.dtype == torch.float32 for value in loaded.clip.state_dict().values())
    source.clip.half().float()
    plain = Backbone.from_open_clip(source.clip, source.tokenizer, "rounded").digest
    assert loaded.origin.mean == (0.1,) * 3, "what the definition's tags have in common"
    assert loaded.digest == loaded.origin.digest(plain)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_committed_model_is_two_files(small_definition, tmp_path, monkeypatch, wrapped):
    clip = build_clip(small_definition, "small", seed=7)
    save_file({name: value.half() for name, value in clip.state_dict().items()}, tmp_path / "tiny-icons.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    stored = {"model_cfg": small_definition, "preprocess_cfg": preprocess} if wrapped else small_definition
    (tmp_path / "tiny-icons.json").write_text(json.dumps(stored))
    monkeypatch.setattr(loading, "_HERE", tmp_path)
    loaded = load_backbone("tiny-icons")
    assert loaded.name == "tiny-icons"
    assert loaded.digest == Backbone.from_open_clip(clip.half().float(), loaded.tokenizer, "rounded").digest
    assert loaded.image_mean == pytest.approx((0.5,) * 3 if wrapped else open_clip.OPENAI_DATASET_MEAN)


def test_a_tag_is_downloaded_by_open_clip(small_definition, tmp_path, monkeypatch):
    clip = build_clip({**small_definition, "quick_gelu": True}, "small", seed=5)
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda source: str(tmp_path / "w.safetensors"))
    loaded = load_backbone("ViT-small-quickgelu/openai")
    assert loaded.digest == Backbone.from_open_clip(clip, None, "x").digest
    assert loaded.name == "ViT-small-quickgelu/openai"
    assert (loaded.image_mean, loaded.image_std) == ((0.1,) * 3, (0.2,) * 3)


def message(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(name)
    assert caught.value.asked and caught.value.there and caught.value.next_step
    return str(caught.value)


def test_errors_say_what_to_do(small_definition, tmp_path, monkeypatch):
    assert "Did you mean 'tiny-icons'?" in message("tiny-icon")
    assert "'ViT-B-32'" in message("ViT-B32/openai")
    assert "'ViT-L-14-quickgelu/<tag>'" in message("ViT-L-14-quickgelu")
    assert "Did you mean 'openai'?" in message("ViT-small/opnai")
    assert "neither a pretrained tag of 'ViT-small' nor a file" in message(f"ViT-small/{tmp_path}/none.pt")
    assert "Pass 'ViT-L-14-quickgelu/openai'." in message("ViT-L-14/openai")
    assert "Pass 'ViT-small-quickgelu/openai'." in message("ViT-small/openai")
    assert "Its text tower is roberta-base of Hugging Face" in message("roberta-ViT-B-32/random")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        said = message("ViT-B-16-SigLIP/random")
    assert "timm/ViT-B-16-SigLIP of Hugging Face, which the package transformers reads" in said

    def no_network(source):
        raise FileNotFoundError("Failed to download file\nand more")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    said = message("ViT-small-quickgelu/openai")
    assert "could not be downloaded" in said and "Failed to download file" in said and "and more" not in said
    assert "Connect once" in said

    monkeypatch.setattr(loading, "_HERE", tmp_path)
    assert "no tiny-icons.json and no tiny-icons.safetensors" in message("tiny-icons")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*TorchScript:UserWarning")
def test_unfitting_files_are_refused(small_definition, tmp_path):
    state = build_clip(small_definition, "small").state_dict()
    torch.save({"numbers": [1, 2]}, tmp_path / "other.pt")
    torch.save({**state, "logit_scale": state["logit_scale"].new_zeros(3)}, tmp_path / "shape.pt")
    torch.save({name: value for name, value in state.items() if name != "ln_final.bias"}, tmp_path / "missing.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pt")  # a pickled module: loading it would run code
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "archive.pt")
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    for file in ("code.pt", "archive.pt", "text.safetensors", "empty.pt"):
        assert "cannot be read as weights" in message(f"ViT-small/{tmp_path / file}")
    assert "TorchScript archive" in message(f"ViT-small/{tmp_path / 'archive.pt'}")
    assert "1 missing such as ln_final.bias." in message(f"ViT-small/{tmp_path / 'missing.pt'}")
    assert "1 of another shape such as logit_scale." in message(f"ViT-small/{tmp_path / 'shape.pt'}")
    assert "1 unknown such as numbers." in message(f"ViT-small/{tmp_path / 'other.pt'}")


def test_towers_that_mean_something_else_are_refused(tokenizer, small_config):
    config = copy.deepcopy(small_config)
    config["vision_cfg"]["image_size"] = [32, 64]
    config["text_cfg"] |= {"vocab_size": 64, "pool_type": "none"}
    with pytest.raises(UserError, match="an image tower for square images, a text tower of open_clip"):
        Backbone.from_open_clip(build_clip(config, "odd"), tokenizer, "odd")


def test_digest_follows_the_weights(tokenizer, small_config):
    config = {**small_config, "text_cfg": {**small_config["text_cfg"], "vocab_size": 64}}
    first, again, other = (build_clip(config, "small", seed) for seed in (0, 0, 1))
    digests = [Backbone.from_open_clip(clip, tokenizer, "small").digest for clip in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64 and int(digests[0], 16) >= 0
    assert Backbone.from_open_clip(first, tokenizer, "small", digest="given").digest == "given"


def test_methods_import_without_open_clip():
    """Listing and describing methods must not pay for open_clip."""
    code = "import sys, methods.csp, methods.clip_zero_shot; sys.exit('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
