"""The number of threads: one on a processor, whatever starts a run; another number makes another run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from in_process import here
from jobs import TOY, numbers_of
from test_bench import ROOT, bench

from benchmarks.report.groups import groups
from benchmarks.report.reproduce import reproduce
from benchmarks.running.choices import one_thread, use_threads
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.training.frozen_features import _made_with
from datasets.feasibility import feasibility_scores
from errors import UserError

TWO = ("--methods", "csp", "dfsp", "--epochs", "1")


@pytest.fixture
def as_it_was():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def threads_of(results):
    return {run.environment["threads"] for run in find_runs(results)[0]}


def test_every_launcher_and_environment_gives_the_same_bits(toy_plugin, tmp_path):
    """What the user set for the libraries does not matter, nor does who starts the runs."""
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, *TWO, "--no-feature-cache"]
    many = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    bench(*arguments, "--launcher", "inline", "--results", tmp_path / "one", env=many)
    pool = here(*arguments, "--jobs", "2", "--results", tmp_path / "two", env=many)  # its runs are processes
    here(*arguments, "--results", tmp_path / "three")
    found = [numbers_of(tmp_path / name) for name in ("one", "two", "three")]
    assert found[0] == found[1] == found[2] and len(found[0]) == 2
    assert threads_of(tmp_path / "one") == threads_of(tmp_path / "two") == {1}
    assert pool.stderr.count("AUC") == 2, "a pool says what comes out as one process does"


def test_another_number_is_another_run(toy_plugin, tmp_path, as_it_was):
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--results", tmp_path]
    here(*arguments)
    here(*arguments, "--threads", "2")
    one, two = sorted(find_runs(tmp_path)[0], key=lambda run: run.spec.threads)
    assert (one.spec.threads, two.spec.threads) == (1, 2) and one.run_id != two.run_id
    assert (one.environment["threads"], two.environment["threads"]) == (1, 2)
    assert len(groups([one, two])) == 2, "they do not stand in one table"
    assert "--threads 2" in reproduce(two) and "--threads" not in reproduce(one)
    there = here(*arguments, "--threads", "2")
    assert "Nothing new to do: the run is there already" in there.stdout
    again = here("run", "--spec", two.path / "spec.json", "--plugin", toy_plugin, "--results", tmp_path / "again")
    assert again.returncode == 0 and threads_of(tmp_path / "again") == {2}
    assert numbers_of(tmp_path / "again") == {two.run_id: numbers_of(tmp_path)[two.run_id]}
    refused = here(*arguments, "--threads", "0", check=False)
    assert refused.returncode == 2


def test_one_thread_is_what_records_without_the_number_were(toy_plugin, tmp_path):
    """A specification that was written before the number of threads was one keeps its digest."""
    here("run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--results", tmp_path)
    (path,) = tmp_path.glob("*/spec.json")
    content = json.loads(path.read_text())
    assert content["spec"].pop("threads") == 1
    path.write_text(json.dumps(content))
    old = RunFolder(path.parent).read()
    assert old.spec.threads == 1 and old.spec.run_id == path.parent.name


def test_the_host_of_an_accelerator_keeps_its_threads(as_it_was):
    before = torch.get_num_threads()
    use_threads(torch.device("meta"), 1)
    assert torch.get_num_threads() == before
    with pytest.raises(UserError, match=r"2 threads were asked for.*Leave --threads out"):
        use_threads(torch.device("cuda"), 2)
    use_threads(torch.device("cpu"), 2)
    assert torch.get_num_threads() == 2
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_kept_features_belong_to_a_number_of_threads():
    assert "1 thread" in _made_with("cpu", 1) and _made_with("cpu", 1) != _made_with("cpu", 2)


SCORES = """
import hashlib, numpy as np
from datasets.feasibility import _cosines, feasibility_scores
draw = np.random.default_rng(0)
states, objects, seen = draw.normal(size=(115, 300)), draw.normal(size=(245, 300)), draw.random((115, 245)) < 0.05
scores = feasibility_scores(states, objects, seen)
print(hashlib.sha256(_cosines(objects, 245).tobytes() + scores.tobytes()).hexdigest())
"""


def test_feasibility_scores_do_not_depend_on_the_threads_of_blas():
    """At this size OpenBLAS shares a product among threads, and rounds otherwise."""
    said = set()
    for threads in ("1", "2"):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", SCORES], env=env, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 8))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = np.eye(30, dtype=bool)
    slow = np.array([[(units[a] @ units[b] + units[b] @ units[a]) / 2 for b in range(30)] for a in range(30)])
    found = feasibility_scores(vectors, vectors, seen)
    assert np.allclose(found[~seen], slow[~seen], atol=1e-7)
