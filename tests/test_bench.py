"""The command line as a user meets it: with a plugin's toy data set."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked
from in_process import here

from benchmarks.runs.locks import hold

GOLDEN_RUNS = Path(__file__).parent / "golden/report/records"
ROOT = Path(__file__).parents[1]
PLUGIN = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from toy_world import make_toy
from registry import DATASETS


@DATASETS.register("toy", title="toy icons")
def load():
    return make_toy(Path({folder!r}), train_images={images})
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A plugin file that registers the toy data set."""
    folder = tmp_path_factory.mktemp("plugin")
    path = folder / "toy_plugin.py"
    path.write_text(PLUGIN.format(tests=str(ROOT / "tests"), folder=str(folder / "toy"), images=4))
    return path


def bench(*arguments: object, check: bool = True, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "80", **options.pop("env", {})},
        **options,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def results_of(folder: Path) -> dict[str, dict]:
    """What every result says but its cost, by run."""
    found = {}
    for path in sorted(folder.glob("*/result.json")):
        content = json.loads(path.read_text())
        content.pop("cost")
        found[path.parent.name] = content
    return found


LISTS = """
import sys
from benchmarks.commands.app import main

for words in {commands!r}:
    sys.argv = ["bench.py", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    print({end!r})
"""


def test_help_and_lists_need_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    path = {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))}
    assert "run" in bench("--help", env=path).stdout
    lists = {
        "methods": "msci",
        "datasets": "icon_states",
        "backbones": "ViT-L-14",
        "launchers": "slurm",
        "suites": "quick",
    }
    commands = [*(["list", what] for what in lists), ["list", "runs", "--results", str(tmp_path / "none")]]
    code, environment = LISTS.format(commands=commands, end="-- end"), {**os.environ, **path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    *said, rest = done.stdout.split("-- end")
    assert not rest.strip()
    for text, word in zip(said, [*lists.values(), "There are no runs"], strict=True):
        assert word in text


def test_another_package_called_datasets_does_not_get_in_the_way(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("raise ImportError('the wrong datasets')")
    assert "icon_states" in bench("list", "datasets", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--methods", "mcsi"], ["No method is called 'mcsi'", "clip_zero_shot, coop", "Did you mean 'msci'?"]),
        (["run", "--dataset", "icon_state"], ["No data set is called 'icon_state'", "'icon_states'"]),
        (["run", "--suite", "quik"], ["No suite is called 'quik'", "'quick'"]),
        (["run", "--methods", "csp", "--set", "csp.dropuot=0"], ["'dropuot'", "Did you mean 'dropout'?"]),
        (["run", "--methods", "csp", "--set", "csp.lr=big"], ["'big'", "csp"]),
        (["run", "--methods", "csp", "--device", "warp"], ["The device 'warp'", "cpu"]),
        (["run", "--methods", "csp", "--precision", "fp8"], ["There is no precision 'fp8'"]),
        (["run", "--backbone", "tiny-icon"], ["tiny-icons"]),
        (["list", "method"], ["There is no list of 'method'", "'methods'"]),
        (["report", "--results", "nowhere"], ["There is nothing to report in 'nowhere'"]),
        (["report", "--results", str(GOLDEN_RUNS), "--baseline", "cps"], ["The baseline 'cps' has", "'csp'"]),
        (["run", "--methods", "csp", "--set", "threshold=0.4"], ["'threshold' belongs to the open world", "--world"]),
        (["data", "feasibility", "icon_state"], ["No data set is called 'icon_state'", "'icon_states'"]),
        (["data", "feasibility", "icon_states", "--source", "globe"], ["no source of feasibility scores 'globe'"]),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, words, tmp_path):
    done = here(*arguments, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_broken_plugin_is_named_skipped_and_listed(tmp_path):
    path = tmp_path / "bad_plugin.py"
    path.write_text("import a_package_that_is_not_there\n")
    done = here("list", "methods", "--plugin", path)
    assert "was skipped: ModuleNotFoundError" in done.stderr
    assert "broken" in done.stdout
    assert "csp" in done.stdout


def test_run_report_and_second_run(plugin, tmp_path, svg_alone):
    arguments = ["run", "--dataset", "toy", "--plugin", plugin, "--seeds", "0", "1", "--set", "csp.lr=1e-3"]
    arguments += [
        "--methods",
        "csp",
        "clip_zero_shot",
        "--epochs",
        "2",
        "--results",
        tmp_path / "r",
        "--launcher",
        "inline",
    ]
    first = Forked(*arguments)
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    assert out.count("AUC 0.") + err.count("AUC 0.") == 4
    assert "CLIP zero-shot" in out
    assert f"Report: {tmp_path / 'r' / 'report.md'}" in out
    results = results_of(tmp_path / "r")
    assert len(results) == 4
    second = here(*arguments)
    assert "Nothing new to do: the 4 runs are there already" in second.stdout
    assert results_of(tmp_path / "r") == results

    spec = json.loads(next((tmp_path / "r").glob("csp-*s1*/spec.json")).read_text())
    assert spec["spec"]["training"]["lr"] == 1e-3
    assert spec["provenance"]["lr"] == {"origin": "command line"}
    assert spec["provenance"]["epochs"]["origin"] == "command line"
    assert spec["provenance"]["optimizer"]["origin"] == "preset"
    assert spec["starts"][0]["environment"]["device"] == "cpu"

    page = (tmp_path / "r" / "report.md").read_text()
    for part in (
        "| method |",
        "toy, closed world, backbone tiny-icons, profile clean",
        "seeds 0, 1",
        "## Slices by kind",
    ):
        assert part in page
    assert "± " in here("report", "--results", tmp_path / "r", "--resamples", "100").stdout
    listed = here("list", "runs", "--results", tmp_path / "r").stdout
    assert listed.count("done") == 4


def test_an_open_world_from_the_command_line(plugin, tmp_path):
    home = {"CZSL_HOME": str(tmp_path / "home")}
    arguments = ["run", "--dataset", "toy", "--plugin", plugin, "--methods", "clip_zero_shot", "--world", "open"]
    arguments += ["--results", tmp_path / "r"]
    here(*arguments, env=home)
    here(*arguments, "--set", "threshold=0.5", env=home)
    worlds = [content["open_world"] for content in results_of(tmp_path / "r").values()]
    assert {world["searched"] for world in worlds} == {True, False}
    assert 0.5 in {world["threshold"] for world in worlds}
    page = (tmp_path / "r" / "report.md").read_text()
    assert "| U | cap |" in page and "CLIP zero-shot (threshold=0.5)" in page
    assert "masking clean" in page

    shown = here("data", "feasibility", "toy", "--plugin", plugin, "--source", "clip", env=home).stdout
    assert "4 states x 4 objects, 4 unseen pairs" in shown
    assert "2 of 2" in shown and "What a threshold keeps" in shown
    (table,) = (tmp_path / "home/feasibility").iterdir()
    assert table.name in shown, "the run and the command share the cache"
    assert worlds[0]["feasibility_digest"].startswith(shown.partition("(SHA-256 ")[2].partition(")")[0])


def test_redo_gives_the_same_bits_and_skip_leaves_alone(plugin, tmp_path):
    arguments = ["run", "--dataset", "toy", "--plugin", plugin, "--methods", "csp", "--epochs", "1"]
    arguments += ["--results", tmp_path]
    here(*arguments)
    before = results_of(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    here(*arguments, "--on-existing", "skip")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == times
    here(*arguments, "--on-existing", "redo")
    assert results_of(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} != times


def test_a_dry_run_writes_nothing(plugin, tmp_path):
    arguments = ["run", "--dataset", "toy", "--plugin", plugin, "--methods", "csp", "clip_zero_shot"]
    shown = here(*arguments, "--worlds", "closed", "open", "--dry-run", "--results", tmp_path / "r").stdout
    assert "csp-toy-tiny-icons-closed-clean-s0" in shown.replace("\n", "").replace("│", "").replace(" ", "")
    assert "(preset)" in shown
    assert "Memory in GB, estimated" in shown and shown.count("~0.") == 4
    table = shown[shown.index("Memory in GB") :].splitlines()
    assert max(map(len, table)) <= 80 and sum("toy, open" in line for line in table) == 2
    assert not (tmp_path / "r").exists()


def test_show_says_what_is_trained_and_where_settings_come_from(plugin):
    shown = here("show", "csp", "--dataset", "toy", "--plugin", plugin).stdout
    for part in ("ICLR 2023", "table.weight", "8 x 96", "[default]", "presets/csp.toml", "no_dropout", "Deviation:"):
        assert part in shown
    assert "It trains nothing." in here("show", "clip_zero_shot", "--dataset", "toy", "--plugin", plugin).stdout


def test_the_ablation_suite_runs_the_full_model_and_each_switch(plugin, tmp_path, no_estimates):
    here(
        *("run", "--suite", "ablation", "--methods", "csp", "--dataset", "toy", "--plugin", plugin),
        *("--epochs", "1", "--results", tmp_path),
    )
    specs = [json.loads(path.read_text())["spec"] for path in tmp_path.glob("*/spec.json")]
    changed = {spec["ablation"]: spec["method_config"] for spec in specs}
    assert set(changed) == {None, "no_dropout", "learned_context", "random_init"}
    assert changed["learned_context"]["learn_context"] is True
    assert "learned_context" in (tmp_path / "report.md").read_text()
    shown = here(
        *("run", "--suite", "ablation", "--methods", "csp", "--dataset", "toy", "--plugin", plugin, "--dry-run"),
        *("--set", "csp.dropout=0", "--results", tmp_path / "other"),
    ).stdout
    assert "Not run, because the full csp is set so already: no_dropout." in shown


def test_ablations_by_name(plugin, tmp_path, no_estimates):
    arguments = ["run", "--methods", "msci", "--dataset", "toy", "--plugin", plugin, "--dry-run", "--results", tmp_path]
    shown = here(*arguments, "--ablations", "parallel", "no_local_stage").stdout.replace("\n", "")
    assert "msci, seed 0: adapter_dropout=0.1 (preset)" in shown
    assert "msci, parallel, seed 0: interaction=parallel (ablation); the rest as in the first" in shown
    assert shown.count(", seed 0: ") == 3
    wrong = here(*arguments, "--ablations", "paralel", check=False)
    assert wrong.returncode == 2 and "Did you mean 'parallel'?" in wrong.stderr
    every = here(*arguments, "--ablations", "all").stdout
    assert every.count(", seed 0: ") > 30
    for name in ("no_local_stage", "no_global_stage", "parallel", "low_1", "high_3", "depth_2", "fixed_lambdas"):
        assert f"-{name}-s0" in every.replace("│", "").replace("\n", "").replace(" ", "")


def test_open_world(plugin, tmp_path):
    arguments = ["run", "--methods", "csp", "msci", "--dataset", "toy", "--plugin", plugin, "--epochs", "1"]
    here(*arguments, "--world", "open", "--results", tmp_path)
    assert {result["counts"]["test_candidates"] for result in results_of(tmp_path).values()} == {16}


def test_a_failed_run_is_a_record_and_the_others_go_on(plugin, tmp_path):
    arguments = ["run", "--methods", "csp", "clip_zero_shot", "--dataset", "toy", "--plugin", plugin]
    arguments += ["--epochs", "2", "--results", tmp_path, "--set", "csp.lr=1e30", "csp.batch_size=12"]
    done = here(*arguments, check=False)
    assert done.returncode == 1
    assert "csp, toy, seed 0 failed." in done.stderr
    assert "Lower the learning rate" in done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(error_of(tmp_path).read_text())
    assert "Traceback" in error["traceback"]
    assert len(results_of(tmp_path)) == 1, "CLIP zero-shot has its result"
    assert "failed" in (tmp_path / "report.md").read_text()
    with hold(next(tmp_path.glob("csp-*"))):
        done = here(*arguments, check=False)
    assert done.returncode == 3
    assert f"csp, toy, seed 0 is left out. The run {error_of(tmp_path).parent.name} is being done" in done.stderr
    assert f"process {os.getpid()} on " in done.stderr
    assert json.loads(error_of(tmp_path).read_text()) == error, "what another process does is not touched"


def error_of(results: Path) -> Path:
    return next(results.glob("csp-*/error.json"))


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_run_that_is_killed_and_stopped_ends_as_if_nothing_had_been(plugin, tmp_path):
    arguments = ["run", "--dataset", "toy", "--plugin", plugin, "--methods", "csp", "clip_zero_shot", "--epochs", "6"]
    arguments += ["--set", "csp.augmentation=clip", "csp.batch_size=4", "--launcher", "inline", "--results"]
    here(*arguments, tmp_path / "whole")
    results = tmp_path / "stopped"

    def epochs() -> int:
        return sum(path.read_text().count("\n") for path in results.glob("*/epochs.jsonl"))

    for number, word, code in ((9, None, -9), (signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)):
        before, deadline = epochs(), time.monotonic() + 120
        process = Forked(*arguments, results)
        while process.poll() is None and epochs() <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == code, errors
        assert results_of(results) == {}
        if word is not None:
            assert f"Stopped by {word} in csp, toy, seed 0, epoch" in errors and "Traceback" not in errors
            assert " ".join(process.words) in errors, "the command that goes on"
            record = json.loads(next(results.glob("csp-*/interrupted.json")).read_text())
            assert record["by"] == word and record["epochs"] >= before + 1
    assert "interrupted" in here("list", "runs", "--results", results).stdout
    assert "AUC" in here(*arguments, results).stdout
    assert results_of(results) == results_of(tmp_path / "whole")
    assert not list(results.glob("*/interrupted.json"))
