"""run, report, compare, predict and status where validation or test has no seen or no unseen images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from in_process import here
from toy_groups import with_images

from benchmarks.evaluation.empty_groups import Sizes
from benchmarks.evaluation.selection import empty_group_notes
from registry import DATASETS

BARE_NAN = re.compile(r"\bnan\b", re.IGNORECASE)


def strict(text: str) -> Any:
    """Return what JSON says; NaN and infinity are no JSON."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def register(toy, **left) -> str:
    dataset = with_images(toy, **left)
    if dataset.name not in DATASETS.names():
        DATASETS.register(dataset.name, title="toy icons")(lambda: dataset)
    return dataset.name


@pytest.mark.parametrize(
    ("left", "world", "notes", "gaps"),
    [
        ({"val": "seen"}, "closed", ["validation has no unseen images"], {"HM@val"}),
        ({"val": "nothing"}, "open", ["validation has no images"], {"HM@val"}),
        ({"test": "seen"}, "closed", ["test has no unseen images"], {"AUC", "HM", "U", "G", "HM@val"}),
        (
            {"val": "unseen", "test": "unseen"},
            "open",
            ["validation has no seen images", "test has no seen images"],
            {"AUC", "HM", "S", "G", "HM@val"},
        ),
        ({"val": "one of each", "test": "one of each"}, "closed", [], set()),
    ],
)
def test_every_command_shows_what_is_defined(tmp_path, toy, no_estimates, svg_alone, left, world, notes, gaps):
    name, results = register(toy, **left), tmp_path / "results"
    command = ("run", "--dataset", name, "--methods", "csp", "clip_zero_shot", "--epochs", 1, "--world", world)
    command += ("--device", "cpu", "--results", results)
    plan = here(*command, "--dry-run")
    for note in notes:
        assert note in plan.stdout
    assert ("undefined" in plan.stdout) == bool(notes)
    run = here(*command)
    for said in (run.stdout, run.stderr):
        assert not BARE_NAN.search(said)
    for path in results.glob("*/*.json"):
        strict(path.read_text())
    for path in results.glob("*/epochs.jsonl"):
        for line in path.read_text().splitlines():
            strict(line)
    shown_as_gap = set(re.findall(r"[\w@]+", " ".join(re.findall(r"– of ([^:]*?)(?: in \d|:)", run.stdout))))
    assert shown_as_gap - {"differ", "cap"} == gaps
    if world == "closed" and notes:  # figures take their time
        check_report(results, "AUC" in gaps)
    both = ("compare", "csp", "clip_zero_shot", "--results", results, "--resamples", 100)
    assert not BARE_NAN.search(here(*both).stdout)
    compared = strict(here(*both, "--json").stdout)[0]
    assert (compared["statistics"]["auc"]["difference"] is None) == ("AUC" in gaps)
    (folder,) = results.glob("csp-*")
    predicted = here("predict", toy.images / toy.splits["val"].images[0], "--run", folder, "--json", "--device", "cpu")
    assert strict(predicted.stdout)[0]["pairs"]
    assert ("No bias was chosen on validation" in predicted.stderr) == ("val" in left and left["val"] != "one of each")
    assert "2 done" in here("status", "--results", results).stdout


def check_report(results: Path, without_auc: bool) -> None:
    """Make every table and figure; no number that is none is in them, and what is left out is said."""
    made = here("report", "--results", results, "--resamples", 100)
    assert not BARE_NAN.search(made.stdout + made.stderr)
    tables = [*results.glob("report/*/*.md"), *results.glob("report/*/*.tex"), *results.glob("report/*/*.csv")]
    assert len(tables) >= 9
    for path in (*tables, results / "report.md"):
        assert not BARE_NAN.search(path.read_text()), path
    assert ("whose AUC is undefined" in (results / "report.html").read_text()) == without_auc


def test_test_without_any_image_is_refused_before_training(tmp_path, toy):
    found = here("run", "--dataset", register(toy, test="nothing"), "--results", tmp_path / "r", check=False)
    assert found.returncode == 2
    assert "has no test images" in found.stderr
    assert not list((tmp_path / "r").glob("*"))


def test_ordinary_data_have_no_notes(toy):
    assert empty_group_notes(toy, ["val_auc", "val_loss"], True) == []
    assert Sizes.of(toy, "val") == Sizes(18, 6)


def test_the_note_says_what_chooses(toy):
    (note,) = empty_group_notes(with_images(toy, val="unseen"), ["val_auc", "last", "val_auc"], True)
    assert note.endswith(
        "The epoch is chosen by the accuracy of validation's unseen images (val_auc was asked for). The threshold of "
        "the open world is chosen by the accuracy of validation's unseen images."
    )


def test_one_damaged_run_leaves_the_report_of_the_others(tmp_path: Path, toy):
    """A run that fails is a record with its error; what comes after it is done all the same."""
    name, results = register(toy, val="seen"), tmp_path / "results"
    command = ("run", "--dataset", name, "--methods", "csp", "--epochs", 1, "--device", "cpu", "--results", results)
    found = here(*command, "--seeds", 0, 1, "--set", "lr=1e30", check=False)
    assert found.returncode == 1
    assert len(list(results.glob("*/error.json"))) == 2
    assert here(*command, "--seeds", 2, check=False).returncode == 0
