"""What is found below a folder: droppings, links and strange files are left out, counted and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from datasets.own.folder import load
from datasets.own.walking import images_below
from errors import UserError

DROPPINGS = [
    "._{}", ".{}", ".DS_Store", ".AppleDouble/{}", ".thumbnails/{}", ".@__thumb/{}", ".Trash-1000/files/{}",
    ".ipynb_checkpoints/{}", ".git/x/{}", "__MACOSX/wet cat/{}", "@eaDir/0.png/SYNOPHOTO_THUMB_M.png", "@EADIR/{}",
    "SYNOPHOTO_THUMB_XL.jpg", "#recycle/{}", "@Recycle/{}", "#snapshot/a/{}", "$RECYCLE.BIN/{}", "$Recycle.Bin/{}",
    "System Volume Information/{}", "lost+found/{}", "Thumbs.db", "thumbs.db", "ehthumbs_vista.db", "desktop.ini",
    "Icon\r", "Network Trash Folder/{}", "Temporary Items/{}", "thumbnails/{}", "__pycache__/{}",
]  # fmt: skip


def picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (1, 1), (number, 1, 2)).save(path, format="PNG")
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    number = 0
    for state in ("dry", "old", "wet"):
        for obj in ("cat", "dog", "fox"):
            for name in range(4):
                number += 1
                picture(tmp_path / f"photos/{state} {obj}/{name}.png", number)
    return tmp_path / "photos"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in images_below(folder).images}


@pytest.mark.parametrize("below", ["", "wet cat", "wet cat/deeper"])
@pytest.mark.parametrize("dropping", DROPPINGS)
def test_droppings_are_left_out_counted_and_named(photos, dropping, below):
    before, digest = names(photos), load(str(photos)).digest
    path = photos / below / dropping.format("0.png")
    picture(path)
    found = images_below(photos)
    assert names(photos) == before
    assert sum(found.droppings.values()) == 1
    (said,) = found.sentences()
    first = path.relative_to(photos / below).parts[0]
    assert f"1 x {'._*' if first.startswith('._') else first}" in said
    dataset = load(str(photos))
    assert dataset.digest == digest and said in dataset.notes


def test_names_that_only_look_like_droppings_are_images(photos):
    for name in ("a.thumbs.png", "recycle.png", "@home.png", "#1.png", "thumbnail.png", "$5.png", "~1.png"):
        picture(photos / "wet cat" / name)
    assert len(names(photos)) == 36 + 7 and images_below(photos).sentences() == []


def test_links_to_files_and_folders_are_followed(photos, tmp_path):
    disk = tmp_path / "disk"
    for name in ("a/1.png", "a/deep/2.png", "b.png"):
        picture(disk / name)
    (photos / "wet cat/linked").symlink_to(disk / "a")
    (photos / "wet cat/3.jpg").symlink_to(disk / "b.png")
    (photos / "new cat").symlink_to(disk / "a/deep")
    added = {"wet cat/linked/1.png", "wet cat/linked/deep/2.png", "wet cat/3.jpg"}
    found = images_below(photos)
    # What two links lead to is read through the first of them, "new cat".
    assert names(photos) >= (added - {"wet cat/linked/deep/2.png"}) | {"new cat/2.png"}
    assert len(found.images) == 36 + 3 and "new cat" in found.folders
    assert len(load(str(photos)).vocabulary.states) == 4


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("loop", ".", "lead back"),
        ("wet cat/loop", "..", "lead back"),
        ("wet cat/loop", "../..", "lead back"),
        ("wet cat/loop", "/", "lead back"),
        ("wet cat/loop", ".", "read already"),
        ("wet cat/other", "../dry dog", "read already"),
        ("new cat", "wet cat", "read already"),
        ("wet cat/again.png", "0.png", "read already"),
        ("wet cat/again.png", "../dry dog/0.png", "read already"),
        ("wet fox/gone", "/nowhere/at/all", "lead nowhere"),
        ("wet fox/self", "self", "lead nowhere"),
        ("gone cat", "/nowhere/at/all", "lead nowhere"),
    ],
)
def test_links_that_would_double_or_never_end_are_left_out_and_named(photos, link, target, reason):
    before, digest = names(photos), load(str(photos)).digest
    (photos / link).symlink_to(target)
    found = images_below(photos)
    assert names(photos) == before
    (said,) = found.sentences()
    assert reason in said and said.endswith(f": 1 ({link}).")
    assert load(str(photos)).digest == digest


def test_links_in_a_circle_outside_end(photos, tmp_path):
    picture(tmp_path / "one/1.png")
    picture(tmp_path / "two/2.png")
    (tmp_path / "one/two").symlink_to(tmp_path / "two")
    (tmp_path / "two/one").symlink_to(tmp_path / "one")
    (tmp_path / "two/back").symlink_to(photos)
    (photos / "wet cat/x").symlink_to(tmp_path / "one")
    found = images_below(photos)
    assert {path.name for path in found.images} - {f"{n}.png" for n in (0, 3)} == {"1.png", "2.png"}
    assert len(found.images) == 38
    assert sorted(found.left_out) == ["because these links lead back to a folder that holds the data",
                                      "because these links lead to what is read already"]  # fmt: skip


def test_an_image_whose_link_leads_nowhere_is_named_when_it_is_read(photos):
    (photos / "wet cat/gone.png").symlink_to("/nowhere/at/all.png")
    assert "wet cat/gone.png" in names(photos)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_never_waited_for(photos):
    os.mkfifo(photos / "wet cat/pipe.png")
    assert images_below(photos).sentences() == ["Left out, because they are no images: 1 (wet cat/pipe.png)."]


def test_many_are_counted_and_the_first_named(photos):
    for number in range(8):
        (photos / f"{number}.txt").write_text("x")
        (photos / f"wet cat/._{number}.png").write_bytes(b"x")
        (photos / f".hidden{number}").write_bytes(b"x")
    droppings, texts = images_below(photos).sentences()
    assert "16 (8 x ._*, 1 x .hidden0, " in droppings and droppings.endswith(" and 4 more).")
    assert texts.endswith(": 8 (0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more).")


def test_the_folder_that_is_asked_for_may_have_any_name(tmp_path):
    picture(tmp_path / ".hidden/@eaDir/1.png")
    assert names(tmp_path / ".hidden/@eaDir") == {"1.png"}


def test_a_folder_that_cannot_be_listed_is_named(photos, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "wet cat":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"wet cat cannot be listed.*Permission denied"):
        images_below(photos)
