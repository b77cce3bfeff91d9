"""A word that may be a name or a path is the name, and it is said; a slash makes it a path."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from in_process import here
from own_photos import photos
from report_records import make_run

from benchmarks.launchers.cancel import _named
from benchmarks.report import named_runs
from benchmarks.report.named_runs import find_run
from benchmarks.running.workbench import hidden_weights
from benchmarks.runs.records import find_runs
from datasets.places import hidden_path
from errors import UserError, limited

NONE = dict.fromkeys(named_runs.CONDITIONS)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with photos, and with results of CLIP zero-shot on them."""
    folder = tmp_path_factory.mktemp("names")
    photos(folder / "photos", images=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        here("run", "--methods", "clip_zero_shot", "--dataset", "photos", "--seeds", "0", "1")
    return folder


@pytest.fixture
def place(done, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, the current one."""
    shutil.copytree(done, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_a_method_wins_over_a_folder_of_its_name(place):
    shutil.copytree("results", "clip_zero_shot")
    side = named_runs.side(Path("results"), "clip_zero_shot", NONE)
    assert {run.path.parent.name for run in side.runs} == {"results"}
    assert side.note == (
        "'clip_zero_shot' is taken for the method; for the folder of that name write ./clip_zero_shot."
    )
    for path in ("./clip_zero_shot", str(place / "clip_zero_shot"), "../place/clip_zero_shot"):
        side = named_runs.side(Path("results"), path, NONE)
        assert {run.path.parent.name for run in side.runs} == {"clip_zero_shot"} and side.note == ""
    Path("csp").mkdir()
    refused = here("compare", "clip_zero_shot", "csp", check=False)
    assert refused.returncode == 2 and "write ./csp" in refused.stderr


def test_a_word_that_is_no_name_is_a_folder(place):
    shutil.copytree("results", "older")
    assert {run.path.parent.name for run in named_runs.side(Path("results"), "older", NONE).runs} == {"older"}


def test_a_run_wins_over_a_folder_of_its_id(place):
    (run, other), _ = find_runs("results")
    shutil.copytree(other.path, run.run_id)
    found = find_run(Path("results"), run.run_id)
    assert found.path == run.path and "taken for the run" in hidden_path(run.run_id, "run", found.path)
    assert find_run(Path("results"), f"./{run.run_id}").run_id == other.run_id
    assert find_run(Path(), f"results/{run.run_id}").run_id == run.run_id
    said = here("predict", "photos/dry cat/1.png", "--run", run.run_id)
    assert "is taken for the run" in said.stderr and run.run_id in said.stdout
    folders = [run.path, Path(run.run_id).resolve()]
    assert _named(run.run_id, folders[:1]) == [run.path] and _named(f"./{run.run_id}", folders) == [folders[1]]


DAMAGE = {
    "no JSON": ("result.json", b"{"),
    "incomplete": ("spec.json", b'{"schema_version": 1}'),
    "another release": ("spec.json", b'{"schema_version": 99}'),
    "a line": ("epochs.jsonl", b"{\n{}\n"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_comparison_names_the_records_that_it_could_not_read(tmp_path, case):
    for seed in (0, 1, 2):
        make_run(tmp_path, "csp", seed)
        lost = make_run(tmp_path, "coop", seed)
    file, content = DAMAGE[case]
    (lost.path / file).write_bytes(content)
    for sides in (("csp", "coop"), ("coop", str(tmp_path))):
        words = ("compare", *sides, "--results", tmp_path, "--resamples", "100")
        shown = " ".join(here(*words).stdout.split())
        assert f"1 record in {tmp_path} ({lost.path.name})" in shown
        assert str(lost.path / file) in shown, "which file, and why"
        assert "seeds 0, 1, 2" not in shown
    notes = json.loads(here("compare", "csp", "coop", "--results", tmp_path, "--json").stdout)[0]["notes"]
    assert sum(lost.path.name in note for note in notes) == 1, "said once, although both sides lie there"
    for name in (lost.path.name, lost.path.name[:-1]):
        with pytest.raises(UserError, match=re.escape(str(lost.path / file))):
            find_run(tmp_path, name)
    with pytest.raises(UserError, match="'coop' names 3 runs"):
        find_run(tmp_path, "coop")
    for run in find_runs(tmp_path)[0]:
        if run.spec.method == "coop":
            shutil.rmtree(run.path)
    with pytest.raises(UserError, match=f"0 of 0 runs are done. Not compared.*{lost.path.name}"):
        named_runs.side(tmp_path, "coop", NONE)


def test_a_data_set_wins_over_a_folder_of_its_name(place, no_estimates):
    photos(place / "icon_states")
    note = "'icon_states' is taken for the data set; for the folder of that name write ./icon_states."
    done = here("run", "--methods", "clip_zero_shot", "--dataset", "icon_states", "--dry-run")
    assert "clip_zero_shot-icon_states-" in done.stdout.replace("\n", "") and note in done.stdout
    for command in (("data", "info"), ("data", "check", "--fast"), ("data", "feasibility")):
        assert note in here(*command, "icon_states").stderr
    assert "folder-icon_states" in here(
        "run", "--methods", "clip_zero_shot", "--dataset", "./icon_states", "--dry-run"
    ).stdout.replace("\n", "")


def test_a_launcher_is_handed_the_data_set_and_not_the_folder(place, monkeypatch):
    photos(place / "icon_states")
    from benchmarks.launchers.job import job_of
    from benchmarks.running.choices import Choices, How
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.suites import RunRequest

    workbench = Workbench(Choices(results=Path("results"), how=How(device="cpu")))
    request = RunRequest("clip_zero_shot", "icon_states", "tiny-icons", "closed", "clean", 0)
    (item,) = plan_runs([request], workbench)
    assert job_of(item, workbench.choices, (), ()).dataset == "icon_states"


def test_a_tag_wins_over_a_file_of_its_name(place):
    for name in ("openai", "own.pt"):
        Path(name).write_bytes(b"")
    assert hidden_weights("ViT-B-32-quickgelu/openai") == (
        "'openai' is taken for the tag; for the file write ViT-B-32-quickgelu/./openai."
    )
    for name in ("ViT-B-32/own.pt", "ViT-B-32/./openai", "ViT-B-32/laion400m_e32", "tiny-icons"):
        assert hidden_weights(name) == ""


def test_what_a_list_shows_is_what_there_is(place):
    """Few images flip: of three no ten are shown."""
    assert [limited(10, number) for number in (0, 3, 10, 11)] == ["0", "3", "10", "10 of 11"]
    found = here("compare", "clip_zero_shot", "./results", "--json", check=False)
    assert found.returncode == 2 and "are the same runs" in found.stderr
    assert json.dumps(limited(10, 3)) == '"3"'
