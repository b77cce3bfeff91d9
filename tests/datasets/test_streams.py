"""Named streams: golden numbers, independence of names, and no torch on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from datasets import streams, transforms
from datasets.icons import render as icon_render

ROOT = Path(__file__).resolve().parents[2]


def test_streams_are_what_they_always_were():
    assert streams.derived_seed("order", 0, 3) == 5466416715336131561
    assert streams.stream("icon_states", 1, 0, "pairs").integers(0, 1000, 4).tolist() == [493, 34, 963, 835]


def test_the_same_names_give_the_same_numbers_and_others_give_others():
    assert streams.stream("a", 1).random() == streams.stream("a", 1).random() != streams.stream("a", 2).random()
    assert streams.derived_seed("a", 1) == streams.derived_seed("a", "1") != streams.derived_seed("a1")


def test_one_function_under_each_name():
    assert transforms.derived_seed is streams.derived_seed
    assert icon_render.stream is streams.stream


def test_streams_need_no_torch():
    code = "import sys, datasets.streams; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
