"""Lists of names: which pair a line means, and which image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.base import Split, Vocabulary
from datasets.labels import image_rows, pair_of
from errors import UserError

WORDS = Vocabulary(("light blue", "orange", "very light"), ("blue shirt", "orange", "tea, green", "shirt"))


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("light blue\torange", ("light blue", "orange")),
        ("light blue+shirt", ("light blue", "shirt")),
        ("light blue, shirt", ("light blue", "shirt")),
        ("light blue shirt", ("light blue", "shirt")),
        ("orange blue shirt", ("orange", "blue shirt")),
        ("orange\ttea, green", ("orange", "tea, green")),
        ("orange orange", ("orange", "orange")),
        ("light blue,tea, green", ("light blue", "tea, green")),
        ("very light+tea, green", ("very light", "tea, green")),
    ],
)
def test_the_vocabulary_decides_where_labels_hold_blanks_and_signs(line, pair):
    assert pair_of(line, WORDS) == pair


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("orenge shirt", "The data set has no state 'orenge'. Did you mean 'orange'"),
        ("orange\tshirts", "The data set has no object 'shirts'. Did you mean 'shirt'"),
        ("orange", "No pairs of the data set can be read in it."),
        ("a,b\tc", "The data set has no state"),
    ],
)
def test_what_is_no_pair_is_said(line, message):
    with pytest.raises(UserError) as refusal:
        pair_of(line, WORDS)
    assert message in str(refusal.value)


def test_a_line_of_two_meanings_is_refused():
    words = Vocabulary(("light", "light blue"), ("blue shirt", "shirt"))
    with pytest.raises(UserError, match="2 pairs of the data set can be read in it"):
        pair_of("light blue shirt", words)
    assert pair_of("light\tblue shirt", words) == ("light", "blue shirt")


def split_of(*names: str) -> Split:
    nothing = np.zeros(len(names), dtype=np.int64)
    return Split("test", names, nothing, nothing)


@pytest.mark.parametrize("prefix", ["", "./", "images/", "/data/images/mit-states/images/", "C:\\data\\images\\"])
def test_an_image_is_named_from_the_folder_of_images_on(tmp_path: Path, prefix: str):
    (tmp_path / "names.txt").write_text(f"{prefix}b/2.jpg\n\n{prefix}a/images/1.jpg\n")
    assert image_rows(tmp_path / "names.txt", split_of("a/images/1.jpg", "b/2.jpg")) == [1, 0]


def test_an_image_is_named_with_folders_before_it(tmp_path: Path):
    """As a CSV file of own images names it, or with an absolute path."""
    (tmp_path / "names.txt").write_text("/home/me/img/b/2.jpg\nimg/1.jpg\n")
    assert image_rows(tmp_path / "names.txt", split_of("1.jpg", "b/2.jpg")) == [1, 0]


def test_names_that_are_not_unique_name_nothing(tmp_path: Path):
    (tmp_path / "names.txt").write_text("a.jpg\na.jpg\n")
    with pytest.raises(UserError, match="1 are there more than once"):
        image_rows(tmp_path / "names.txt", split_of("a.jpg", "a.jpg"))
