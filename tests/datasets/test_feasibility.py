"""Feasibility: the definition against a slow one, word vectors from files, and the released tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import word_vectors
from datasets.base import CompositionDataset, Vocabulary
from datasets.feasibility import (
    SHIPPED,
    feasibility_scores,
    from_glove,
    load_shipped,
    shipped,
    shipped_names,
    table_digest,
)
from datasets.feasibility_table import from_table
from datasets.word_vectors import RENAMED, label_vectors, read_vectors, words_of
from errors import UserError


def slow_scores(state_vectors: np.ndarray, object_vectors: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The definition, pair by pair."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    scores = np.zeros(seen.shape)
    states, objects = range(len(state_vectors)), range(len(object_vectors))
    for state in states:
        for obj in objects:
            if seen[state, obj]:
                continue
            by_object, by_state = -1.0, -1.0
            for other in objects:
                if other != obj and seen[state, other]:
                    by_object = max(by_object, cosine(object_vectors[obj], object_vectors[other]))
            for other in states:
                if other != state and seen[other, obj]:
                    by_state = max(by_state, cosine(state_vectors[state], state_vectors[other]))
            scores[state, obj] = (by_object + by_state) / 2
    return scores


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_scores_follow_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, objects = rng.integers(1, 8, 2)
    seen = rng.random((states, objects)) < rng.choice([0.0, 0.1, 0.4, 1.0])
    vectors = rng.normal(size=(states, 3)) + 0.5, 10 * rng.normal(size=(objects, 4))
    scores = feasibility_scores(*vectors, seen)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, slow_scores(*vectors, seen), atol=1e-7)


def test_words_without_partners_score_minus_one_and_seen_pairs_zero() -> None:
    seen = np.array([[True, False, False], [False, False, False]])
    scores = feasibility_scores(np.eye(2), np.eye(3), seen)
    # (0, 1): its state is known of object 0, cosine 0, its object in no state. (1, 1): neither is known.
    np.testing.assert_array_equal(scores, np.float32([[0, -0.5, -0.5], [-0.5, -1, -1]]))


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones((3, 3)), np.ones(2)])
def test_bad_vectors_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="word vector"):
        feasibility_scores(bad, np.eye(3), np.ones((2, 3), dtype=bool))


# Word vectors


def test_words_of_the_labels_of_ut_zappos_are_in_glove() -> None:
    states, objects, _, _ = load_shipped("ut_zappos")
    words = {label: words_of(label) for label in [*states, *objects]}
    assert words["Faux.Fur"] == ("fake", "fur")
    assert words["Full.grain.leather"] == ("thick", "leather")
    assert words["Boots.Knee.High"] == ("knee", "high", "boots")
    assert words["Shoes.Sneakers.and.Athletic.Shoes"] == ("sneakers",)
    assert words["Sandals"] == ("sandals",)
    used = {label.lower() for label in words} & set(RENAMED)
    assert used == set(RENAMED), "an entry of the table is for no label"
    assert all(part.isalpha() for parts in words.values() for part in parts)


def vectors_file(folder: Path, lines: list[str], name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_several_words_are_averaged(tmp_path: Path) -> None:
    path = vectors_file(tmp_path, ["fake 1 0", "the 9 9", "fur 0 3", "suede 2 2", "fur 7 7"])
    np.testing.assert_array_equal(label_vectors(path, ["Suede", "Faux.Fur"]), np.float32([[2, 2], [0.5, 1.5]]))


def test_a_fasttext_head_and_odd_words_are_skipped(tmp_path: Path) -> None:
    path = vectors_file(tmp_path, ["2 3", "\u00e9t\u00e9 1 2 3", ". . . 1 2 3", "2 4 5 6"])
    found = read_vectors(path, {"2", "\u00e9t\u00e9", "no"})
    assert {word: vector.tolist() for word, vector in found.items()} == {"\u00e9t\u00e9": [1, 2, 3], "2": [4, 5, 6]}


def test_missing_words_are_all_listed(tmp_path: Path) -> None:
    path = vectors_file(tmp_path, ["fake 1 0", "dog 0 1"])
    with pytest.raises(UserError) as caught:
        label_vectors(path, ["Faux.Fur", "dog", "blimp", "..."])
    assert caught.value.asked.startswith("3 words have no vector in ")
    assert caught.value.there == "They are blimp, fur, the label '...'."


@pytest.mark.parametrize("line", ["dog 1 2", "dog ", "dog 1 2 x", "dog 1 2 nan"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = vectors_file(tmp_path, ["cat 1 2 3", line])
    with pytest.raises(UserError, match=r"Line 2, of the word 'dog', is not a vector"):
        read_vectors(path, {"cat", "dog"})


def test_a_missing_file_says_where_it_is_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No such file.*glove\.6B\.zip"):
        read_vectors(tmp_path / "none.txt", {"dog"})


def dataset_of(states, objects, seen, val=(), test=(), name: str = "made") -> CompositionDataset:
    """A data set without images: `val` and `test` are columns of unseen pairs, state-major."""

    def named(columns) -> tuple[tuple[str, str], ...]:
        return tuple((states[column // len(objects)], objects[column % len(objects)]) for column in columns)

    train, val, test = map(named, (np.flatnonzero(seen), val, test))
    vocabulary = Vocabulary(tuple(states), tuple(objects))
    return CompositionDataset(name, name, Path(), vocabulary, train, val, test, {}, digest="made")


def small_dataset() -> CompositionDataset:
    return dataset_of(("old", "wet"), ("cat", "dog"), np.array([[True, False], [False, True]]))


def test_scores_from_a_file_are_kept_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))
    lines = ["old 1 0", "wet 1 1", "cat 0 1", "dog 1 2"]
    path, data = vectors_file(tmp_path, lines), small_dataset()
    table = from_glove(data, path)
    vectors = np.array([[1, 0], [1, 1]]), np.array([[0, 1], [1, 2]])
    np.testing.assert_array_equal(table.scores, feasibility_scores(*vectors, data.seen))
    assert table.scores[0, 1] == pytest.approx((2 / 5**0.5 + 0.5**0.5) / 2)
    assert table.path.parent == tmp_path / "home" / "feasibility"
    assert [item.name for item in table.path.parent.iterdir()] == [table.path.name], "a temporary file was left"

    monkeypatch.setattr(word_vectors, "read_vectors", lambda *_: pytest.fail("the words were read again"))
    again = from_glove(data, vectors_file(tmp_path, lines, "the same under another name.txt"))
    assert again.path == table.path and again.digest == table.digest
    monkeypatch.undo()
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))

    table.path.write_bytes(table.path.read_bytes()[:100])  # damaged: made anew
    assert from_glove(data, path).digest == table.digest
    other = from_glove(data, vectors_file(tmp_path, ["old 2 1", *lines[1:]], "other.txt"))
    assert other.path != table.path and other.digest != table.digest


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="CZSL_HOME"):
        from_glove(small_dataset(), vectors_file(tmp_path, ["old 1 0", "wet 1 1", "cat 0 1", "dog 1 2"]))


def test_open_world_candidates_carry_the_scores() -> None:
    data = small_dataset()
    assert data.candidates("test", "open").feasibility is None
    scores = np.float32([[0, 0.25], [0.5, 0]])
    data = replace(data, feasibility=scores)
    assert data.candidates("val", "open").feasibility.tolist() == [0, 0.25, 0.5, 0]
    assert data.candidates("val", "open").subset(np.array([2, 0])).feasibility.tolist() == [0.5, 0]
    assert data.candidates("val", "closed").feasibility is None


# The released tables


def test_the_released_tables_are_whole_and_small() -> None:
    assert shipped_names() == ["cgqa", "mit_states", "ut_zappos"]
    sizes = {"cgqa": (413, 674, 5592), "mit_states": (115, 245, 1262), "ut_zappos": (16, 12, 83)}
    for name, (states, objects, train) in sizes.items():
        found_states, found_objects, seen, scores = load_shipped(name)
        assert (len(found_states), len(found_objects), seen.sum()) == (states, objects, train)
        assert (list(found_states), list(found_objects)) == (sorted(found_states), sorted(found_objects))
        assert (scores.dtype, scores.shape) == (np.float32, seen.shape)
        assert (scores[seen] == 0).all() and (scores[~seen] != 0).all() and (np.abs(scores) < 1).all()
    assert sum(path.stat().st_size for path in SHIPPED.glob("*")) < 1_200_000


@pytest.mark.parametrize("name", ["cgqa", "mit_states", "ut_zappos"])
def test_a_released_table_belongs_to_the_same_words_and_training_pairs(name: str) -> None:
    states, objects, seen, scores = load_shipped(name)
    table = shipped(dataset_of(states, objects, seen, name="under any name"))
    assert table.source == "shipped"
    np.testing.assert_array_equal(table.scores, scores)
    other = seen.copy()
    other[tuple(np.argwhere(~seen)[0])] = True
    assert shipped(dataset_of(states, objects, other)) is None
    assert shipped(dataset_of(("A", *states[1:]), objects, seen)) is None


def test_the_table_of_cgqa_has_the_form_of_the_definition() -> None:
    """f is a sum of a part of (partners of the state, object) and one of (partners of the object, state).

    So states of one set of partners and objects of one set of partners form blocks whose rows differ by constants. It
    takes another definition, or a table of other training pairs, to break that.
    """
    _, _, seen, scores = load_shipped("cgqa")
    by_partners: list[dict[bytes, list[int]]] = [defaultdict(list), defaultdict(list)]
    for groups, table in zip(by_partners, (seen, seen.T), strict=True):
        for index, row in enumerate(table):
            groups[row.tobytes()].append(index)
    cells, spread = 0, 0.0
    for states in by_partners[0].values():
        for objects in by_partners[1].values():
            if min(len(states), len(objects)) < 2 or seen[np.ix_(states, objects)].any():
                continue
            block = scores[np.ix_(states, objects)].astype(np.float64)
            rows_apart = block - block[:1]
            assert np.ptp(rows_apart, axis=1).max() < 1.5e-7
            cells, spread = cells + block.size, max(spread, float(np.ptp(block)))
    assert cells > 2000 and spread > 0.3, "the blocks show nothing"


def test_swapped_partners_are_at_least_as_feasible_in_the_table_of_cgqa() -> None:
    """Where a is known of o' alone and o in a' alone, f(a, o) averages cos(o, o') and cos(a, a').

    For the pair (a', o') these two are among what the maxima are taken over: it cannot score less.
    """
    _, _, seen, scores = load_shipped("cgqa")
    alone_states, alone_objects = np.flatnonzero(seen.sum(axis=1) == 1), np.flatnonzero(seen.sum(axis=0) == 1)
    states, objects = map(np.ravel, np.meshgrid(alone_states, alone_objects, indexing="ij"))
    partner_objects, partner_states = seen[states].argmax(axis=1), seen[:, objects].argmax(axis=0)
    both_unseen = ~seen[states, objects] & ~seen[partner_states, partner_objects]
    gain = (scores[partner_states, partner_objects] - scores[states, objects])[both_unseen]
    assert len(gain) > 4000
    assert gain.min() >= -1e-7


TABLE = ["state,object,score", "old,dog,0.25", "wet,cat,-1e-3"]


def table_file(folder: Path, lines: list[str], name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_gives_the_scores_of_unseen_pairs_in_any_order_and_form(tmp_path: Path) -> None:
    data = small_dataset()
    wanted = np.array([[0, 0.25], [-1e-3, 0]], np.float32)
    forms = {
        "a.csv": TABLE,
        "b.tsv": ["\ufeffscore\tnote\tobject\tstate", "-1e-3\tx\tcat\twet", "0.25\t\tdog\told"],
        "c.csv": [*TABLE, "old,cat,7"],
    }
    for name, lines in forms.items():
        found = from_table(data, table_file(tmp_path, lines, name))
        assert np.array_equal(found.scores, wanted), "a seen pair holds 0"
        assert (found.source, found.digest) == ("table", table_digest(wanted))


TABLE_ERRORS = {
    "a pair is missing": (TABLE[:2], "1 unseen pair has no score in"),
    "a pair is doubled": ([*TABLE, TABLE[1]], "The pair 'old dog' is twice in"),
    "an unknown state": (
        [*TABLE, "odl,dog,1"],
        "has the state 'odl'. made has 2 states, and this is none of them. Did",
    ),
    "an unknown object": ([*TABLE, "old,fish,1"], "Line 4 of"),
    "no number": ([*TABLE[:2], "wet,cat,high"], "Line 3 of"),
    "no finite number": ([*TABLE[:2], "wet,cat,nan"], "has the score 'nan'. It is no finite number."),
    "beyond single precision": ([*TABLE[:2], "wet,cat,1e300"], "It is no finite number."),
    "a short line": ([*TABLE, "old"], "is too short. It lacks a column."),
    "no column": (
        ["state,object,value", *TABLE[1:]],
        "column 'score'. Its first line has state, object, value.",
    ),
    "a column twice": (["state,object,score,score", *TABLE[1:]], "have several columns 'score'."),
    "nothing": ([], "Its first line has nothing."),
}


@pytest.mark.parametrize("case", TABLE_ERRORS)
def test_a_table_that_does_not_fit_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    lines, message = TABLE_ERRORS[case]
    with pytest.raises(UserError) as refusal:
        from_table(small_dataset(), table_file(tmp_path, lines))
    assert message in str(refusal.value)
