"""Made miniatures: real words, every rule of a split, the published layout, and pictures that can be learned."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_layouts import BLANK_LISTS, REAL, reader, small, small_vaw

from datasets.base import PHASES
from datasets.metadata import STEM, read_metadata
from datasets.miniature import make, paint
from datasets.miniature_plan import choose_pairs, plan_images
from datasets.published import image_counts, list_counts, shipped_lists
from errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("count", [1, 4, 9, 10_000])
def test_chosen_pairs_are_a_split_of_the_same_kind(name, count):
    lists = shipped_lists(name)
    chosen = choose_pairs(lists, count)
    real = list_counts(lists)
    sizes = list_counts(chosen)
    for phase in ("val", "test"):
        unseen = real[f"{phase} pairs unseen"]
        assert sizes[f"{phase} pairs unseen"] == min(count, unseen)
        assert sizes[f"{phase} pairs seen"] >= min(count, real[f"{phase} pairs seen"])
    for phase in PHASES:
        assert set(chosen[phase]) <= set(lists[phase])
    for place in (0, 1):
        evaluated = {pair[place] for phase in ("val", "test") for pair in chosen[phase]}
        assert evaluated <= {pair[place] for pair in chosen["train"]}


def test_images_are_of_the_numbers_asked_for():
    lists = choose_pairs(shipped_lists("cgqa"), 3)
    rows = plan_images(reader("cgqa").published, lists, {"train": 5, "val": 1, "test": 2})
    labels = {phase: [(r["attr"], r["obj"]) for r in rows if r["set"] == phase] for phase in PHASES}
    counts = image_counts(lists, labels)
    assert (counts["train images"], counts["val images"]) == (5 * len(lists["train"]), len(lists["val"]))
    assert counts["test images"] == 2 * len(lists["test"])
    assert len({row["image"] for row in rows}) == len(rows)
    assert sum("NA" in (row["attr"], row["set"]) for row in rows) == 2


@pytest.mark.parametrize("name", REAL)
def test_names_of_files_are_of_the_published_kind(name, tmp_path):
    folder = small(name, tmp_path, pictures=True, pixels=8)
    rows = read_metadata(folder / f"{STEM}.t7")
    for row in rows:
        assert (folder / "images" / row["image"]).is_file()
        pair = ("adj" if row["attr"] == "NA" and name != "cgqa" else row["attr"], row["obj"])
        if name == "cgqa":
            assert row["image"].endswith(f"-{pair[0]}-{pair[1]}.jpg") and "/" not in row["image"]
        else:
            assert row["image"].startswith(f"{pair[0]}_{pair[1]}/")
        assert ("_image" in row) == (name == "ut_zappos")


def test_pictures_are_the_same_each_time_and_show_their_labels():
    one, again, other = (np.asarray(paint("wet", "cat", number, 32), dtype=float) for number in (0, 0, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.asarray(paint("wet", "cat", 1, 32)).shape == (32, 40, 3)
    mean = {
        state: np.mean([np.asarray(paint(state, obj, n, 32)).mean((0, 1)) for obj in ("cat", "dog") for n in (0, 2)], 0)
        for state in ("wet", "dry", "old")
    }
    for state in mean:
        picture = np.asarray(paint(state, "fox", 4, 32)).mean((0, 1))
        assert min(mean, key=lambda known: np.abs(mean[known] - picture).sum()) == state


def test_a_miniature_replaces_a_miniature_and_nothing_else(tmp_path):
    folder = small("mit_states", tmp_path)
    (folder / "old").touch()
    small("mit_states", tmp_path)
    assert not (folder / "old").exists()
    (folder / "miniature.json").unlink()
    with pytest.raises(UserError, match="is there and is no miniature"):
        small("mit_states", tmp_path)
    assert (folder / "images").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mit-states"]


def test_other_pictures_are_other_data(tmp_path):
    digests = {reader("cgqa")(small("cgqa", tmp_path, pixels=pixels)).digest for pixels in (8, 16)}
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["icon_states", "vaw_czsl"])
def test_no_miniature_without_real_lists(name, tmp_path):
    with pytest.raises(UserError, match="Choose mit_states, ut_zappos or cgqa"):
        make(name, tmp_path)


def test_lists_of_ones_own_may_hold_blanks(tmp_path):
    folder = small_vaw(tmp_path, pictures=True, pixels=8)
    assert (folder / "images" / "light_blue_tea_pot").is_dir()
    assert reader("vaw_czsl")(folder).val_pairs == BLANK_LISTS["val"]


def test_packed_lists_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.published.SHIPPED", tmp_path)
    (tmp_path / "mine.txt.xz").write_bytes(lzma.compress(b"a x:3 y:2\nb x:y:1 z:4\n"))
    lists = {"train": (("a", "x"), ("b", "x:y")), "val": (("a", "x"), ("a", "y")), "test": (("b", "z"),)}
    assert shipped_lists("mine") == lists
    assert shipped_lists("nobodys") is None


def test_as_a_command(tmp_path):
    command = [sys.executable, "-m", "datasets.miniature", "ut_zappos", str(tmp_path), "--pairs", "2"]
    command += ["--images", "1", "1", "1", "--metadata", ".csv", "--pixels", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert f"CZSL_DATA={tmp_path} python bench.py run --dataset ut_zappos" in done.stdout
    dataset = reader("ut_zappos")(tmp_path / "ut-zappos")
    assert len(dataset.splits["val"]) == 4
    wrong = subprocess.run([*command[:3], "mit", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "No data set is called 'mit'" in wrong.stderr
