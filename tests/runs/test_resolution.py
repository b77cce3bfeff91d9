"""One resolution per request: precedence and provenance, wrong presets and values, switches that change nothing."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

import registry
from benchmarks.runs.open_world_settings import OpenWorldSettings
from benchmarks.runs.overrides import parse_value
from benchmarks.runs.resolution import Given, Resolver, resolve
from benchmarks.runs.settings import PRESETS, read_toml
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from errors import UserError


class PromptConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = 0.3
    init: Literal["words", "random"] = "words"
    learn_context: bool = False
    blocks: tuple[int, ...] = (3, 6)


class EmptyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    found = resolve("csp", PromptConfig, "mit_states", presets=tmp_path)
    assert found.training == TrainingConfig() and found.open_world is None
    assert found.method == {"dropout": 0.3, "init": "words", "learn_context": False, "blocks": [3, 6]}
    assert set(found.provenance) == {*TrainingConfig.model_fields, *PromptConfig.model_fields}
    assert all(note == {"origin": "default"} for note in found.provenance.values())


def test_later_sources_win_and_are_named(presets):
    user = Given({"epochs": 8, "dropout": 0.2}, "mine.toml", {"epochs": 0, "learn_context": True})
    found = resolve("csp", PromptConfig, "mit_states", given=user, presets=presets)
    training, config, provenance = found.training, found.method, found.provenance
    assert (training.epochs, training.lr, training.micro_batch) == (0, 2e-4, 64)
    assert (config["dropout"], config["learn_context"], config["init"]) == (0.2, True, "words")
    assert provenance["epochs"] == {"origin": "command line"}
    assert provenance["dropout"] == {"origin": "file", "where": "mine.toml"}
    assert provenance["lr"] == {"origin": "preset", "where": "presets/csp.toml [mit_states]", "source": "README"}
    assert provenance["init"] == {"origin": "default"}


def test_a_value_equal_to_the_default_still_has_its_source(presets):
    found = resolve("csp", PromptConfig, "x", given=Given(command_line={"gamma": 0.5}), presets=presets)
    assert found.provenance["gamma"] == {"origin": "command line"}


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
    training = resolve("csp", PromptConfig, dataset, profile=profile, presets=presets).training
    assert (training.epochs, training.selection, training.lr) == (epochs, selection, lr)


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


@pytest.mark.parametrize("origin", ["file", "command_line"])
def test_unknown_keys_are_refused_with_the_nearest(presets, origin):
    message = refused(resolve, "csp", PromptConfig, "x", presets=presets, given=Given(**{origin: {"drop_out": 1}}))
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
    told = refused(resolve, "csp", PromptConfig, "x", presets=tmp_path, given=Given(command_line=values))
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

    message = refused(resolve, "picky", PickyConfig, "x", presets=tmp_path, given=Given(command_line={"low": 2}))
    assert message == "The settings of picky do not fit together. Low is above high. Change one of them."


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
    training = resolve("zero", EmptyConfig, "icons", given=Given(command_line=values), presets=tmp_path).training
    assert (training.augmentation, training.micro_batch) == ("none", None)


# One resolution per request


def request(ablation=None, world="closed", seed=0):
    return RunRequest("msci", "icon_states", "tiny-icons", world, "clean", seed, ablation)


def test_a_switch_that_the_preset_has_set_changes_nothing():
    plain = Resolver()
    found = [plain.changes_nothing(request(name)) for name in ("low_2", "low_1", "parallel", None)]
    assert found == [True, False, False, False]
    assert Resolver({"msci": Given(command_line={"n_low": 1})}).changes_nothing(request("low_1"))


def test_the_open_world_has_settings_of_its_own_at_the_end():
    one = Resolver({"msci": Given(command_line={"threshold": 0.4})}).resolved(request(world="open"))
    assert one.open_world == OpenWorldSettings(threshold=0.4)
    assert list(one.provenance)[-4:] == list(OpenWorldSettings.model_fields)
    assert one.provenance["threshold"] == {"origin": "command line"}
    assert Resolver().resolved(request()).open_world is None


def test_a_suite_resolves_each_kind_of_run_once(monkeypatch):
    from benchmarks.runs import resolution

    calls = []
    monkeypatch.setattr(resolution, "resolve", lambda *names, **own: calls.append(own) or resolve(*names, **own))
    resolver = Resolver()
    for seed in range(3):
        for name in (None, "low_2", "low_1"):
            resolver.resolved(request(name, seed=seed))
            resolver.changes_nothing(request(name, seed=seed))
    assert [own["given"].ablation for own in calls] == [request(name).changes for name in (None, "low_2", "low_1")]
