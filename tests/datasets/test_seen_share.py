"""Fewer seen pairs: nested shares, the same test as long as that can be, and everything else as it was."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from own_photos import photos

from benchmarks.runs.asked import asked_of
from benchmarks.runs.resolution import resolve
from benchmarks.runs.suites import expand, load_suite
from datasets.icons.plan import plan_pairs
from datasets.own.folder import load as load_own
from datasets.seen_mark import base_of
from datasets.seen_share import cover_size, load, seen_order, share_of, with_share
from errors import UserError
from methods.csp import CSPConfig
from registry import DATASETS


def pairs_of(dataset, phase: str) -> set[tuple[str, str]]:
    split, words = dataset.splits[phase], dataset.vocabulary
    return {(words.states[s], words.objects[o]) for s, o in zip(split.states, split.objects, strict=True)}


def test_shares_are_nested_and_keep_every_word(toy):
    unseen = (set(toy.val_pairs) | set(toy.test_pairs)) - set(toy.train_pairs)
    before: set[tuple[str, str]] = set()
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        made = with_share(toy, share)
        kept = set(made.train_pairs)
        assert len(kept) == round(share * 16) and before <= kept < set(toy.train_pairs)
        assert list(made.train_pairs) == [pair for pair in toy.train_pairs if pair in kept], "in the order of the file"
        assert {state for state, _ in kept} == set(toy.vocabulary.states) and made.vocabulary is toy.vocabulary
        assert {obj for _, obj in kept} == set(toy.vocabulary.objects)
        assert pairs_of(made, "train") == kept
        for phase, lists in (("val", made.val_pairs), ("test", made.test_pairs)):
            whole = toy.splits[phase]
            assert pairs_of(made, phase) == set(lists)
            assert set(lists) & unseen == pairs_of(toy, phase) & unseen, "unseen pairs are the same at every share"
            keep = np.isin(whole.images, made.splits[phase].images)
            assert made.splits[phase].slices["kind"].tolist() == whole.slices["kind"][keep].tolist()
        assert not set(made.candidates("test").names()) & (set(toy.train_pairs) - kept)
        before = kept
    digests = {with_share(toy, share).digest for share in (0.3, 0.5, 0.7)}
    assert len(digests) == 3 and with_share(toy, 0.5).digest in digests and toy.digest not in digests
    assert with_share(toy, 0.75) is toy, "the share that it has itself"


def test_the_test_of_icon_states_stays_whole_at_every_share_of_the_suite():
    plan = plan_pairs()
    lists = SimpleNamespace(train_pairs=plan.train, val_pairs=plan.val, test_pairs=plan.test)
    order = seen_order(lists)
    assert sorted(order) == sorted(plan.train) and cover_size(lists) == 56
    tested = set(plan.test) & set(plan.train)
    assert len(plan.train) == 350 and len({*plan.train, *plan.val, *plan.test}) == 500
    for share in load_suite("scaling").seen_shares:
        kept = order[: round(500 * share)]
        assert tested <= set(kept) and len(set(kept) & set(plan.val)) >= 10


def test_a_share_that_cannot_be_is_refused_with_what_can(toy):
    needed = "4 are needed to show every state and object, 0.25"
    for share, words in ((0.9, "12 are seen, a share of 0.75"), (0.1, needed)):
        with pytest.raises(UserError, match=words):
            with_share(toy, share)
    for name in ("icon_states@seen=1", "icon_states@seen=half", "icon_states@seen=-0.1", "icon_states@seen=nan"):
        with pytest.raises(UserError, match="is no share of seen pairs"):
            load(name)
    with pytest.raises(UserError, match="No data set is called 'icons'"):
        load("icons@seen=0.3")
    with pytest.raises(UserError, match="asks for a share of a share"):
        load("icon_states@seen=0.6@seen=0.6")


def test_the_mark_in_a_folders_name_is_no_share(tmp_path):
    folder = photos(tmp_path / "x@seen=0.5/photos", images=4)
    assert DATASETS.get(str(folder))().name == load_own(str(folder)).name
    assert base_of(f"{folder}@seen=0.6") == str(folder)


def test_own_images_have_shares_too(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", images=4)
    whole = load_own(str(folder))
    name = f"{folder}@seen=0.6"
    made = DATASETS.get(name)()
    assert made.name == "folder:photos@seen=0.6" and len(made.train_pairs) == 5 < len(whole.train_pairs)
    monkeypatch.chdir(tmp_path)
    planned = SimpleNamespace(dataset="photos@seen=0.6", backbone="tiny-icons", feasibility="none", checkpoint=None)
    assert asked_of(planned, 0, ()).dataset == name


def test_names_and_presets():
    assert base_of("a/b.csv@seen=0.25") == "a/b.csv" and share_of("a@seen=0.25") == 0.25 and share_of("a") is None
    plain, shared = (resolve("csp", CSPConfig, name) for name in ("icon_states", "icon_states@seen=0.3"))
    assert plain == shared and plain != resolve("csp", CSPConfig, "mit_states")


def test_the_suite_asks_for_each_share():
    requests = expand(load_suite("scaling").replace(methods=["csp"], seeds=[0]))
    assert [request.dataset for request in requests] == [
        "icon_states", *(f"icon_states@seen={share}" for share in (0.55, 0.45, 0.35, 0.27))
    ]  # fmt: skip
    own = expand(load_suite("scaling").replace(methods=["csp"], seeds=[0], datasets=["photos/x.csv"]))
    assert own[-1].dataset == "photos/x.csv@seen=0.27"
