"""Near-duplicates across splits: what was done to a copy does not hide it, and other pictures are none."""

from __future__ import annotations

import csv
import io
import sys

import numpy as np
import pytest
from in_process import here
from PIL import Image, ImageOps

from datasets.checking import near_duplicates as near
from datasets.own.folder import load
from errors import UserError

CHANGES = {
    "copied": lambda picture: picture,
    "scaled": lambda picture: picture.resize((70, 52), Image.Resampling.BILINEAR),
    "mirrored": ImageOps.mirror,
    "recompressed": lambda picture: picture,
}


def picture(seed: int) -> Image.Image:
    """A smooth picture of its own, as photographs are smoother than noise."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((120, 90), Image.Resampling.BICUBIC)


@pytest.fixture
def listed(tmp_path):
    """Pictures of eight pairs, and in test a changed copy of a training image for each kind of change."""
    rows = []

    def add(name: str, image: Image.Image, pair: str, split: str) -> None:
        image.save(tmp_path / name, quality=30 if "recompressed" in name else 92)
        rows.append([name, *pair.split(), split])

    for number, pair in enumerate(("wet cat", "wet dog", "dry cat", "dry fox", "old dog", "old fox")):
        add(f"train-{number}.jpg", picture(number), pair, "train")
        add(f"test-{number}.jpg", picture(50 + number), pair, "test")
    add("val.jpg", picture(90), "wet cat", "val")
    add("val-unseen.jpg", picture(91), "old cat", "val")
    for number, (how, change) in enumerate(CHANGES.items()):
        add(f"{how}.jpg", change(picture(number)), "dry dog" if how == "mirrored" else "wet cat", "test")
    text = io.StringIO()
    csv.writer(text).writerows([["path", "state", "object", "split"], *rows])
    (tmp_path / "list.csv").write_text(text.getvalue())
    return tmp_path / "list.csv"


def test_copies_are_found_whatever_was_done_to_them(listed):
    pytest.importorskip("imagehash")
    dataset = load(str(listed))
    found = near.near_duplicates(dataset)
    assert {(pair.one.image, pair.other.image, pair.mirrored) for pair in found} == {
        (f"train-{number}.jpg", f"{how}.jpg", how == "mirrored") for number, how in enumerate(CHANGES)
    }
    assert all(near.ALIKE <= pair.alike <= 1 + 1e-9 for pair in found)


def test_the_check_lists_them_and_says_what_they_do(listed):
    pytest.importorskip("imagehash")
    done = here("data", "check", listed, "--near-duplicates")
    said = done.stdout
    assert "4 near-duplicates across splits, of 4 train images, 0 val images, 4 test images" in said
    assert "train-2.jpg (train) and mirrored.jpg (test, mirrored)" in said
    assert "4 test images are nearly a training image, 40.0% of the test, 3 of them of seen pairs" in said
    assert "have another pair than the training image" in said
    place = said.split("The whole list of near-duplicates is in ")[1].split(".csv")[0] + ".csv"
    with open(place, newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert {row["other_image"] for row in rows} == {f"{how}.jpg" for how in CHANGES}
    assert [row["mirrored"] for row in rows if row["other_image"] == "mirrored.jpg"] == ["true"]


def test_candidates_are_those_of_a_slow_search():
    random = np.random.default_rng(0)
    own = [int(word) for word in random.integers(0, 2**63, 40, dtype=np.uint64)]
    other = [word ^ int(mask) for word, mask in zip(own, random.integers(0, 2**9, 40, dtype=np.uint64), strict=True)]
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    ours = [near.Thumbnail(word, 0, blank) for word in own]
    theirs = [near.Thumbnail(word, other[row - 1], blank) for row, word in enumerate(other)]
    slow = {
        (i, j)
        for i, word in enumerate(own)
        for j, thumbnail in enumerate(theirs)
        if min((word ^ thumbnail.hash).bit_count(), (word ^ thumbnail.mirrored).bit_count()) <= 4
    }
    assert set(near.candidates(ours, theirs, bits=4)) == slow and len(slow) > 20
    assert list(near.candidates([], theirs)) == []


def test_pictures_are_compared_by_their_correlation():
    random = np.random.default_rng(1)
    pictures = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    ours, theirs = (
        [near.Thumbnail(0, 0, pictures[0])],
        [near.Thumbnail(0, 0, p) for p in (pictures[1], pictures[0][:, ::-1])],
    )
    found = list(near.compared(ours, theirs, [(0, 0), (0, 1)]))
    slow = [np.corrcoef(pictures[0].ravel(), view.ravel())[0, 1] for view in (pictures[1], pictures[1][:, ::-1])]
    assert found[0][2] == pytest.approx(max(slow)) and found[0][3] == (slow[1] > slow[0])
    assert found[1][2] == pytest.approx(1.0) and found[1][3]
    blank = near.Thumbnail(0, 0, np.full((32, 32, 3), 7, dtype=np.uint8))
    assert next(near.compared([blank], theirs, [(0, 0)]))[2] == 0.0


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(UserError, match="pip install imagehash"):
        near.require_imagehash()
