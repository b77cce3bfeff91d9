"""Missing images stop a run unless they may be left out, and then it is other data."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from made_layouts import reader, small

from datasets.base import CompositionDataset
from datasets.checking import presence
from datasets.checking.presence import absent_names, missing_images, with_images_there
from errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small("mit_states", tmp_path_factory.mktemp("whole"), pictures=True, pixels=8)


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "mit-states")


def gone(dataset: CompositionDataset, *places: tuple[str, int]) -> list[str]:
    """Delete images; return their names."""
    for phase, row in places:
        dataset.image_path(phase, row).unlink()
    return sorted(dataset.splits[phase].images[row] for phase, row in places)


def test_a_whole_data_set_is_returned_as_it_is(folder):
    dataset = reader("mit_states")(folder)
    assert with_images_there(dataset) is dataset
    assert with_images_there(dataset, 5) is dataset


def test_a_missing_image_stops_a_run_and_is_named(folder):
    dataset = reader("mit_states")(folder)
    first, second = gone(dataset, ("val", 3), ("train", 70))
    with pytest.raises(UserError) as caught:
        with_images_there(dataset)
    for text in ("2 of the 104 images of mit_states are missing.", first, second, "--allow-missing 2", "other data"):
        assert text in str(caught.value)
    with pytest.raises(UserError, match="--allow-missing 2"):
        with_images_there(dataset, 1)


def test_a_corrupt_image_counts_as_missing_where_images_may_be_left_out(folder):
    dataset = reader("mit_states")(folder)
    broken, missing = dataset.image_path("test", 1), dataset.splits["train"].images[5]
    broken.write_bytes(broken.read_bytes()[:100])
    name = dataset.splits["test"].images[1]
    assert with_images_there(dataset) is dataset, "files are only looked for"
    rest = with_images_there(dataset, 1)
    assert rest.left_out == (name,)
    assert len(rest.splits["test"]) == len(dataset.splits["test"]) - 1
    assert f"1 of the 104 images of mit_states is missing or unreadable and left out: {name} (" in rest.notes[-1]
    dataset.image_path("train", 5).unlink()
    with pytest.raises(UserError, match="2 of the 104 images of mit_states are missing or unreadable") as caught:
        with_images_there(dataset, 1)
    assert name in str(caught.value) and missing in str(caught.value) and "--allow-missing 2" in str(caught.value)


def test_what_may_be_missing_is_left_out_of_everything(folder):
    dataset = reader("mit_states")(folder)
    names = gone(dataset, ("val", 3), ("train", 70), ("train", 0))
    rest = with_images_there(dataset, 3)
    assert list(rest.left_out) == names
    assert {phase: len(split) for phase, split in rest.splits.items()} == {"train": 70, "val": 15, "test": 16}
    for phase, split in rest.splits.items():
        kept = [row for row, name in enumerate(dataset.splits[phase].images) if name not in names]
        old = dataset.splits[phase]
        assert split.images == tuple(old.images[row] for row in kept)
        assert np.array_equal(split.states, old.states[kept]) and np.array_equal(split.objects, old.objects[kept])
        assert {k: v.tolist() for k, v in split.slices.items()} == {k: v[kept].tolist() for k, v in old.slices.items()}
        assert all((rest.images / name).is_file() for name in split.images)
    assert rest.digest != dataset.digest
    assert "3 of the 104 images of mit_states are missing and left out: " in rest.notes[-1]
    assert rest.train_pairs == dataset.train_pairs


def test_the_digest_depends_on_which_images_are_left_out(folder):
    dataset = reader("mit_states")(folder)
    path = dataset.image_path("test", 0)
    content = path.read_bytes()
    gone(dataset, ("test", 0))
    first = with_images_there(dataset, 1).digest
    path.write_bytes(content)
    gone(dataset, ("test", 1))
    assert first != with_images_there(dataset, 1).digest


def test_pairs_that_lose_their_last_training_image_are_counted(folder):
    dataset = reader("mit_states")(folder)
    gone(dataset, ("train", 0), ("train", 1), ("train", 2))  # three images a pair
    assert "1 training pair has no image left." in with_images_there(dataset, 9).notes[-1]


def test_a_split_without_images_is_refused_whatever_may_be_missing(folder):
    dataset = reader("mit_states")(folder)
    gone(dataset, *(("test", row) for row in range(16)))
    with pytest.raises(UserError, match=r"Nothing is left of test\. Put the images there"):
        with_images_there(dataset, 1000)
    shutil.rmtree(dataset.images)
    with pytest.raises(UserError, match="104 of the 104 images of mit_states are missing"):
        with_images_there(dataset, 1000)


def test_folders_are_listed_and_files_are_not_asked_for(folder, monkeypatch):
    dataset = reader("mit_states")(folder)
    listed = []
    scandir = presence.os.scandir
    monkeypatch.setattr(presence.os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(presence.Path, "exists", lambda path: pytest.fail(f"asked for {path}"))
    missing = missing_images(dataset)
    assert sum(int(rows.sum()) for rows in missing.values()) == 0
    assert len(listed) == len({name.rpartition("/")[0] for s in dataset.splits.values() for name in s.images})


def test_a_name_that_the_file_system_spells_in_another_way_is_there(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()
    assert absent_names(tmp_path, ["A.JPG", "./a.jpg", "b/c.jpg"]) == {"A.JPG", "b/c.jpg"}
    monkeypatch.setattr(presence.Path, "exists", lambda path: path.name == "A.JPG")
    assert absent_names(tmp_path, ["A.JPG", "b.jpg"]) == {"b.jpg"}


def test_a_class_that_reads_its_images_in_its_own_way_is_left_alone(folder):
    class Packed(CompositionDataset):
        def load_image(self, phase, index):
            raise NotImplementedError

    dataset = reader("mit_states")(folder)
    gone(dataset, ("test", 0))
    packed = Packed(**{name: getattr(dataset, name) for name in dataset.__dataclass_fields__})
    assert with_images_there(packed) is packed


def test_an_unreadable_image_is_named_with_what_can_be_done(folder):
    dataset = reader("mit_states")(folder)
    path = dataset.image_path("val", 2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        dataset.load_image("val", 2)
    assert path.name in str(caught.value)
    assert "or pass --allow-missing 1 to run without it" in str(caught.value)
    assert "delete" not in str(caught.value), "nobody shall be told to delete a folder of downloads"
