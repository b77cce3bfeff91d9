"""The published layout: what is read, at real label scale too, and what is said of everything wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_layouts import BLANK_LISTS, REAL, add_line, pair_file, reader, rewrite, small, small_vaw, unmark

from datasets.base import PHASES, clean_label
from datasets.feasibility import load_shipped
from datasets.layout import assemble, judge, read_layout, read_pairs
from datasets.metadata import SPLIT, STEM, read_metadata
from datasets.miniature import make
from datasets.published import shipped_lists
from errors import UserError

# Candidates of val, test and the open world; training pairs per state and per object (least, median, most): protocol.
FACTS = {
    "mit_states": ((1562, 1662, 28_175), (1, 10, 40), (2, 5, 9)),
    "ut_zappos": ((98, 101, 192), (2, 6, 10), (2, 8, 10)),
    "cgqa": ((6844, 6515, 278_362), (1, 4, 282), (1, 5, 68)),
}


@pytest.fixture(scope="module", params=REAL)
def full(request, tmp_path_factory):
    """A data set with every real pair and as many images as are published, without the pictures; and what was read."""
    folder = make(request.param, tmp_path_factory.mktemp("full"), None, images="published", pictures=False)
    unmark(folder)
    published = reader(request.param).published
    layout = read_layout(published, folder)
    return assemble(layout, published), layout


def test_at_real_label_scale_every_size_is_the_published_one(full):
    dataset, layout = full
    published = reader(dataset.name).published
    assert {key: layout.counts()[key] for key in published.counts()} == published.counts()
    assert judge(layout, published) == []
    assert dataset.notes == ()
    assert {phase: len(split) for phase, split in dataset.splits.items()} == {
        phase: getattr(published, phase).images for phase in PHASES
    }


def test_at_real_label_scale_candidates_and_seen_pairs_are_those_of_the_protocol(full):
    dataset, _ = full
    (val, test, world), per_state, per_object = FACTS[dataset.name]
    sizes = [len(dataset.candidates(phase)) for phase in PHASES]
    assert sizes == [len(dataset.train_pairs), val, test]
    assert len(dataset.candidates("test", "open")) == world
    states, objects, seen, _ = load_shipped(dataset.name)
    assert (dataset.vocabulary.states, dataset.vocabulary.objects) == (states, objects)
    assert np.array_equal(dataset.seen, seen), "the training pairs are those of the released feasibility table"
    for counts, expected in ((seen.sum(1), per_state), (seen.sum(0), per_object)):
        assert (counts.min(), np.sort(counts)[len(counts) // 2], counts.max()) == expected


def test_at_real_label_scale_unseen_pairs_are_in_one_phase_and_made_of_trained_words(full):
    dataset, _ = full
    train, val, test = (set(pairs) for pairs in (dataset.train_pairs, dataset.val_pairs, dataset.test_pairs))
    assert not (val & test) - train
    assert len(val & test) == (354 if dataset.name == "cgqa" else 0)
    for place in (0, 1):
        assert {pair[place] for pair in val | test} <= {pair[place] for pair in train}


def test_at_real_label_scale_indices_and_frequencies_equal_a_slow_count(full):
    dataset, layout = full
    states, objects = dataset.vocabulary.states, dataset.vocabulary.objects
    labels = {}
    for phase, split in dataset.splits.items():
        labels[phase] = [(states[s], objects[o]) for s, o in zip(split.states, split.objects, strict=True)]
        own = [entry for entry in layout.entries if entry.phase == phase]
        assert (split.images, labels[phase]) == (tuple(e.image for e in own), [e.pair for e in own])
    by_pair = Counter(labels["train"])
    by_state, by_object = (Counter(pair[place] for pair in labels["train"]) for place in (0, 1))

    def named(count: int, bins: dict[int, str], above: str) -> str:
        return next((name for most, name in bins.items() if count <= most), above)

    pairs = {0: "0", 1: "1", 5: "2-5", 20: "6-20"}
    rarer = {9: "0-9", 99: "10-99", 999: "100-999"}
    expected = [named(by_pair[pair], pairs, ">=21") for pair in labels["test"]]
    tags = dataset.splits["test"].slices
    assert tags["training images of the pair"].tolist() == expected
    expected = [named(min(by_state[s], by_object[o]), rarer, ">=1000") for s, o in labels["test"]]
    assert tags["training images of the rarer primitive"].tolist() == expected


def test_words_that_are_a_state_and_an_object_are_kept_apart():
    lists = shipped_lists("cgqa")
    assert lists is not None
    pairs = {pair for phase in PHASES for pair in lists[phase]}
    both = {state for state, _ in pairs} & {obj for _, obj in pairs}
    words = "banana baseball chocolate computer orange park railroad snow strawberry street toilet tomato trash wool"
    assert sorted(both) == words.split()
    assert len({pair for pair in pairs if pair[0] == pair[1]}) == 8


@pytest.mark.parametrize("name", REAL)
def test_miniatures_are_read_with_real_words_in_code_point_order(name, tmp_path):
    dataset = reader(name)(small(name, tmp_path))
    lists = shipped_lists(name)
    assert set(dataset.train_pairs) <= set(lists["train"])
    assert set(dataset.vocabulary.states) <= {state for state, _ in lists["train"]}
    assert list(dataset.vocabulary.states) == sorted(dataset.vocabulary.states)
    assert [int((~dataset.candidates(phase).seen).sum()) for phase in PHASES] == [0, 4, 4]
    assert "is a made miniature: its numbers say nothing" in dataset.notes[0]


def test_training_pairs_stay_in_file_order(tmp_path):
    folder = small("mit_states", tmp_path)
    lines = pair_file(folder, "train").read_text().splitlines()[::-1]
    pair_file(folder, "train").write_text("\n".join(lines))
    dataset = reader("mit_states")(folder)
    assert [" ".join(pair) for pair in dataset.train_pairs] == lines
    assert dataset.candidates("train").names() == list(dataset.train_pairs)


def test_carriage_returns_and_a_byte_order_mark_change_nothing(tmp_path):
    folder = small("cgqa", tmp_path)
    before = reader("cgqa")(folder)
    for phase in PHASES:
        content = pair_file(folder, phase).read_bytes()
        pair_file(folder, phase).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert reader("cgqa")(folder).digest == before.digest


def test_labels_with_dots_are_identifiers_and_prompts_spell_them_out(tmp_path):
    dataset = reader("ut_zappos")(small("ut_zappos", tmp_path, pairs=None, images={"train": 1, "val": 1, "test": 1}))
    assert "Faux.Fur" in dataset.vocabulary.states
    assert clean_label("Shoes.Sneakers.and.Athletic.Shoes") == "shoes sneakers and athletic shoes"
    assert any(name.startswith("Faux.Fur_Boots.Mid-Calf/") for name in dataset.splits["val"].images)


def test_a_plus_between_words_that_hold_blanks(tmp_path):
    folder = small_vaw(tmp_path)
    assert "light blue+tea pot\n" in pair_file(folder, "train").read_text()
    dataset = reader("vaw_czsl")(folder)
    assert dataset.train_pairs == BLANK_LISTS["train"]
    assert dataset.vocabulary.states == ("light blue", "orange", "worn out")
    assert dataset.vocabulary.objects == ("orange", "shirt", "tea pot")
    unmark(folder)
    (note,) = reader("vaw_czsl")(folder).notes
    assert "usually printed (not compared with the files so far) size" in note, "recalled sizes refuse nothing"


def test_entries_of_no_state_or_no_split_are_not_used(tmp_path):
    folder = small("mit_states", tmp_path)
    raw = read_metadata(folder / f"{STEM}.t7")
    assert {row["attr"] for row in raw if row["image"].startswith("adj_")} == {"NA"}
    layout = read_layout(reader("mit_states").published, folder)
    assert layout.not_used == 2
    assert len(layout.entries) == len(raw) - 2
    sizes = {phase: len(split) for phase, split in reader("mit_states")(folder).splits.items()}
    assert sizes == Counter(row["set"] for row in raw if "NA" not in (row["attr"], row["set"]))


def test_images_of_a_pair_in_no_list_are_passed_over_and_said(tmp_path):
    folder = small("ut_zappos", tmp_path)
    unmark(folder)
    row = {"image": "x.jpg", "attr": "Denim", "obj": "Sandals", "set": "val"}
    rewrite(folder, lambda rows: [*rows, row])
    about = replace(reader("ut_zappos").published, certain=False)
    (size, passed) = replace(reader("ut_zappos"), published=about)(folder).notes
    assert "its numbers are not comparable with print" in size
    assert "1 image of pairs that no list has, passed over" in passed and "'Denim Sandals'" in passed


def test_the_digest_follows_what_changes_numbers(tmp_path):
    folder = small("cgqa", tmp_path)
    digests = {reader("cgqa")(folder).digest}
    rewrite(folder, lambda rows: rows[::-1])
    digests.add(reader("cgqa")(folder).digest)
    rewrite(folder, lambda rows: rows[:-1])
    digests.add(reader("cgqa")(folder).digest)
    lines = pair_file(folder, "train").read_text().splitlines()
    pair_file(folder, "train").write_text("\n".join(lines[1:] + lines[:1]))
    digests.add(reader("cgqa")(folder).digest)
    assert len(digests) == 4


def test_the_folder_is_looked_for_under_every_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    small("ut_zappos", tmp_path).rename(tmp_path / "ut-zap50k")
    assert reader("ut_zappos")().root == tmp_path / "ut-zap50k"


def test_data_that_is_not_there_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        reader("ut_zappos")()
    for text in ("has no folder ut-zappos or ut-zap50k", "'python bench.py data fetch ut_zappos'", str(tmp_path), STEM):
        assert text in str(caught.value)


def test_without_a_place_of_its_own_data_lies_in_the_cache(own_cache, monkeypatch):
    monkeypatch.delenv("CZSL_DATA", raising=False)
    with pytest.raises(UserError, match=f"{own_cache}/data has no folder cgqa"):
        reader("cgqa")()


@pytest.mark.parametrize(
    ("text", "separator", "message"),
    [
        ("wet cat\nwet\n", None, r"Line 2 of .* is not a pair: 'wet'\. A line is a state and an object with blanks"),
        ("wet cat\nvery wet dog\n", None, "Line 2 of .* is not a pair: 'very wet dog'"),
        ("wet cat\n", "+", r"Line 1 of .* is not a pair: 'wet cat'\. A line is a state and an object with '\+'"),
        ("wet+\n", "+", "Line 1 of .* is not a pair"),
        ("wet cat\n\nold cat\nwet  cat\n", None, r"The pair 'wet cat' is twice in .*\. Lines 1 and 4 hold it"),
        ("\n \n", None, "is empty"),
    ],
)
def test_a_pair_list_that_is_none(tmp_path, text, separator, message):
    (tmp_path / "val_pairs.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_pairs(tmp_path / "val_pairs.txt", separator)


def without(phase: str):
    return lambda rows: [row for row in rows if row["set"] != phase]


def moved(rows: list[dict]) -> None:
    """Put an image of an unseen val pair into training."""
    train = {(row["attr"], row["obj"]) for row in rows if row["set"] == "train"}
    next(r for r in rows if r["set"] == "val" and (r["attr"], r["obj"]) not in train)["set"] = "train"


def swapped(rows: list[dict]) -> None:
    """Put an image of an unseen test pair into validation."""
    train = {(row["attr"], row["obj"]) for row in rows if row["set"] == "train"}
    next(r for r in rows if r["set"] == "test" and (r["attr"], r["obj"]) not in train)["set"] = "val"


SPOILT = {
    "unknown_state": (
        lambda folder: add_line(folder, "test", "ancientt building"),
        [
            "The state 'ancientt' of the pair 'ancientt building' in test_pairs.txt is unknown",
            "Did you mean 'ancient'?",
        ],
    ),
    "unknown_object": (
        lambda folder: add_line(folder, "train", "ancient bilding"),
        ["The object 'bilding' of the pair 'ancient bilding' in train_pairs.txt is unknown", "'building'"],
    ),
    "never_trained": (
        lambda folder: pair_file(folder, "train").write_text(
            "".join(
                line
                for line in pair_file(folder, "train").read_text().splitlines(keepends=True)
                if not line.startswith(pair_file(folder, "val").read_text().split()[0] + " ")
            )
        ),
        ["in val_pairs.txt is never trained", "no method could know it"],
    ),
    "list_gone": (
        lambda folder: pair_file(folder, "val").unlink(),
        ["The file val_pairs.txt is missing. It should lie in"],
    ),
    "list_not_text": (
        lambda folder: pair_file(folder, "val").write_bytes(b"caf\xe9 table\n"),
        ["val_pairs.txt cannot be read. The reason: it is not UTF-8 text."],
    ),
    "unseen_trained": (
        lambda folder: rewrite(folder, moved),
        ["1 train image of", "unseen, yet it has training images"],
    ),
    "no_candidate": (lambda folder: rewrite(folder, swapped), ["1 val image of", "nor in val_pairs.txt"]),
    "no_images": (lambda folder: rewrite(folder, without("test")), ["The data set mit_states has no test image."]),
    "other_sizes": (
        unmark,
        ["are not those of MIT-States", "train pairs 24 instead of 1,262", "val pairs seen 4 instead of 300"],
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_wrong_is_named(case, tmp_path):
    spoil, texts = SPOILT[case]
    folder = small("mit_states", tmp_path)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        reader("mit_states")(folder)
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_problems_are_counted(tmp_path):
    folder = small("mit_states", tmp_path)
    for phase in PHASES:
        add_line(folder, phase, "ancientt building")
    with pytest.raises(UserError, match="That is the first of 3 problems"):
        reader("mit_states")(folder)


def test_the_real_pairs_with_another_number_of_images_run_with_a_note(tmp_path):
    folder = small("ut_zappos", tmp_path, pairs=None)
    unmark(folder)
    (note,) = reader("ut_zappos")(folder).notes
    assert "train images 249 instead of 22,998, val images 60 instead of 3,214" in note
    assert "pairs" not in note.partition("See")[0].replace("unseen pairs", "")


def test_the_layout_is_the_one_on_disk(tmp_path: Path):
    folder = small("mit_states", tmp_path)
    assert {path.name for path in folder.iterdir()} == {"images", SPLIT, f"{STEM}.t7", "miniature.json"}
