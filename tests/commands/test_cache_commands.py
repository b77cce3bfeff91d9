"""The feature cache as a user meets it: filled by runs, listed, checked and cleared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from in_process import here
from test_bench import plugin as plugin  # the toy data set of the command line's own tests
from test_bench import results_of

RUN = ("run", "--methods", "csp", "clip_zero_shot", "--dataset", "toy", "--epochs", "2")


def environment_of(results: Path, method: str) -> tuple[dict, dict]:
    folder = next(results.glob(f"{method}-*"))
    cost = json.loads((folder / "result.json").read_text())["cost"]
    return cost, json.loads((folder / "spec.json").read_text())["starts"][-1]["environment"]


@pytest.fixture(scope="module")
def filled(plugin, tmp_path_factory) -> tuple[dict, Path]:
    """A cache that two runs have filled, and their records."""
    home, results = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("results")
    environment = {"CZSL_HOME": str(home)}
    here(*RUN, "--set", "augmentation=none", "--results", results, "--plugin", plugin, env=environment)
    return environment, results


@pytest.fixture
def own(filled, tmp_path_factory) -> tuple[dict, Path]:
    """The same, in a copy: a test may change the cache, whichever tests are done before it."""
    home = tmp_path_factory.mktemp("own") / "home"
    shutil.copytree(filled[0]["CZSL_HOME"], home)
    return {"CZSL_HOME": str(home)}, filled[1]


def test_a_run_says_whether_it_read_the_cache_and_without_it_has_the_same_numbers(own, plugin, tmp_path):
    environment, results = own
    cost, made_with = environment_of(results, "csp")
    assert cost["feature_cache"] == ["train", "val", "test"] and cost["feature_seconds"] > 0
    assert made_with["feature_cache"] is True
    arguments = (*RUN, "--set", "augmentation=none", "--results", tmp_path, "--plugin", plugin, "--no-feature-cache")
    here(*arguments, env=environment)
    cost, made_with = environment_of(tmp_path, "csp")
    assert cost["feature_cache"] == [] and made_with["feature_cache"] is False
    mine, other = results_of(results), results_of(tmp_path)
    assert mine.keys() == other.keys(), "the cache is not part of a run's identity"
    for name, result in mine.items():
        for phase in ("val", "test"):
            assert result["metrics"][phase]["auc"] == pytest.approx(other[name]["metrics"][phase]["auc"], abs=1e-6)


def test_list_says_what_belongs_to_what(filled):
    shown = here("cache", "list", env=filled[0]).stdout
    assert shown.count("GlobalImageFeature") == 3, "two methods share three phases"
    for phase in ("train", "val", "test"):
        assert f"toy-{phase}-tiny-icons-" in shown
    assert "whole, last used 20" in shown and "3 folders" in shown


def test_check_names_a_damaged_shard_and_a_run_repairs_it(own, plugin, tmp_path):
    environment, _ = own
    assert "3 folders" in here("cache", "check", env=environment).stdout
    shard = next(Path(environment["CZSL_HOME"]).glob("features/toy-test-*/shard-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = here("cache", "check", "toy", env=environment, check=False)
    assert done.returncode == 1 and f"{shard.parent.name}/{shard.name} does not have the digest" in done.stdout
    arguments = ("run", "--methods", "clip_zero_shot", "--dataset", "toy", "--results", tmp_path, "--plugin", plugin)
    done = here(*arguments, env=environment)
    assert f"{shard.name} does not have the digest" in done.stderr.replace("\n", "")
    assert "no problems" in here("cache", "check", env=environment).stdout


def test_views_are_another_run_and_are_kept(own, plugin, tmp_path):
    arguments = ("run", "--methods", "csp", "--dataset", "toy", "--epochs", "3", "--views", "2")
    here(*arguments, "--results", tmp_path, "--plugin", plugin, env=own[0])
    cost, _ = environment_of(tmp_path, "csp")
    assert cost["feature_cache"] == ["train", "val", "test"]
    specification = json.loads(next(tmp_path.glob("csp-*/spec.json")).read_text())
    assert specification["spec"]["training"]["views"] == 2
    assert "augmented view 1 of seed 0" in here("cache", "list", env=own[0]).stdout
    refused = here(*arguments, "--set", "augmentation=none", "--plugin", plugin, env=own[0], check=False)
    assert refused.returncode == 2 and "one view only" in refused.stderr.replace("\n", " ")


def test_clear_asks_deletes_what_was_named_and_leaves_the_rest(own):
    environment, _ = own
    home = Path(environment["CZSL_HOME"])
    name = next(home.glob("features/toy-val-*")).name
    done = here("cache", "clear", name, env=environment, check=False)
    assert done.returncode == 2 and "Pass --yes" in done.stderr
    assert "1 folder" in here("cache", "clear", name, "--yes", env=environment).stdout
    assert name not in here("cache", "list", env=environment).stdout
    done = here("cache", "clear", "toi", "--yes", env=environment, check=False)
    assert done.returncode == 2 and "Did you mean 'toy'" in done.stderr
    here("cache", "clear", "--yes", env=environment)
    assert "There are no image features" in here("cache", "list", env=environment).stdout.replace("\n", " ")
    assert "nothing to delete" in here("cache", "clear", env=environment).stdout
