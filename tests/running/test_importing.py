"""`export` and `import` as a user meets them: a run goes out in the released form and comes back with its numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import here
from own_photos import photos
from toy_world import make_toy

from benchmarks.report.reproduce import reproduce
from benchmarks.runs.records import find_runs

PLUGIN = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from toy_world import make_toy
from registry import DATASETS


@DATASETS.register("toy", title="toy icons")
def load():
    return make_toy(Path({folder!r}), train_images=2)
"""
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Runs of two methods, and for each the file that it was exported to and the command that reads it back."""
    folder = tmp_path_factory.mktemp("bridge")
    plugin = folder / "toy_plugin.py"
    make_toy(folder / "toy", train_images=2)
    plugin.write_text(PLUGIN.format(tests=str(TESTS), folder=str(folder / "toy")))
    results = folder / "results"
    here("run", "--plugin", plugin, "--dataset", "toy", "--methods", "csp", "troika", "--epochs", 1,
         "--results", results, "--no-feature-cache")  # fmt: skip
    commands = {}
    for run in find_runs(results)[0]:
        file = folder / f"{run.spec.method}.pt"
        done = here("export", run.run_id, "--to", "official", "--out", file, "--results", results, "--plugin", plugin)
        commands[run.spec.method] = shlex.split(done.stdout.splitlines()[-1])[2:]
    return results, plugin, commands


@pytest.mark.parametrize("method", ["csp", "troika"])
def test_an_import_is_the_run_that_was_exported(exported, method):
    results, plugin, commands = exported
    said = here(*commands[method], "--results", results, "--plugin", plugin, "--no-feature-cache").stdout
    assert "(imported)" in said and ("CLIP in it is the backbone's" in said) == (method == "troika")
    runs = [run for run in find_runs(results)[0] if run.spec.method == method]
    trained, imported = sorted(runs, key=lambda run: run.spec.imported is not None)
    assert imported.spec.training.epochs == 0 and len(imported.spec.imported) == 64
    assert imported.asked.checkpoint == str(Path(commands[method][1]).absolute())
    same = [run.finished.model_dump(exclude={"cost", "run_id", "selection"}) for run in runs]
    assert str(same[0]) == str(same[1])
    assert np.isnan(imported.finished.cost.train_seconds)
    assert imported.finished.cost.trained_parameters == trained.finished.cost.trained_parameters
    arrays = [np.load(run.path / "scores.npz") for run in runs]
    assert all(np.array_equal(arrays[0][key], arrays[1][key]) for key in arrays[0].files)
    done = here("compare", trained.path, imported.path, "--results", results, "--resamples", 100, "--json")
    assert json.loads(done.stdout)[0]["flips"] == []
    # Its own weights are kept: it goes out again as the same file, and once more in is nothing new.
    again = results.parent / f"{method}-again.pt"
    here("export", imported.run_id, "--out", again, "--results", results, "--plugin", plugin)
    first, second = (torch.load(path, weights_only=True) for path in (commands[method][1], again))
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    assert "Nothing new to do" in here(*commands[method], "--results", results, "--plugin", plugin).stdout


def test_what_cannot_be_done_is_said_and_loses_nothing(exported, tmp_path):
    results, plugin, commands = exported
    plain = ("--results", results, "--plugin", plugin)

    def said(*arguments) -> str:
        done = here(*arguments, *plain, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    here(*commands["csp"], *plain)
    (imported,) = (run for run in find_runs(results)[0] if run.spec.imported and run.spec.method == "csp")
    before = (imported.path / "result.json").read_bytes()
    done = here("run", "--spec", imported.path / "spec.json", "--on-existing", "redo", "--plugin", plugin, check=False)
    assert done.returncode != 0 and "Give the command bench.py import with that file" in " ".join(done.stderr.split())
    assert (imported.path / "result.json").read_bytes() == before
    assert "The shapes of its tensors say traction_layers=3" in said(*commands["troika"], "--set", "traction_layers=2")
    assert "Nothing is trained" in said(*commands["csp"], "--set", "lr=1")
    other = [word if word != "toy" else str(photos(tmp_path / "photos")) for word in commands["troika"]]
    assert "Its table has 8 rows, and folder:photos has 3 states + 3 objects = 6" in said(*other)
    assert "File exists" in said("export", imported.run_id, "--out", commands["csp"][1])
    assert reproduce(imported).startswith(
        f"python bench.py import {commands['csp'][1]} --method csp --dataset toy --seed 0"
    )


def test_a_methods_name_means_the_runs_that_trained(exported):
    results, plugin, commands = exported
    for method in ("csp", "troika"):
        here(*commands[method], "--results", results, "--plugin", plugin)
    said = " ".join(here("compare", "csp", "troika", "--results", results, "--resamples", 100).stdout.split())
    assert "Left out of csp: 1 run with imported weights; pass a run's id to compare it." in said


def test_reports_of_imported_weights_claim_no_training(exported, tmp_path, svg_alone):
    results, plugin, commands = exported
    here(*commands["csp"], "--results", results, "--plugin", plugin)
    here(*commands["csp"], "--results", tmp_path, "--plugin", plugin)
    for folder, others in ((results, True), (tmp_path, False)):
        here("report", "--results", folder, "--plugin", plugin, "--resamples", 100)
        assert not (folder / "report-errors.txt").exists()
        assert (folder / "report.html").is_file() and bool([*folder.glob("report/*/cost.svg")]) == others
        (row,) = (
            line
            for line in (folder / "report.md").read_text().splitlines()
            if line.startswith("| CSP (imported) | ") and "768" in line
        )
        assert "nan" not in row and " – " in row
