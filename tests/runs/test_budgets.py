"""Two budgets: the same one for every method, and the short one of a newcomer's first minutes."""

import json
from pathlib import Path

import pytest
from made_reports import record

from benchmarks.report.budgets import budget_notes, ceilings, epochs_text
from benchmarks.report.reproduce import reproduce
from benchmarks.runs.budgets import budget_settings, trained_short
from benchmarks.runs.reading import RunRecord
from benchmarks.runs.resolution import Resolver, resolve
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.runs.suites import RunRequest, expand, load_suite
from registry import METHODS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/short_runs.json").read_text())
TRAINED = [name for name in METHODS.names() if METHODS.get(name).info.trains]
SCHEDULE = ("epochs", "scheduler", "step_size", "gamma", "selection")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["run_id"])
def test_short_runs_are_those_of_the_committed_two_epoch_records(golden):
    spec = golden["spec"]
    names = ("method", "dataset", "backbone", "world", "profile", "seed", "ablation")
    request = RunRequest(*(spec[name] for name in names), short=True)
    resolved = Resolver().resolved(request)
    training = resolved.training if spec["method"] in TRAINED else TrainingConfig(epochs=0)
    made = RunSpec.model_validate({**spec, "training": training, "method_config": resolved.method})
    assert made.run_id == golden["run_id"]


REFERENCE = {
    "coop": "8010b6b80d", "csp": "1a019f5316", "dfsp": "657b02b179",
    "msci": "5f25cdd750", "refiner_style": "60d83600a9", "troika": "5b66e2ae64",
}  # fmt: skip
"""Digests of the reference's runs, closed world, seed 0."""


@pytest.mark.parametrize("method", REFERENCE)
def test_the_presets_are_those_of_the_reference_runs(method):
    spec = next(own["spec"] for own in GOLDEN if own["spec"]["method"] == method and own["spec"]["world"] == "closed")
    resolved = Resolver().resolved(RunRequest(method, "icon_states", "tiny-icons", "closed", "clean", 0))
    made = {
        **spec,
        "training": resolved.training,
        "method_config": resolved.method,
        "profile": "clean",
        "ablation": None,
    }
    assert RunSpec.model_validate(made).run_id.endswith(f"-closed-clean-s0-{REFERENCE[method]}")


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_method_has_the_same_ceiling_and_schedule(name):
    """The budget rule of docs/protocol.md; a new method joins by it."""
    own, csp = (resolve(method, METHODS.get(method).Config, "icon_states").training for method in (name, "csp"))
    assert [getattr(own, key) for key in SCHEDULE] == [getattr(csp, key) for key in SCHEDULE]
    assert own.selection == "val_auc"


def run_of(method: str, *, short: bool, seed: int = 0, **changes: object) -> RunRecord:
    """A record with a preset's settings, as if it had been run."""
    request = RunRequest(method, "icon_states", "tiny-icons", "closed", "clean", seed, short=short)
    resolved = Resolver().resolved(request)
    training = {**resolved.training.model_dump(), **changes}
    return record(method, seed=seed, dataset="icon_states", training=training, method_config=resolved.method)


def test_a_run_is_short_by_its_values():
    for method in TRAINED:
        if budget_settings(method, "icon_states"):
            assert trained_short(run_of(method, short=True)) is True
            assert trained_short(run_of(method, short=False)) is False
            assert trained_short(run_of(method, short=True, epochs=77)) is None
    assert trained_short(record("csp", dataset="toy")) is None
    assert trained_short(record("clip_zero_shot", dataset="icon_states")) is None
    assert budget_settings("csp", "mit_states") == {} == budget_settings("no such method", "icon_states")
    assert budget_settings("msci", "icon_states")["epochs"] == (10, 2)
    assert budget_settings("msci", "icon_states@seen=0.3")["epochs"] == (10, 2)


def test_the_command_that_repeats_a_run_says_which_budget():
    assert " --short" in reproduce(run_of("msci", short=True))
    assert " --no-short" in reproduce(run_of("msci", short=False))
    assert "short" not in reproduce(record("csp", dataset="toy"))


def test_tables_say_epochs_and_that_short_rankings_are_no_rankings():
    short, long = ([run_of(method, short=flag) for method in ("csp", "msci", "troika")] for flag in (True, False))
    assert epochs_text(long) == "10 epochs; " and budget_notes(long) == []
    assert epochs_text(short) == "epochs: 2 (MSCI, Troika), 12 (CSP); "
    (note,) = budget_notes(short)
    assert "not the reference's" in note
    (other,) = budget_notes([run_of("csp", short=False, epochs=3), run_of("dfsp", short=False)])
    assert "differences of budget" in other
    zero = record("clip_zero_shot", dataset="icon_states", training={"epochs": 0})
    assert ceilings([zero]) == {} and epochs_text([zero]) == "" == "".join(budget_notes([zero]))


def test_only_quick_is_short_and_the_option_wins():
    suite = load_suite("quick")
    assert suite.title.startswith("Short") and all(run.short for run in expand(suite))
    assert not any(run.short for run in expand(suite.replace(short=False)))
    reference = load_suite("reference")
    assert not any(run.short for run in expand(reference))
    assert all(run.short for run in expand(reference.replace(short=True)))
