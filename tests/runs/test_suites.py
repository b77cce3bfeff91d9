"""Suites: what they ask for, in which order, and what happens with wrong names."""

import pytest

from benchmarks.runs.suites import RunRequest, Suite, expand, load_suite, suite_names
from errors import UserError
from registry import METHODS


def test_quick_is_its_methods_once_on_the_embedded_data_set():
    runs = expand(load_suite("quick"))
    assert [run.method for run in runs] == sorted({run.method for run in runs} & set(METHODS.names()))
    assert runs == [
        RunRequest(run.method, "icon_states", "tiny-icons", "closed", "clean", 0, short=True) for run in runs
    ]
    assert len(runs) == 7


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_have_titles_and_expand(name):
    suite = load_suite(name)
    assert suite.title
    assert expand(suite)


def test_expansion_has_every_combination_once_with_seeds_outermost():
    suite = Suite(methods=("csp", "clip_zero_shot", "csp"), worlds=("closed", "open"), seeds=(1, 0, 1))
    runs = expand(suite)
    assert len(runs) == len(set(runs)) == 8
    assert [run.seed for run in runs] == [1] * 4 + [0] * 4
    assert [run.method for run in runs[:2]] == ["csp", "clip_zero_shot"]


def test_the_word_all_works_in_a_list_too():
    assert expand(Suite(methods=("all",))) == expand(Suite(methods="all"))


def test_replacing_keeps_what_is_none_and_seed_zero_is_a_value():
    suite = Suite(seeds=(3,)).replace(methods=["csp"], seeds=[0], datasets=None)
    assert (suite.methods, suite.seeds, suite.datasets) == (("csp",), (0,), ("icon_states",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worlds": ["round"]}, "'closed' or 'open'"),
        ({"seeds": [-1]}, "'seeds'"),
        ({"seeds": []}, "'seeds'"),
        ({"methods": []}, "'methods'"),
        ({"method": ["csp"]}, "Did you mean 'methods'?"),
    ],
)
def test_wrong_values_are_user_errors(change, message):
    with pytest.raises(UserError) as caught:
        Suite().replace(**change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["methods", "datasets", "backbones"])
def test_unregistered_names_are_user_errors(key):
    with pytest.raises(UserError, match="is called 'nobody'"):
        expand(Suite().replace(**{key: ["nobody"]}))


def test_unlisted_open_clip_backbones_are_allowed():
    (run,) = expand(Suite(methods=("csp",), backbones=("ViT-B-32/laion2b_s34b_b79k",)))
    assert run.backbone == "ViT-B-32/laion2b_s34b_b79k"


def test_unknown_suite_names_the_nearest():
    with pytest.raises(UserError, match=r"No suite is called 'quik'\. The suites are .*Did you mean 'quick'\?"):
        load_suite("quik")


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed = [0]", "Did you mean 'seeds'"), ("seeds = 0", "suites/bad.toml"), ("seeds = [", "not valid TOML")],
)
def test_wrong_suite_files_are_named(tmp_path, text, message):
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "bad.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_suite("bad", folder)


def test_the_reference_suite_is_the_union_of_its_parts():
    runs = expand(load_suite("reference"))
    assert len(runs) == len(set(runs)) == 281
    full = [run for run in runs if run.ablation is None]
    assert [sum(run.profile == profile for run in full) for profile in ("clean", "official")] == [100, 6]
    assert {run.method for run in runs if run.ablation} == {"msci", "troika", "dfsp", "refiner_style", "vp_cmjl"}
    assert {run.world for run in runs if run.ablation or run.profile == "official"} == {"closed"}


def test_parts_of_a_suite_are_narrowed():
    suite = load_suite("reference")
    csp = expand(suite.replace(methods=("csp",), seeds=(0,)))
    assert [(run.world, run.profile, run.ablation) for run in csp] == [
        ("closed", "clean", None),
        ("open", "clean", None),
    ]
    assert not suite.replace(worlds=("open",)).also
    official = suite.replace(methods=("troika", "coop"), profile="official", worlds=("closed",))
    assert [(run.method, run.seed) for run in expand(official)][:2] == [("troika", 0), ("coop", 0)]
    assert [part.methods for part in official.also] == [("troika",)]
    assert len(suite.replace(ablations="none").also) == 5
