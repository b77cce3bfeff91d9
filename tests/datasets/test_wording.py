"""Numbers in sentences."""

from __future__ import annotations

import pytest

from datasets.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ("image",), "1 image"),
        (0, ("image",), "0 images"),
        (1200, ("image",), "1,200 images"),
        (1, ("run is", "runs are"), "1 run is"),
        (2, ("run is", "runs are"), "2 runs are"),
    ],
)
def test_numbers_go_with_their_nouns(number, words, said):
    assert counted(number, *words) == said
