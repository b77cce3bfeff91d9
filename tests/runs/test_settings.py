"""Settings: precedence and provenance, presets, what a user sets, and errors a user can act on."""

import json
import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, model_validator

import registry
from benchmarks.runs.overrides import load_config_file, parse_overrides, parse_value
from benchmarks.runs.settings import PRESETS, known_keys, preset_layers, read_toml, resolve
from benchmarks.runs.spec import TrainingConfig
from errors import UserError


class PromptConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = 0.3
    init: Literal["words", "random"] = "words"
    learn_context: bool = False
    blocks: tuple[int, ...] = (3, 6)


class EmptyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


METHODS = {"csp": PromptConfig, "zero": EmptyConfig}

PRESET = """
[default]
source = "the paper"
lr = 1e-4
dropout = 0.1
epochs = 7

[mit_states]
source = "README"
lr = 2e-4
micro_batch = 64

[default.official]
epochs = 9
selection = "last"

[mit_states.official]
source = "train.py"
selection = "val_hm"
"""


@pytest.fixture
def presets(tmp_path):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "csp.toml").write_text(PRESET)
    return folder


def refused(call, *arguments, **keywords):
    """Return the message of the `UserError` that a call raises; it is always one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)
    return str(caught.value)


# Precedence and provenance


def test_defaults_alone(tmp_path):
    training, config, provenance = resolve("csp", PromptConfig, "mit_states", presets=tmp_path)
    assert training == TrainingConfig()
    assert config == {"dropout": 0.3, "init": "words", "learn_context": False, "blocks": [3, 6]}
    assert set(provenance) == {*TrainingConfig.model_fields, *PromptConfig.model_fields}
    assert all(note == {"origin": "default"} for note in provenance.values())


def test_later_sources_win_and_are_named(presets):
    training, config, provenance = resolve(
        "csp",
        PromptConfig,
        "mit_states",
        file_values={"epochs": 8, "dropout": 0.2},
        file_name="mine.toml",
        command_line_values={"epochs": 0, "learn_context": True},
        presets=presets,
    )
    assert (training.epochs, training.lr, training.micro_batch) == (0, 2e-4, 64)
    assert (config["dropout"], config["learn_context"], config["init"]) == (0.2, True, "words")
    assert provenance["epochs"] == {"origin": "command line"}
    assert provenance["dropout"] == {"origin": "file", "where": "mine.toml"}
    assert provenance["lr"] == {"origin": "preset", "where": "presets/csp.toml [mit_states]", "source": "README"}
    assert provenance["init"] == {"origin": "default"}


def test_a_value_equal_to_the_default_still_has_its_source(presets):
    _, _, provenance = resolve("csp", PromptConfig, "x", command_line_values={"gamma": 0.5}, presets=presets)
    assert provenance["gamma"] == {"origin": "command line"}


@pytest.mark.parametrize(
    ("dataset", "profile", "epochs", "selection", "lr"),
    [
        ("mit_states", "clean", 7, "val_auc", 2e-4),
        ("mit_states", "official", 9, "val_hm", 2e-4),
        ("elsewhere", "clean", 7, "val_auc", 1e-4),
        ("elsewhere", "official", 9, "last", 1e-4),
    ],
)
def test_preset_tables(presets, dataset, profile, epochs, selection, lr):
    training, _, _ = resolve("csp", PromptConfig, dataset, profile=profile, presets=presets)
    assert (training.epochs, training.selection, training.lr) == (epochs, selection, lr)


def test_missing_preset_is_no_error(presets):
    assert preset_layers("other", "mit_states", "clean", [], presets) == []


# Wrong presets and values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mit_states]\nlrr = 1", r"'lrr' (from presets/csp.toml [mit_states]). The settings are"),
        ("[unused]\nlrr = 1", "Did you mean 'lr'?"),
        ("[mit_states.official]\nepoch = 1", "presets/csp.toml [mit_states.official]"),
        ("lr = 1", "has 'lr' as a value"),
        ("[mit_states]\nofficial = 1", "has 'mit_states.official' as a value"),
        ("[mit_states]\nlr = ", "is not valid TOML"),
        ("[mit_states]\nlr = nan", "no finite number"),
        ("[mit_states]\nlr = 2020-01-01", "no finite number"),
        ("[mit_states]\nlr = '1e-3'", "Input should be a valid number"),
        ("[mit_states]\nepochs = true", "Input should be a valid integer"),
    ],
)
def test_wrong_presets_are_refused(presets, text, message):
    (presets / "csp.toml").write_text(text)
    assert message in refused(resolve, "csp", PromptConfig, "mit_states", presets=presets)


@pytest.mark.parametrize("origin", ["file_values", "command_line_values"])
def test_unknown_keys_are_refused_with_the_nearest(presets, origin):
    message = refused(resolve, "csp", PromptConfig, "x", presets=presets, **{origin: {"drop_out": 1}})
    assert "No setting of csp is called 'drop_out'" in message and "Did you mean 'dropout'?" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"lr": -1},
            "The value -1 of 'lr' for csp (from the command line) is refused. Input should be greater than or",
        ),
        ({"lr": None}, "The default is"),
        ({"epochs": 1.5}, "valid integer"),
        ({"optimizer": "sgd"}, "'adam', 'adamw' or 'early_adamw'"),
        ({"micro_batch": 48}, "It does not divide batch_size, which is 128"),
        ({"learn_context": "yes"}, "valid boolean"),
        ({"blocks": [1, "a"]}, "valid integer"),
        ({"init": 3}, "'words' or 'random'"),
    ],
)
def test_wrong_values_are_refused_in_one_line(tmp_path, values, message):
    told = refused(resolve, "csp", PromptConfig, "x", presets=tmp_path, command_line_values=values)
    assert message.lower() in told.lower()


def test_settings_that_do_not_fit_together(tmp_path):
    class PickyConfig(EmptyConfig):
        low: int = 0
        high: int = 1

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    message = refused(resolve, "picky", PickyConfig, "x", presets=tmp_path, command_line_values={"low": 2})
    assert message == "The settings of picky do not fit together. Low is above high. Change one of them."


@pytest.mark.parametrize("name", ["lr", "source", "official"])
def test_method_settings_may_not_take_a_used_name(name):
    taking = type("Taking", (EmptyConfig,), {"__annotations__": {name: float}, name: 0.0})
    assert f"settings of its own called {name}" in refused(known_keys, "taking", taking)


# The command line and the file


def test_bare_keys_go_to_every_method_that_has_them():
    assert parse_overrides(["epochs=3", "dropout=0.5", "csp.lr=1e-3"], METHODS) == {
        "csp": {"epochs": 3, "dropout": 0.5, "lr": 1e-3},
        "zero": {"epochs": 3},
    }
    assert parse_overrides([], METHODS) == {"csp": {}, "zero": {}}


def test_prefix_beats_bare_and_later_beats_earlier():
    assert parse_overrides(["csp.lr=1", "lr=2", "lr=3"], METHODS) == {"csp": {"lr": 1}, "zero": {"lr": 3}}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("lrr=1", "No setting of csp or zero is called 'lrr' (from --set)"),
        ("zero.dropout=1", "No setting of zero is called 'dropout'"),
        ("cps.lr=1", "Did you mean 'csp'?"),
        ("troika.lr=1", "The selected methods are csp, zero"),
        ("lr", "It needs a key and a value"),
        ("=3", "It needs a key and a value"),
        ("csp.=3", "It needs a key and a value"),
    ],
)
def test_wrong_overrides_are_refused(item, message):
    assert message in refused(parse_overrides, [item], METHODS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("1_000", 1000),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("true", True),
        ("False", False),
        ("FALSE", False),
        ("none", None),
        ("null", None),
        ("None", None),
        ("val_auc", "val_auc"),
        ("", ""),
        ("a=b", "a=b"),
        ('"3"', "3"),
        ("[1,2]", [1, 2]),
        ("[]", []),
        ("[a, False,1e-3]", ["a", False, 1e-3]),
        ("[[1,2],[3]]", [[1, 2], [3]]),
        ("nan", "nan"),
        ("Infinity", "Infinity"),
        ("-inf", "-inf"),
        ("1e999", "1e999"),
        ("5 # no comment", "5 # no comment"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_values_are_what_a_person_means(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


JSON_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.recursive(JSON_SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6))
def test_json_texts_mean_themselves(value):
    assert parse_value(json.dumps(value)) == value


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_parsed_to_something_finite(text):
    value = parse_value(text)
    assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("text", ["+" + "9" * 400, "9" * 5000, "[" * 100_000])
def test_absurd_texts_do_no_harm(text):
    parse_value(text)


def test_config_file_has_keys_for_all_and_tables_for_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 3\ndropout = 0.5\n[csp]\nlr = 1e-3\nepochs = 4\n")
    assert load_config_file(path, METHODS) == {
        "csp": {"epochs": 4, "dropout": 0.5, "lr": 1e-3},
        "zero": {"epochs": 3},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"epochs = ", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"epoch = 3", "Did you mean 'epochs'?"),
        (b"[zero]\ndropout = 1", "No setting of zero is called 'dropout'"),
        (b"[cps]\nlr = 1", "Did you mean 'csp'?"),
    ],
)
def test_wrong_config_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    told = refused(load_config_file, path, METHODS)
    assert message in told and "mine.toml" in told


# What this project ships


SHIPPED = [path for path in sorted(PRESETS.glob("*.toml")) if path.stem in registry.METHODS.names()]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_presets_resolve_in_both_profiles(path):
    config_class = registry.METHODS.get(path.stem).Config
    for dataset in read_toml(path):
        for profile in ("clean", "official"):
            resolve(path.stem, config_class, dataset, profile=profile)


def test_none_is_a_word_where_the_setting_has_that_word(tmp_path):
    values = {"augmentation": parse_value("none"), "micro_batch": parse_value("none")}
    training, _, _ = resolve("zero", EmptyConfig, "icons", command_line_values=values, presets=tmp_path)
    assert (training.augmentation, training.micro_batch) == ("none", None)
