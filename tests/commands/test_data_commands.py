"""The commands on published data sets as a user meets them, on made miniatures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from in_process import here
from test_bench import bench, results_of

from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.suites import Suite, expand
from datasets.miniature import make
from errors import UserError
from registry import DATASETS


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Where the miniatures lie; MIT-States has pictures larger than the backbone's, the others smaller ones."""
    folder = tmp_path_factory.mktemp("data")
    make("mit_states", folder, pixels=224, images={"train": 2, "val": 1, "test": 1})
    make("ut_zappos", folder)
    make("cgqa", folder)
    return folder


def test_run_and_report(root, tmp_path, svg_alone):
    arguments = ["run", "--methods", "csp", "msci", "--dataset", "mit_states", "--epochs", "1", "--results", tmp_path]
    done = here(*arguments, env={"CZSL_DATA": str(root)})
    assert f"mit_states in {root / 'mit-states'} is a made miniature" in done.stdout.replace("\n", " ")
    assert len(results_of(tmp_path)) == 2
    assert "MSCI" in here("report", "--results", tmp_path, "--resamples", "100").stdout
    page = (tmp_path / "report.md").read_text()
    assert "mit_states, closed world" in page
    assert "## Slices by training images of the pair" in page
    assert "0 unseen" in page and "0 seen" not in page, "no column for what cannot be"


@pytest.mark.parametrize("world", ["closed", "open"])
@pytest.mark.parametrize("name", ["mit_states", "ut_zappos", "cgqa"])
def test_every_miniature_is_trained_on_and_evaluated_in_both_worlds(root, tmp_path, monkeypatch, name, world):
    monkeypatch.setenv("CZSL_DATA", str(root))
    workbench = Workbench(Choices(results=tmp_path, epochs=1, how=How(device="cpu")))
    methods = ("csp", "msci") if world == "closed" else ("msci",)
    suite = Suite(methods=methods, datasets=(name,), worlds=(world,))
    for planned in plan_runs(expand(suite), workbench):
        result = execute(planned, workbench).finished
        dataset = workbench.dataset(name)
        for phase, split in dataset.splits.items():
            assert getattr(result.counts, f"{phase}_images") == len(split)
        assert result.counts.test_candidates == len(dataset.candidates("test", world))
        assert {entry.tag for entry in result.slices} == set(dataset.splits["test"].slices)
        assert "left_out_images" not in result.content()
    assert workbench.notes == list(dataset.notes)


def test_missing_images_stop_a_run_until_they_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    make("ut_zappos", tmp_path)
    dataset = DATASETS.get("ut_zappos")(tmp_path / "ut-zappos")
    lost = dataset.image_path("train", 4)
    lost.unlink()
    arguments = ["run", "--methods", "csp", "--dataset", "ut_zappos", "--epochs", "1", "--results", tmp_path / "r"]
    with pytest.raises(UserError, match=f"1 of the 83 images of ut_zappos is missing.*{lost.name}.*--allow-missing 1"):
        plan_runs(expand(Suite(methods=("csp",), datasets=("ut_zappos",))), Workbench(Choices(how=How(device="cpu"))))
    assert Workbench(Choices(how=How(device="cpu", allow_missing=None))).dataset("ut_zappos").left_out == ()
    done = here(*arguments, "--allow-missing", "1")
    assert "is missing and left out" in done.stdout
    assert "1 image that the splits list was missing and left out" in (tmp_path / "r" / "report.md").read_text()
    (path,) = (tmp_path / "r").glob("csp-*")
    result, spec = (json.loads((path / name).read_text()) for name in ("result.json", "spec.json"))
    assert result["counts"]["train_images"] == 50
    assert result["left_out_images"] == [dataset.splits["train"].images[4]]
    assert spec["spec"]["dataset_digest"] != dataset.digest, "fewer images are other data and another run"


def test_a_corrupt_image_is_named_by_the_run_and_by_the_check(tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_DATA", str(tmp_path))
    make("ut_zappos", tmp_path)
    broken = DATASETS.get("ut_zappos")(tmp_path / "ut-zappos").image_path("val", 1)
    broken.write_bytes(broken.read_bytes()[:150])
    arguments = ["run", "--methods", "csp", "--dataset", "ut_zappos", "--epochs", "1", "--results", tmp_path / "r"]
    stopped = here(*arguments, "--workers", "1", check=False)
    assert (stopped.returncode, "Traceback" in stopped.stderr) == (1, False)
    assert f"The image '{broken.name}' of the val split of ut_zappos cannot be read" in stopped.stderr
    error = json.loads(next((tmp_path / "r").glob("csp-*/error.json")).read_text())
    assert broken.name in error["message"]
    check = here("data", "check", "ut_zappos", check=False)
    assert check.returncode == 1
    assert "Problem: 1 image cannot be read: " in check.stdout and broken.name in check.stdout
    assert "1 problem. Images were read." in check.stdout


def test_info_of_a_miniature_that_is_there(root):
    shown = here("data", "info", "cgqa", env={"CZSL_DATA": str(root)}).stdout
    for text in ("Licence: CC BY 4.0.", f"Here: {root / 'cgqa'}", "14 words are a state and an object", "1,252"):
        assert text in shown


def test_info_needs_no_torch_and_no_data(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    shown = bench("data", "info", "mit_states", env={"PYTHONPATH": str(tmp_path), "CZSL_DATA": str(tmp_path)}).stdout
    assert "The data set mit_states is not here." in shown and "30,338" in shown


def test_data_that_is_not_here_is_one_line_with_what_to_do(tmp_path):
    done = here("data", "check", "cgqa", check=False, env={"CZSL_DATA": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "python bench.py data fetch cgqa" in done.stderr
    assert "Did you mean 'cgqa'?" in here("data", "info", "cqa", check=False).stderr


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_fetch_that_is_stopped_says_that_the_same_command_goes_on(tmp_path, monkeypatch, number, word):
    def stopped(*given, **more):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("datasets.fetching.download.fetch", stopped)
    done = here("data", "fetch", "cgqa", "--yes", env={"CZSL_DATA": str(tmp_path)}, check=False)
    assert done.returncode == 128 + number
    assert f"Stopped by {word}. Nothing finished is lost; the same command goes on." in done.stderr
    assert "Traceback" not in done.stderr
