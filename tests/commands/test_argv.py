"""The ways in which lists and flags may be written."""

from __future__ import annotations

import pytest

from benchmarks.commands.argv import plain_flags, spread_lists


@pytest.mark.parametrize(
    "arguments",
    [
        ["--methods", "msci", "csp"],
        ["--methods", "msci", "--methods", "csp"],
        ["--methods", "msci,csp"],
        ["--methods=msci,csp"],
        ["--methods=msci", "csp"],
        ["--methods", "msci,", "csp"],
    ],
)
def test_every_way_to_write_a_list(arguments):
    expected = ["run", "--methods", "msci", "--methods", "csp", "--dry-run"]
    assert spread_lists(["run", *arguments, "--dry-run"]) == expected


def test_lists_end_at_the_next_option_and_settings_keep_their_commas():
    given = ["run", "--seeds", "0", "1", "--set", "csp.lr=1e-3", "x=[1,2]", "--dataset", "d", "--", "--methods", "a"]
    assert spread_lists(given) == [
        *("run", "--seeds", "0", "--seeds", "1", "--set", "csp.lr=1e-3", "--set", "x=[1,2]"),
        *("--dataset", "d", "--", "--methods", "a"),
    ]


@pytest.mark.parametrize("word", ["False", "no", "0", "off"])
def test_a_flag_that_is_said_to_be_false_is_false(word):
    assert (
        plain_flags(["run", "--dry-run", word]) == plain_flags(["run", f"--dry-run={word}"]) == ["run", "--no-dry-run"]
    )
    assert plain_flags(["run", "--recompute", "True", "--seeds", "0"]) == ["run", "--recompute", "--seeds", "0"]
