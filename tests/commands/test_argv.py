"""The ways in which lists and flags may be written."""

from __future__ import annotations

import pytest
import typer
from in_process import here

from benchmarks.commands.app import app
from benchmarks.commands.argv import WITHOUT_ARGUMENTS, plain_flags, spread_lists


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


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("compare --plugin p.py dfsp csp", "compare --plugin p.py dfsp csp"),
        ("compare --plugin=p.py dfsp csp", "compare --plugin p.py dfsp csp"),
        ("compare --plugin p.py q.py dfsp csp", "compare --plugin p.py --plugin q.py dfsp csp"),
        ("predict --plugin p.py photo.png --run r", "predict --plugin p.py photo.png --run r"),
        ("data info --plugin p.py mine", "data info --plugin p.py mine"),
        ("tune --grid lr=1,2 dropout=0 csp", "tune --grid lr=1,2 --grid dropout=0 csp"),
        ("tune --set a=1 b=[1,2] csp --grid lr=1", "tune --set a=1 --set b=[1,2] csp --grid lr=1"),
        ("tune --seeds 100 101,102 csp", "tune --seeds 100 --seeds 101 --seeds 102 csp"),
        ("tune --grid lr csp", "tune --grid lr csp"),
        ("run --set lr=1 dropout", "run --set lr=1 --set dropout"),
        ("run --seeds 0 x", "run --seeds 0 --seeds x"),
        ("report --results a b --plugin p.py q", "report --results a --results b --plugin p.py --plugin q"),
    ],
)
def test_an_argument_after_a_list_is_an_argument_and_a_mistake_in_one_is_a_mistake(given, read):
    assert spread_lists(given.split()) == read.split()


def test_every_command_is_known_to_have_arguments_or_none():
    def arguments(command) -> bool:
        nested = command.commands.values() if hasattr(command, "commands") else ()
        return any(one.param_type_name == "argument" for one in command.params) or any(map(arguments, nested))

    found = {name for name, command in typer.main.get_command(app).commands.items() if not arguments(command)}
    assert found == set(WITHOUT_ARGUMENTS)


def test_a_plugin_may_stand_before_the_arguments(tmp_path):
    plugin = tmp_path / "own.py"
    plugin.write_text("")
    done = here("show", "--plugin", plugin, "csp")
    assert "ICLR 2023" in done.stdout


@pytest.mark.parametrize("word", ["False", "no", "0", "off"])
def test_a_flag_that_is_said_to_be_false_is_false(word):
    assert (
        plain_flags(["run", "--dry-run", word]) == plain_flags(["run", f"--dry-run={word}"]) == ["run", "--no-dry-run"]
    )
    assert plain_flags(["run", "--recompute", "True", "--seeds", "0"]) == ["run", "--recompute", "--seeds", "0"]
