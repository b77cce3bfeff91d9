"""Runs of one identity computed in several ways: tables, comparisons and `run` say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import here
from report_records import make_run

from benchmarks.report.comparison import face_offs
from benchmarks.report.evidence import Question
from benchmarks.report.machines import elsewhere_note, facts, mixture_notes
from benchmarks.report.named_runs import side
from benchmarks.report.tables import tables
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.significance import Resampling

CPU = {"device": "cpu", "threads": 2, "cpu": {"name": "A CPU", "count": 4}, "packages": {"torch": "2.9"}}


def computed(run: RunRecord, **environment: Any) -> RunRecord:
    """Return a run as if computed in an environment."""
    path = run.path / "spec.json"
    content = json.loads(path.read_text())
    content["starts"][-1]["environment"] = CPU | environment
    path.write_text(json.dumps(content))
    return RunFolder(run.path).read()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"threads": 1}, "numbers of threads (1: csp seed 1; 2: csp seed 0)"),
        ({"cpu": {"name": "B CPU"}}, "devices (cpu (A CPU): csp seed 0; cpu (B CPU): csp seed 1)"),
        ({"device": "cuda", "gpu": "A GPU"}, "devices (cpu (A CPU): csp seed 0; cuda (A GPU): csp seed 1)"),
        ({"packages": {"torch": "2.8"}}, "releases of torch (2.8: csp seed 1; 2.9: csp seed 0)"),
        ({"processes": 4}, ""),  # of the other nothing is known
        ({}, ""),
    ],
)
def test_a_mixture_is_said_once_where_runs_stand_together(
    tmp_path: Path, environment: dict[str, Any], name: str
) -> None:
    runs = [computed(make_run(tmp_path, seed=0)), computed(make_run(tmp_path, seed=1), **environment)]
    notes = mixture_notes(runs)
    expected = [f"Computed with different {name}: such runs differ by more than their seeds and settings."]
    assert notes == (expected if name else [])
    for table in tables(runs, Question(resamples=0)):
        if table.title == "Results":
            assert [note for note in table.notes if note.startswith("Computed")] == notes


def test_a_run_that_went_on_elsewhere_is_a_mixture_by_itself(tmp_path: Path) -> None:
    run = computed(make_run(tmp_path, seed=0))
    path = run.path / "spec.json"
    content = json.loads(path.read_text())
    (start,) = content["starts"]
    nothing = {"time": start["time"]}  # of which a record says nothing
    content["starts"] = [nothing, {**start, "environment": CPU | {"packages": {"torch": "2.8"}}}, start, start]
    path.write_text(json.dumps(content))
    (note,) = mixture_notes([RunFolder(run.path).read()])
    assert note.startswith("Computed with different releases of torch (2.8, then 2.9: csp seed 0): ")


def test_many_runs_are_named_by_their_seeds(tmp_path: Path) -> None:
    runs = [computed(make_run(tmp_path, seed=seed), threads=1 if seed < 4 else 2) for seed in range(6)]
    assert "(1: 4 runs, seeds 0, 1, 2, 3; 2: csp seed 4, csp seed 5)" in mixture_notes(runs)[0]


def test_differences_and_compare_say_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        computed(make_run(tmp_path, "csp", seed))
        computed(make_run(tmp_path, "troika", seed), threads=1)
    runs = [RunFolder(path).read() for path in sorted(tmp_path.iterdir())]
    (note,) = mixture_notes(runs)
    differences = next(table for table in tables(runs, Question(resamples=100)) if table.name == "differences")
    assert note in differences.notes
    nothing = dict.fromkeys(("dataset", "world", "profile", "backbone"))
    (found,) = face_offs(side(tmp_path, "csp", nothing), side(tmp_path, "troika", nothing), Resampling(100))
    assert note in found.notes


def test_compare_says_what_tables_refuse(tmp_path: Path) -> None:
    worlds = [OpenWorld(feasibility="clip", feasibility_digest="f" * 64, masking=own) for own in ("clean", "official")]
    make_run(tmp_path, "csp", world="open", open_world=worlds[0])
    make_run(tmp_path, "troika", world="open", open_world=worlds[1], threads=4)
    nothing = dict.fromkeys(("dataset", "world", "profile", "backbone"))
    (found,) = face_offs(side(tmp_path, "csp", nothing), side(tmp_path, "troika", nothing), Resampling(100))
    assert {"They differ in masking: clean and official.", "They differ in threads: 1 and 4."} <= set(found.notes)
    assert not [note for note in found.notes if "feasibility" in note]


def test_an_old_record_that_says_nothing_is_no_mixture(tmp_path: Path) -> None:
    runs = [computed(make_run(tmp_path, seed=0)), computed(make_run(tmp_path, seed=1), threads=None, cpu=None)]
    assert facts({}) == {}
    assert [note for note in mixture_notes(runs) if "threads" in note] == []


def test_what_is_there_is_held_against_what_is_here(tmp_path: Path) -> None:
    runs = [computed(make_run(tmp_path, seed=0)), computed(make_run(tmp_path, seed=1), threads=1)]
    assert elsewhere_note(runs, CPU) == (
        "1 run that is there was computed in another way than here (numbers of threads: 1 there, 2 here), so new "
        "numbers may differ from theirs."
    )
    assert elsewhere_note(runs[:1], CPU) == ""
    assert elsewhere_note(runs, {key: value for key, value in CPU.items() if key != "threads"}) == ""


def test_run_says_that_a_finished_record_has_another_number_of_threads(tmp_path: Path) -> None:
    command = (
        "run",
        "--methods",
        "clip_zero_shot",
        "--dataset",
        "toy_threads",
        "--device",
        "cpu",
        "--results",
        tmp_path,
    )
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from pathlib import Path\nfrom registry import DATASETS\nfrom toy_world import make_toy\n\n"
        "@DATASETS.register('toy_threads', title='toy')\ndef toy():\n"
        f"    return make_toy(Path({str(tmp_path / 'toy')!r}), name='toy_threads')\n"
    )
    here(*command, "--plugin", plugin)
    assert "another way" not in here(*command, "--plugin", plugin).stdout
    (folder,) = tmp_path.glob("clip_zero_shot-*")
    path = folder / "spec.json"
    content = json.loads(path.read_text())
    environment = content["starts"][-1]["environment"]
    environment["threads"] += 1
    path.write_text(json.dumps(content))
    again = here(*command, "--plugin", plugin).stdout
    assert "Nothing new to do" in again
    assert f"numbers of threads: {environment['threads']} there, {environment['threads'] - 1} here" in again.replace(
        "\n", " "
    )
