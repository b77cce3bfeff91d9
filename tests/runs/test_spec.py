"""The identity of a run: what changes it, what does not, and that it stays what it is."""

import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.runs.open_world_settings import OpenWorld, OpenWorldSettings
from benchmarks.runs.spec import LATER_SETTINGS, External, RunSpec, TrainingConfig, canonical_json

SPEC = RunSpec(
    method="csp",
    method_config={"dropout": 0.3, "init": "words", "learn_context": False},
    training=TrainingConfig(),
    dataset="icon_states",
    dataset_digest="0" * 64,
    backbone="ViT-L-14-quickgelu/openai",
    backbone_digest="1" * 64,
)

OPEN_DIGEST = "53c4b0d4ff5e70a6f7842fbbaffcb8e31e9abb25a0743217737b51b00b471731"


def test_digest_is_pinned():
    """A change here makes every record on every disk another run: raise a version number and say so in the notes."""
    assert SPEC.digest() == "fac44e50a23850d7d9ed33992adfbcb096123cf729d276f02bc6ead25bce0906"
    assert SPEC.run_id == "csp-icon_states-ViT-L-14-quickgelu-openai-closed-clean-s0-fac44e50a2"


def test_training_defaults_are_pinned():
    assert json.loads(TrainingConfig().model_dump_json()) == {
        "epochs": 20,
        "batch_size": 128,
        "micro_batch": None,
        "optimizer": "adam",
        "lr": 5e-5,
        "weight_decay": 1e-5,
        "clip_norm": None,
        "scheduler": "constant",
        "step_size": 5,
        "gamma": 0.5,
        "selection": "val_auc",
        "selection_batch": None,
        "augmentation": "clip",
        "views": None,
    }


def test_a_later_setting_counts_once_it_is_used():
    clipped = SPEC.model_copy(update={"training": TrainingConfig(clip_norm=1.0)})
    assert clipped.digest() != SPEC.digest()
    assert clipped.digest() != SPEC.model_copy(update={"training": TrainingConfig(clip_norm=2.0)}).digest()
    digests = {SPEC.model_copy(update={"training": TrainingConfig(views=views)}).digest() for views in (None, 1, 2)}
    assert len(digests) == 3 and SPEC.digest() in digests


def test_views_need_an_augmentation():
    with pytest.raises(ValidationError, match="one view only"):
        TrainingConfig(views=2, augmentation="none")


def test_a_record_from_before_thresholds_keeps_its_identity():
    """Closed, or open with every pair as a candidate: what such runs were before, they are still."""
    for world, digest in (("closed", SPEC.digest()), ("open", OPEN_DIGEST)):
        content = SPEC.model_copy(update={"world": world}).model_dump(mode="json")
        del content["open_world"]
        for later in LATER_SETTINGS:
            del content["training"][later]
        assert RunSpec.model_validate(content).digest() == digest


@pytest.mark.parametrize(
    "change",
    [
        {"feasibility": "shipped"},
        {"feasibility_digest": "f" * 64},
        {"threshold": 0.4},
        {"threshold": 0.5},
        {"masking": "official"},
        {"selection_world": "closed"},
    ],
)
def test_every_choice_about_the_open_world_is_part_of_the_identity(change):
    searched = SPEC.model_copy(update={"world": "open", "open_world": OpenWorld(feasibility="clip")})
    chosen = {**OpenWorld(feasibility="clip").model_dump(), **change}
    assert searched.model_copy(update={"open_world": OpenWorld(**chosen)}).digest() != searched.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"protocol_version": 2},
        {"method": "coop"},
        {"method_config": {"dropout": 0.2, "init": "words", "learn_context": False}},
        {"training": TrainingConfig(micro_batch=64)},
        {"dataset": "mit_states"},
        {"dataset_digest": "2" * 64},
        {"backbone": "ViT-B-16-quickgelu/openai"},
        {"backbone_digest": "2" * 64},
        {"world": "open"},
        {"profile": "official"},
        {"seed": 1},
        {"precision": "bf16"},
        {"ablation": "no_prompt"},
        {"open_world": OpenWorld(feasibility="clip")},
        {"imported": "3" * 64},
        {"external": External(test="1" * 64)},
        {"threads": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_part_of_the_identity(change):
    assert SPEC.model_copy(update=change).digest() != SPEC.digest()


def test_the_list_above_is_complete():
    (mark,) = test_every_field_is_part_of_the_identity.pytestmark
    assert {name for change in mark.args[1] for name in change} == set(RunSpec.model_fields)


def test_order_of_settings_does_not_matter():
    turned = SPEC.model_copy(update={"method_config": dict(reversed(SPEC.method_config.items()))})
    assert turned.digest() == SPEC.digest()


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    lr=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    seed=st.integers(min_value=0, max_value=2**63),
    config=st.dictionaries(
        st.text(),
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    ),
)
def test_identity_survives_a_file(lr, seed, config):
    spec = SPEC.model_copy(update={"training": TrainingConfig(lr=lr), "seed": seed, "method_config": config})
    again = RunSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"), indent=1)))
    assert again == spec
    assert again.digest() == spec.digest()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(name=st.text(min_size=1), ablation=st.none() | st.text(min_size=1))
def test_run_id_is_a_folder_name(name, ablation):
    spec = SPEC.model_copy(update={"backbone": name, "ablation": ablation})
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", spec.run_id)
    assert spec.run_id.endswith(f"-s0-{spec.digest()[:10]}")


def test_run_ids_differ_where_the_readable_part_does_not():
    first, second = (SPEC.model_copy(update={"backbone": name}) for name in ("a/b", "a-b"))
    assert first.run_id != second.run_id


def test_canonical_json_is_the_hashed_text():
    content = SPEC.model_dump(mode="json")
    for later in LATER_SETTINGS:
        assert content["training"].pop(later) is None, "a later setting that is not used"
    assert content.pop("open_world") is None, "a closed world"
    assert "imported" not in content, "a run that trains its own weights"
    assert content.pop("threads") == 1, "what every run has that asks for no other number"
    text = canonical_json(content)
    assert SPEC.digest() == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(ValueError):
        canonical_json({"lr": float("nan")})


@pytest.mark.parametrize("model", [TrainingConfig, SPEC.__class__])
def test_unknown_keys_are_refused(model):
    with pytest.raises(ValidationError):
        model.model_validate({**SPEC.model_dump(), **TrainingConfig().model_dump(), "workers": 4})


def test_specifications_are_frozen():
    with pytest.raises(ValidationError):
        SPEC.seed = 1
    with pytest.raises(ValidationError):
        SPEC.training.lr = 1.0


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "kept"),
    [(128, None, None), (128, 64, 64), (128, 128, None), (32, 64, None), (12, 4, 4)],
)
def test_micro_batches(batch_size, micro_batch, kept):
    assert TrainingConfig(batch_size=batch_size, micro_batch=micro_batch).micro_batch == kept


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"lr": float("nan")},
        {"lr": -1},
        {"micro_batch": 48},
        {"selection": "best_loss"},
    ],
)
def test_impossible_training_settings_are_refused(values):
    with pytest.raises(ValidationError):
        TrainingConfig(**values)


def test_sources_of_feasibility_are_known_or_name_a_file():
    for source in ("auto", "none", "shipped", "clip", "glove:vectors.txt", "table:t.csv"):
        assert OpenWorldSettings(feasibility=source).feasibility == source
    for source in ("glove", "glove:", "table", "table:", "word2vec:vectors.txt", ""):
        with pytest.raises(ValidationError, match="glove:<file of word vectors>"):
            OpenWorldSettings(feasibility=source)


def test_settings_are_those_of_training_world_and_method():
    world = OpenWorld(feasibility="glove", feasibility_digest="1" * 64, threshold=0.25)
    spec = SPEC.model_copy(update={"world": "open", "open_world": world})
    assert set(spec.settings) == {*TrainingConfig.model_fields, *OpenWorld.model_fields, *SPEC.method_config} - {
        "feasibility_digest"
    }
    assert (spec.settings["threshold"], spec.settings["lr"]) == (0.25, SPEC.training.lr)
    assert set(SPEC.settings) == {*TrainingConfig.model_fields, *SPEC.method_config}
