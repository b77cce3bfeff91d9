"""What a method declares to change scores alone changes neither its initial weights nor its training loss."""

from __future__ import annotations

import pytest
import torch
from toy_runs import make_backbone

from benchmarks.runs.resolution import resolve
from datasets.transforms import derived_seed
from methods.base import Batch
from registry import METHODS

BRANCHES = {
    "inference": ["pair", "log_sum", "probability_product", "probability_sum"],
    "score_weights": [[0.5, 0.2, 0.0]],
    "test_score_weights": [[0.1, 0.9, 0.9]],
    "open_test_score_weights": [[0.3, 0.7, 0.7]],
    "test_primitive_divisor": [3],
    "open_test_primitive_divisor": [5],
    "validation_loss": ["scores"],
}
VALUES = {
    "msci": BRANCHES,
    "troika": BRANCHES,
    "caila": {"score": ["cosine"]},
    "dfsp": {"mix_images": [2], "decompose_over": ["train_pairs"], "primitive_scores_at_test": [0.1]},
    "cams": {"beta": [0.3], **{key: BRANCHES[key] for key in ("inference", "score_weights")}},
    "refiner_style": {key: BRANCHES[key] for key in ("inference", "score_weights")},
    "vp_cmjl": {key: BRANCHES[key] for key in ("inference", "score_weights")}
    | {"proxy_weight": [0.0], "text_weight": [1.0], "mixing": ["probabilities"]},
}
"""Values of every declared setting other than the default."""

BESIDE = {"dfsp": {"fusion": "bif", "layout": "released"}}
"""Settings beside which all of them are read."""


def step(name, toy, changes):
    """Return the initial weights, the training loss with dropout on, and its gradients."""
    method_class = METHODS.get(name)
    backbone = make_backbone()
    settings = {**resolve(name, method_class.Config, "icon_states").method, **BESIDE.get(name, {}), **changes}
    torch.manual_seed(0)
    method = method_class(backbone, toy.vocabulary, method_class.Config.model_validate(settings)).train()
    start = {key: value.clone() for key, value in method.checkpoint().items()}
    candidates = toy.candidates("train")
    pairs = torch.from_numpy(candidates.pairs)[:4]
    images = torch.randn(len(pairs), 3, 32, 32, generator=torch.Generator().manual_seed(2))
    batch = Batch(pairs[:, 0], pairs[:, 1], torch.arange(len(pairs)), images=images)
    torch.manual_seed(derived_seed("training", 0, 0))
    loss = method.training_loss(batch, candidates).total
    loss.backward()
    gradients = {f"gradient of {key}": value.grad for key, value in method.trained().items()}
    moved = {f"{key} after": value for key, value in method.checkpoint().items()}
    return start | moved | gradients | {"loss": loss.detach(), "next draw": torch.rand(3)}


@pytest.mark.parametrize("name", METHODS.names())
def test_declared_settings_change_scores_alone(name, toy):
    declared = METHODS.get(name).Config.score_only
    values = VALUES.get(name, {})
    assert declared == set(values), "every declared setting has a value to be tried, and no other"
    if not declared:
        return
    plain = step(name, toy, {})
    for changes in ({key: value} for key, options in values.items() for value in options):
        found = step(name, toy, changes)
        assert found.keys() == plain.keys()
        for key, value in plain.items():
            same = value is found[key] if value is None else torch.equal(value, found[key])
            assert same, f"{changes} changes the {key}"


@pytest.mark.parametrize(("name", "switch"), [("msci", "no_dropout"), ("dfsp", "fused_only"), ("csp", "random_init")])
def test_what_changes_training_would_be_found(name, switch, toy):
    (ablation,) = (one for one in METHODS.get(name).info.ablations if one.name == switch)
    base, found = step(name, toy, {"dropout": 0.3}), step(name, toy, {"dropout": 0.3, **ablation.changes})
    assert any(not torch.equal(base[key], found[key]) for key in ("loss", "next draw"))
