"""One console for every command, and silence in the processes beside the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_process import here
from test_bench import plugin as plugin  # the toy data set of the command line's own tests

from benchmarks import commands
from benchmarks.commands.app import main
from benchmarks.commands.console import err, first_speaks, out

RECORDS = Path(__file__).parents[1] / "golden/report/records"
SECOND = {
    **{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
}

COST = ["cost", "--methods", "csp", "--backbone", "tiny-icons"]
PLUGIN = "the plugin with the toy data set"


def test_no_command_makes_a_console_of_its_own():
    files = Path(commands.__file__).parent.glob("*.py")
    assert [file.name for file in files if "Console(" in file.read_text(encoding="utf-8")] == ["console.py"]


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    return path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "suites"], 0, "quick"),
        (["show", "csp", "--dataset", "toy", "--plugin", PLUGIN], 0, "Nayak"),
        (["status", "--results", RECORDS], 0, "done"),
        (["status", "--results", RECORDS, "--json"], 0, '"run_id"'),
        (["report", "--results", "nowhere"], 2, "There is nothing to report"),
        (["predict", "nowhere.png", "--run", "nothing"], 2, "nothing"),
        (["compare", "nothing", "nobody"], 2, "nothing"),
        (["cancel", "--results", "nowhere"], 0, "No run in nowhere"),
        (["cache", "check", "nothing"], 2, "nothing"),
        (["data", "info", "icon_states"], 0, "icon_states"),
        (["cost", "--image", "big"], 2, "is no size of an image"),
        ([*COST, "--labels", "ut_zappos", "--flops-only", "--json"], 0, '"csp"'),
        (["run", "--methods", "mcsi"], 2, "Did you mean"),
        (["run", "--nonsense"], 2, "--nonsense"),
        (["--help"], 0, "Usage"),
    ],
)
def test_only_the_first_of_several_processes_prints(words, code, said, tmp_path, plugin, counted_once):
    words = [plugin if word is PLUGIN else word for word in words]
    first = here(*words, check=False, cwd=tmp_path)
    assert (first.returncode, said in first.stdout + first.stderr) == (code, True), first
    second = here(*words, check=False, cwd=tmp_path, env=SECOND)
    assert (second.returncode, second.stdout, second.stderr) == (code, "", "")


@pytest.mark.parametrize("command", ["run", "report", "status", "list", "cost"])
def test_a_broken_plugin_is_named_once(command, broken, tmp_path):
    words = {"run": ["run", "--methods", "mcsi"], "list": ["list", "methods"], "cost": ["cost", "--image", "big"]}
    words = [*words.get(command, [command, "--results", "nowhere"]), "--plugin", broken]
    assert f"The plugin {broken} was skipped" in " ".join(here(*words, check=False, cwd=tmp_path).stderr.split("\n"))
    second = here(*words, check=False, cwd=tmp_path, env=SECOND)
    assert second.stdout + second.stderr == ""


def test_every_kind_of_printing_is_silenced_and_comes_back(monkeypatch, capsys):
    for name, value in SECOND.items():
        monkeypatch.setenv(name, value)
    with first_speaks():
        out.print("out")
        err.print("err")
        print("print")
        print(json.dumps({"json": 1}))
        with err.status("status"):
            pass
    assert capsys.readouterr() == ("", "")
    out.print("after")
    assert capsys.readouterr().out == "after\n"


def test_what_ends_a_silent_process_is_not_hidden(monkeypatch):
    for name, value in SECOND.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("benchmarks.commands.app.app", lambda *words, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()
