"""Settings: presets, what a user sets by file and command line, and errors a user can act on."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resolution import EmptyConfig, PromptConfig, refused

from benchmarks.runs.overrides import load_config_file, parse_overrides, parse_value
from benchmarks.runs.settings import known_keys, preset_layers

METHODS = {"csp": PromptConfig, "zero": EmptyConfig}


def test_missing_preset_is_no_error(tmp_path):
    assert preset_layers("other", "mit_states", "clean", [], tmp_path) == []


@pytest.mark.parametrize("name", ["lr", "source", "official", "short"])
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
