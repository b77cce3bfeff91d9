"""Metadata files: all kinds say the same, nothing in them can run, and a wrong entry is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_layouts import REAL, reader, small

from datasets.metadata import ENDINGS, STEM, Entry, entries, entry, find_metadata, read_metadata
from datasets.miniature import write_metadata
from errors import UserError

GOOD = {"image": "wet_cat/1.jpg", "attr": "wet", "obj": "cat", "set": "train"}


@pytest.mark.parametrize("name", REAL)
def test_every_kind_of_metadata_gives_the_same_data_set(name, tmp_path):
    digests = {reader(name)(small(name, tmp_path, metadata=ending)).digest for ending in ENDINGS}
    assert len(digests) == 1


def test_a_file_of_an_old_torch_is_read_and_only_weights_are(tmp_path, monkeypatch):
    path = tmp_path / "m.t7"
    torch.save([GOOD], path, _use_new_zipfile_serialization=False)
    asked = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **options: asked.append(options) or load(*given, **options))
    assert read_metadata(path) == [GOOD]
    assert asked == [{"weights_only": True}]


def test_the_published_kind_comes_first(tmp_path):
    for ending in (".txt", ".csv"):
        write_metadata(tmp_path / f"{STEM}{ending}", [GOOD])
        assert find_metadata(tmp_path).suffix == ending
    write_metadata(tmp_path / f"{STEM}.t7", [GOOD])
    assert find_metadata(tmp_path).suffix == ".t7"


def test_no_metadata_says_what_it_could_be(tmp_path):
    with pytest.raises(UserError, match=rf"There is no {STEM}.t7, nor a table {STEM}.csv, .tsv or .txt"):
        find_metadata(tmp_path)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".csv", 'set,image,attr,obj,more\r\ntrain,"a, b.jpg",light blue,cat,1\r\n\r\n'),
        (".tsv", "image\tattr\tobj\tset\na, b.jpg\tlight blue\tcat\ttrain\n"),
        (".txt", "\ufeffimage\tattr\tobj\tset\na, b.jpg\tlight blue\tcat\ttrain\n"),
    ],
)
def test_tables_with_commas_blanks_and_further_columns(tmp_path, ending, text):
    path = tmp_path / f"m{ending}"
    path.write_text(text, newline="")
    (row,) = read_metadata(path)
    assert entry(row, 1, path) == Entry("a, b.jpg", ("light blue", "cat"), "train")


def test_a_table_parted_by_blanks_may_have_blanks_in_the_image(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("image attr obj set\nwet cat/a photo.jpg   wet cat  val\n\n")
    assert entries(read_metadata(path), path) == ([Entry("wet cat/a photo.jpg", ("wet", "cat"), "val")], 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "image,attr,object,set\na,b,c,train\n", r"no column 'obj'.*Did you mean 'object'\?"),
        ("m.csv", "", "no column 'image'. Its head line has nothing"),
        ("m.csv", "image,attr,obj,set\n", "is empty"),
        ("m.csv", "image,attr,obj,set\na,b,c,train\na,b,c\n", "Line 3 of .*m.csv is not as its head line says"),
        ("m.tsv", "image\tattr\tobj\tset\na\tb\tc\ttrain\tx\n", "Line 2 of .* It has not 4 columns"),
        ("m.txt", "image attr obj set\na b train\n", "Line 2 of .*m.txt is not as its head line says"),
    ],
)
def test_a_table_that_is_none(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_metadata(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no torch file at all", "it was not written by torch.save, or it is damaged"),
        (b"", "it was not written by torch.save, or it is damaged"),
        ({"image": "x"}, "it is not a list of dictionaries"),
        ([], "it is not a list of dictionaries"),
        ([GOOD, "x"], "it is not a list of dictionaries"),
        ([{**GOOD, "image": Path("x")}], "which could run code and is never loaded"),
    ],
)
def test_a_saved_file_that_is_none(tmp_path, content, reason):
    path = tmp_path / "m.t7"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=reason) as caught:
        read_metadata(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value), "nobody shall be told to load it in an unsafe way"


def test_a_cut_off_file_is_refused(tmp_path):
    path = tmp_path / "m.t7"
    torch.save([GOOD] * 100, path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="or it is damaged"):
        read_metadata(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": None}, "Entry 7 of m.t7 has no usable 'set'. It has the fields image, attr, obj."),
        ({"attr": 3}, "Entry 7 of m.t7 has no usable 'attr'. The field is 3, not a word."),
        ({"obj": ""}, "Entry 7 of m.t7 has no usable 'obj'. The field is '', not a word."),
        ({"set": "tran"}, "is of the split 'tran'. A split is train, val, test or NA. Did you mean 'train'?"),
        ({"set": "extra"}, "Entry 7 of m.t7 (wet_cat/1.jpg) is of the split 'extra'."),
        ({"image": "/etc/passwd"}, "names the image '/etc/passwd'. That leads out of the folder of images."),
        ({"image": "a/../../b.jpg"}, "That leads out of the folder of images."),
        ({"image": "a\\..\\b.jpg"}, "That leads out of the folder of images."),
        ({"image": "C:\\b.jpg"}, "That leads out of the folder of images."),
    ],
)
def test_a_wrong_entry_is_named(change, message):
    raw = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(UserError) as caught:
        entry(raw, 7, Path("m.t7"))
    assert message in str(caught.value)


@pytest.mark.parametrize("change", [{"attr": "NA"}, {"set": "NA"}])
def test_what_is_na_is_no_entry(change):
    assert entry({**GOOD, **change}, 1, Path("m.t7")) is None
    assert entry(GOOD, 1, Path("m.t7")) == Entry("wet_cat/1.jpg", ("wet", "cat"), "train")
