"""`data check` and `data info`: every kind of finding, and what is no finding."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from made_layouts import BLANK_LISTS, add_line, pair_file, reader, rewrite, small, small_vaw, unmark
from PIL import Image
from toy_groups import with_images

from datasets.base import PHASES, Vocabulary
from datasets.checking import check as checks
from datasets.checking.check import about, check
from datasets.metadata import STEM
from datasets.miniature import write_miniature
from errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small("mit_states", tmp_path_factory.mktemp("whole"), pictures=True, pixels=8)


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy that a test may damage, where the data sets are looked for."""
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    return shutil.copytree(whole, tmp_path / "mit-states")


def problems(fast: bool = True) -> list[str]:
    return [finding.text for finding in check("mit_states", fast=fast).problems]


def notes(fast: bool = True) -> list[str]:
    return [finding.text for finding in check("mit_states", fast=fast).findings if not finding.problem]


def test_a_whole_miniature_has_no_problem_and_two_digests(folder):
    seen = []
    report = check("mit_states", progress=lambda done, total: seen.append((done, total)))
    assert report.problems == []
    assert [finding.text for finding in report.findings] == ["2 entries of the metadata are NA and never used."]
    assert report.digest == reader("mit_states")().digest
    assert seen[-1] == (104, 104)
    sizes = {size.name: size[1:] for size in report.sizes}
    assert sizes["train pairs"] == (24, 1262, 1262)
    assert sizes["val images"] == (16, 10_420, None)
    again = check("mit_states")
    assert again.content == report.content
    fast = check("mit_states", fast=True)
    assert (fast.content, fast.digest) == (None, report.digest)


def test_the_digest_of_the_pictures_follows_them(folder):
    before = check("mit_states").content
    a, b = (reader("mit_states")().image_path("val", row) for row in (0, 1))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert check("mit_states").content != before


def test_missing_and_unreadable_images_are_counted_and_named(folder):
    dataset = reader("mit_states")()
    lost, cut, text = (dataset.image_path("test", row) for row in (0, 3, 9))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:120])
    text.write_text("no picture")
    missing, unreadable = problems(fast=False)
    assert missing.startswith("1 image is missing in ") and lost.name in missing
    assert unreadable.startswith("2 images cannot be read: ") and cut.name in unreadable and text.name in unreadable
    assert check("mit_states").content is None
    assert problems(fast=True) == [missing]


def test_leakage_between_splits(folder):
    def leak(rows):
        train = [row for row in rows if row["set"] == "train"]
        val = next(row for row in rows if row["set"] == "val")
        return [*rows, {**train[0], "set": "test"}, {**val, "set": "test"}]

    rewrite(folder, leak)
    found = problems()
    assert any(text.startswith("1 image is in train and in test: ") for text in found)
    assert any(text.startswith("1 image is in val and in test: ") for text in found)


def test_copies_of_training_images_are_noted(folder):
    dataset = reader("mit_states")()
    shutil.copy(dataset.image_path("train", 5), dataset.image_path("test", 2))
    assert [text for text in notes(fast=False) if "byte for byte" in text] == [
        f"1 val or test image equals a training image byte for byte: {dataset.splits['test'].images[2]}."
    ]


def test_an_unseen_pair_in_validation_and_test(folder):
    dataset = reader("mit_states")()
    unseen = next(pair for pair in dataset.val_pairs if pair not in dataset.train_pairs)
    add_line(folder, "test", " ".join(unseen))
    assert problems() == [f"1 unseen pair is in val and in test: {' '.join(unseen)}."]
    assert f"1 pair of test has no test image: {' '.join(unseen)}." in notes()


def test_an_unseen_pair_with_training_images_does_not_hide_the_other_problems(folder):
    def move(rows):
        train = {(row["attr"], row["obj"]) for row in rows if row["set"] == "train"}
        for row in rows:
            if row["set"] == "val" and (row["attr"], row["obj"]) not in train:
                row["set"] = "train"

    rewrite(folder, move)
    add_line(folder, "test", "ancientt building")
    found = problems()
    assert sum("it is unseen, yet it has training images" in text for text in found) == 4
    assert sum("'ancientt'" in text for text in found) == 1


def test_pairs_without_images(folder):
    dataset = reader("mit_states")()
    state, obj = dataset.train_pairs[0]
    rewrite(folder, lambda rows: [r for r in rows if (r["attr"], r["obj"], r["set"]) != (state, obj, "train")])
    assert problems() == [f"1 pair of train has no train image: {state} {obj}."]


def test_an_image_that_is_listed_twice_is_noted(folder):
    rewrite(folder, lambda rows: [*rows, rows[0]])
    assert problems() == []
    assert any(text.startswith("Images that are twice in train: ") for text in notes())


def test_files_that_cannot_be_read_are_a_finding(folder):
    (folder / f"{STEM}.t7").write_text("nothing")
    report = check("mit_states")
    assert [finding.text[:12] for finding in report.problems] == ["The metadata"]
    assert report.digest is None
    assert {size.there for size in report.sizes} == {None}
    pair_file(folder, "val").unlink()
    assert problems()[0].startswith("The file val_pairs.txt is missing.")


def test_real_lists_are_compared_with_those_of_the_suite(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    folder = small("ut_zappos", tmp_path, pairs=None)
    unmark(folder)
    found = [finding for finding in check("ut_zappos", fast=True).findings if "ships with the suite" in finding.text]
    assert found == []
    for phase, problem in (("train", True), ("test", False)):
        path = pair_file(folder, phase)
        lines = path.read_text().splitlines()
        swapped = lines[-1]
        path.write_text("\n".join([*lines[:-1], "Wool Shoes.Boat.Shoes"]))
        report = check("ut_zappos", fast=True)
        (found,) = [f for f in report.findings if f.text.startswith(f"{phase}_pairs.txt differs from the list")]
        assert found.problem is problem
        assert f"(more: Wool Shoes.Boat.Shoes; less: {swapped})" in found.text
        path.write_text("\n".join(lines))


def test_real_lists_with_other_sizes_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    unmark(small("ut_zappos", tmp_path, pairs=None))
    texts = [finding.text for finding in check("ut_zappos", fast=True).problems]
    assert texts[0].startswith("Not of the published size: train images 249 instead of 22,998")
    assert texts[1].startswith("381 images are missing")


def test_sizes_that_were_never_compared_with_the_files_are_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    unmark(small_vaw(tmp_path, pictures=True, pixels=8))
    report = check("vaw_czsl")
    assert report.problems == []
    assert any("states 3 instead of 440" in finding.text for finding in report.findings)


def test_any_registered_data_set_can_be_checked(toy, monkeypatch):
    from registry import DATASETS

    monkeypatch.setattr(DATASETS, "get", lambda name: lambda: toy)
    report = check("toy")
    assert report.problems == []
    assert {size.name: size.there for size in report.sizes}["train pairs"] == 12
    assert {size.published for size in report.sizes} == {None}
    assert about("toy").published is None


def test_labels_of_one_prompt_are_noted_and_not_refused(toy, monkeypatch, tmp_path):
    """In published layouts and in data sets of a plugin, whose labels are what they are."""
    from benchmarks.running.choices import Choices, How
    from benchmarks.running.workbench import Workbench
    from registry import DATASETS

    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    odd = BLANK_LISTS | {"train": (*BLANK_LISTS["train"], ("LIGHT BLUE", "orange"))}
    write_miniature(reader("vaw_czsl").published, tmp_path, odd, pictures=True, pixels=8)
    states = (toy.vocabulary.states[0].upper(), *toy.vocabulary.states[1:-1], toy.vocabulary.states[0])
    renamed = dict(zip(toy.vocabulary.states, states, strict=True))
    lists = {
        name: tuple((renamed[state], obj) for state, obj in getattr(toy, name))
        for name in ("train_pairs", "val_pairs", "test_pairs")
    }
    plugin = replace(toy, vocabulary=Vocabulary(states, toy.vocabulary.objects), **lists)
    get = DATASETS.get
    monkeypatch.setattr(DATASETS, "get", lambda name: (lambda: plugin) if name == "plugin" else get(name))
    for name, word in (("vaw_czsl", "light blue"), ("plugin", states[-1])):
        report = check(name, fast=True)
        found = [finding for finding in report.findings if f"state '{word.upper()}' = '{word}'" in finding.text]
        assert [finding.problem for finding in found] == [False]
        workbench = Workbench(Choices(how=How(device="cpu", allow_missing=None)))
        workbench.dataset(name)
        assert found[0].text in workbench.notes


def test_own_data_are_checked_with_what_is_left_out(tmp_path):
    for number, pair in enumerate(f"{s} {o}" for s in ("dry", "wet", "old") for o in ("cat", "dog", "fox")):
        (tmp_path / "photos" / pair / "@eaDir").mkdir(parents=True)
        for image in range(4):
            for below in ("", "@eaDir"):
                Image.new("RGB", (1, 1), (number, image, 0)).save(tmp_path / "photos" / pair / below / f"{image}.png")
    report = check(str(tmp_path / "photos"))
    assert report.problems == []
    assert {size.name: size.there for size in report.sizes}["pairs"] == 9
    texts = [finding.text for finding in report.findings]
    assert "Left out, because systems or storage left them there: 9 (9 x @eaDir)." in texts
    (tmp_path / "photos/wet cat").rename(tmp_path / "photos/Wet cat")
    with pytest.raises(UserError, match="written in several ways"):
        check(str(tmp_path / "photos"))


@pytest.mark.parametrize(("phase", "left", "lacks"), [("val", "seen", "unseen"), ("test", "unseen", "seen")])
def test_a_group_without_images_is_noted(toy, phase, left, lacks):
    found = [finding for finding in checks.split_findings(with_images(toy, **{phase: left})) if not finding.problem]
    assert f"There are no {phase} images of {lacks} pairs, so AUC and HM are undefined there." in str(found)
    assert "AUC" not in str(list(checks.split_findings(toy)))


def test_data_that_is_not_there_cannot_be_checked_but_described(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    with pytest.raises(UserError, match="data fetch cgqa"):
        check("cgqa")
    found = about("cgqa")
    assert found.root is None
    assert "data fetch cgqa" in found.problem
    assert {size.name: size[1:] for size in found.sizes}["val pairs unseen"] == (None, 1252, 1252)


def test_data_that_is_there_is_described_with_its_sizes(folder):
    found = about("mit_states")
    assert (found.root, found.problem) == (folder, "")
    assert {size.name: size.there for size in found.sizes}["train images"] == 72
    unmark(folder)
    assert "are not those of MIT-States" in about("mit_states").problem


@pytest.mark.parametrize("name", ["mit_states", "ut_zappos", "cgqa"])
def test_the_lists_in_the_suite_have_the_published_sizes(name):
    """The table of `data info`, from the real pair lists."""
    sizes = about(name).sizes
    compared = [size for size in sizes if None not in (size.published, size.shipped)]
    assert len(compared) == 8
    assert all(size.published == size.shipped for size in compared)


def test_a_stopped_check_reads_no_further(folder, monkeypatch):
    monkeypatch.setattr("datasets.checking.reading.CHUNK", 1)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("mit_states", progress=stop)


def test_phases_are_in_the_order_of_a_run():
    assert PHASES == ("train", "val", "test")
