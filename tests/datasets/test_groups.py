"""Sources of images: a split that is drawn tears none apart, and one that is given is told how many it tears."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from in_process import here
from PIL import Image

from datasets.base import PHASES, CompositionDataset
from datasets.group_crossing import crossing
from datasets.own.folder import load
from datasets.own.grouped_split import draw_grouped_split
from datasets.own.split import SplitOptions
from errors import UserError

STATES, OBJECTS = ("dry", "old", "wet", "new"), ("cat", "dog", "fox", "owl")
PAIRS = [(state, thing) for state in STATES for thing in OBJECTS]
LABELS = [pair for _ in range(12) for pair in PAIRS]
BOARDS = [
    f"board {number // 8}" for number in range(len(LABELS))
]  # each shows eight pairs, as photographs of many things
CONTENTS = [f"content {number}" for number in range(len(LABELS))]


def draw(labels=LABELS, contents=CONTENTS, groups=BOARDS, **options) -> list[str | None]:
    return draw_grouped_split(labels, contents, groups, SplitOptions(**options))


def places(phases: Sequence[str | None], groups: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for phase, group in zip(phases, groups, strict=True):
        if phase is not None:
            found.setdefault(group, set()).add(phase)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits(seed):
    phases = draw(seed=seed)
    assert all(len(found) == 1 for found in places(phases, BOARDS).values())
    trained = {label for label, phase in zip(LABELS, phases, strict=True) if phase == "train"}
    unseen = set(PAIRS) - trained
    assert len(unseen) == 3  # a fifth of 16 pairs
    for phase in ("val", "test"):
        own = [label for label, other in zip(LABELS, phases, strict=True) if other == phase]
        assert set(own) & unseen and set(own) & trained
        share = sum(label in trained for label in own) / sum(label in trained for label in LABELS)
        assert 0.08 < share < 0.25
    # What is left out are images of unseen pairs, and nothing else.
    assert {label for label, phase in zip(LABELS, phases, strict=True) if phase is None} <= unseen


def test_the_split_depends_on_seed_and_contents_and_not_on_the_order():
    first = draw()
    order = sorted(range(len(LABELS)), key=lambda index: (index * 7919) % len(LABELS))
    turned = draw(*([column[index] for index in order] for column in (LABELS, CONTENTS, BOARDS)))
    assert [first[index] for index in order] == turned
    assert draw(seed=1) != first


def test_groups_of_one_pair_lose_nothing():
    labels = [pair for pair in PAIRS for _ in range(12)]
    videos = [f"{' '.join(pair)} {number % 6}" for number, pair in enumerate(labels)]
    assert None not in draw(labels, CONTENTS, videos)


def test_groups_with_a_copy_in_common_are_one():
    copied = ["content 0" if group in ("board 0", "board 5") and index % 8 == 0 else CONTENTS[index]
              for index, group in enumerate(BOARDS)]  # fmt: skip
    found = places(draw(LABELS, copied), BOARDS)
    assert found["board 0"] == found["board 5"]


def test_one_group_cannot_be_split():
    with pytest.raises(UserError, match="No split of the data keeps every group together"):
        draw(LABELS, CONTENTS, ["one"] * len(LABELS))


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("boards")
    rows = []
    for number, (pair, board) in enumerate(zip(LABELS, BOARDS, strict=True)):
        Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(folder / f"{number}.png")
        rows.append([f"{number}.png", *pair, board])
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "state", "object", "group"], *rows])
    return folder / "list.csv"


def groups_of(dataset: CompositionDataset) -> dict[str, str]:
    return {
        name: group for split in dataset.splits.values() for name, group in zip(split.images, split.groups, strict=True)
    }


def test_a_csv_with_groups_is_split_by_them_and_found_again(listed, tmp_path):
    dataset = load(str(listed))
    assert crossing(dataset.splits) == {} and len(set(groups_of(dataset).values())) == len(set(BOARDS))
    (said,) = (note for note in dataset.notes if "stay together" in note)
    left_out = len(LABELS) - sum(map(len, dataset.splits.values()))
    assert left_out > 0 and f"{left_out} images are left out" in said
    (written,) = (note for note in dataset.notes if "The split is written to" in note)
    again = load(written.split("written to ")[1].split(";")[0])
    assert again.digest == dataset.digest and groups_of(again) == groups_of(dataset)
    # Groups say where numbers come from and change none: without the column it is the same data.
    with Path(written.split("written to ")[1].split(";")[0]).open(newline="") as file:
        rows = [row[:4] for row in csv.reader(file)]
    with (tmp_path / "bare.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert load(str(tmp_path / "bare.csv")).digest == dataset.digest


def test_a_given_split_is_told_how_many_groups_it_tears_apart(listed, tmp_path):
    bare = tmp_path / "bare.csv"
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with bare.open("w", newline="") as file:
        csv.writer(file).writerow(["path", "state", "object"])
        csv.writer(file).writerows([listed.parent / row["path"], row["state"], row["object"]] for row in rows)
    by_picture = load(str(bare))
    board = {row["path"]: row["group"] for row in rows}
    given = tmp_path / "given.csv"
    with given.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "state", "object", "split", "group"])
        for phase in PHASES:
            split = by_picture.splits[phase]
            for name, state, thing in zip(split.images, split.states, split.objects, strict=True):
                words = by_picture.vocabulary.states[state], by_picture.vocabulary.objects[thing]
                writer.writerow([listed.parent / name, *words, phase, board[name]])
    dataset = load(str(given))
    torn = crossing(dataset.splits)
    assert dataset.digest == by_picture.digest
    slow = places([p for p in PHASES for _ in dataset.splits[p].images],
                  [board[name] for p in PHASES for name in dataset.splits[p].images])  # fmt: skip
    assert torn.keys() == {group for group, found in slow.items() if len(found) > 1} and torn
    done = here("data", "check", given, check=False)
    assert done.returncode == 1 and done.stdout.count(f"{len(torn)} of 24 groups have images in several splits") == 1


def test_images_without_a_group_stand_for_themselves(listed, tmp_path):
    with listed.open(newline="") as file:
        rows = [[listed.parent / r["path"], r["state"], r["object"], r["group"] if n < 40 else ""]
                for n, r in enumerate(csv.DictReader(file))]  # fmt: skip
    with (tmp_path / "some.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "state", "object", "group"], *rows])
    dataset = load(str(tmp_path / "some.csv"))
    assert crossing(dataset.splits) == {} and len({*groups_of(dataset).values()} - {""}) == 5
