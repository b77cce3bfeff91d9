"""What backbones offer by their definitions, and pairs of a method and a backbone that do not fit."""

from __future__ import annotations

import dataclasses

import open_clip
import pytest
from in_process import here

from benchmarks.runs.fitting import require_fitting
from errors import UserError
from methods.offers import ALWAYS, OFFERS, TINY, all_offers, config_of, fitting, offers_of, require_fit
from registry import METHODS


def test_every_definition_of_open_clip_is_read():
    offers = all_offers()
    assert set(offers) == {TINY, *open_clip.list_models()}
    assert all(found.names <= set(OFFERS) for found in offers.values())
    refused = [name for name, found in offers.items() if not found.names]
    assert refused == [n for n in offers if "hf_model_name" in config_of(n)["text_cfg"]] and len(refused) == 10
    assert all(found.names >= ALWAYS for name, found in offers.items() if name not in refused)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("ViT-L-14-quickgelu/openai", set()),
        ("tiny-icons", set()),
        ("RN50/openai", {"patch_tokens", "taps", "adapters", "any_length", "image_tokens"}),
        ("EVA02-L-14/x", {"any_length"}),
        ("PE-Core-L-14-336/x", {"any_length", "image_tokens"}),
        ("ViT-B-16-SigLIP2/webli", {"image_tokens", "text_tokens", "causal_text"}),
        ("ViT-L-14-CLIPA/x", {"image_tokens", "text_tokens", "causal_text"}),
        ("MobileCLIP2-L-14/x", {"causal_text"}),
        ("vit_medium_patch16_gap_256/random", {"image_tokens"}),
    ],
)
def test_families_offer_what_they_are(name, lacks):
    assert set(offers_of(name).lacking(OFFERS)) == lacks


def test_what_methods_need_is_known_and_fits_as_the_documents_say():
    needs = {name: METHODS.get(name).info.needs for name in METHODS.names()}
    assert all(set(wanted) <= set(OFFERS) for wanted in needs.values())
    usable = [name for name, found in all_offers().items() if found.names]
    assert all(fitting(needs[name]) == usable for name in ("clip_zero_shot", "coop", "csp"))
    assert "ViT-B-16-SigLIP2" in fitting(needs["troika"]) and "convnext_base" not in fitting(needs["msci"])
    assert {"EVA02-B-16", TINY} <= set(fitting(needs["dfsp"])) and "PE-Core-B-16" not in fitting(needs["dfsp"])


def test_a_pair_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(UserError) as caught:
        require_fitting("troika", "RN50/openai")
    said = str(caught.value)
    assert "The method 'troika' cannot run on 'RN50/openai'." in said
    assert f"It needs patch_tokens ({OFFERS['patch_tokens']}); adapters (" in said
    count = len(fitting(METHODS.get("troika").info.needs))
    assert f"one of the {count} models that fit, such as tiny-icons, ViT-L-14-quickgelu," in said
    assert "a method that runs on this one: clip_zero_shot, coop, csp" in said
    require_fitting("csp", "RN50/openai")
    with pytest.raises(UserError, match="Did you mean 'patch_tokens'"):
        require_fit("mine", ("patch_token",), "RN50/openai", ALWAYS)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--methods", "csp", "msci", "--backbone", "RN50/openai", "--dry-run"),
        ("run", "--methods", "dfsp", "--backbone", "ViT-B-16-SigLIP/webli"),
        ("cost", "--methods", "troika", "--backbone", "convnext_base", "--flops-only"),
    ],
)
def test_commands_refuse_before_anything_is_loaded(words, monkeypatch, tmp_path):
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr(open_clip, "download_pretrained", nothing)
    monkeypatch.setattr("methods.backbone.loading.build_clip", nothing)
    done = here(*words, *(("--results", tmp_path) if words[0] == "run" else ()), check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0 and "cannot run on" in said and "models that fit" in said
    assert "Traceback" not in said and not list(tmp_path.iterdir())


def test_a_backbone_of_a_plugin_is_asked_when_the_method_is_built(backbone):
    kind = METHODS.get("csp")
    mine = type("Mine", (kind,), {"info": dataclasses.replace(kind.info, name="mine", needs=("image_tokens",))})
    poor = type("Poor", (), {"name": "poor", "offers": ALWAYS})()
    with pytest.raises(UserError, match="The method 'mine' cannot run on 'poor'"):
        mine(poor, None, None)


def test_the_list_shows_offers_and_counts():
    shown = here("list", "backbones").stdout
    assert "134 of open_clip's 144 models can be a backbone" in " ".join(shown.split())
    assert "convnext_base, convnext_base_w" in shown and "needs" in shown
    assert all(f"{name}: {what}" in shown for name, what in OFFERS.items())
