"""Runs in processes of this machine: equal to runs in one process, failures apart, stopped and cancelled ones kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from jobs import SLOW, TOY, epochs
from slurm_node import wait_until
from test_bench import ROOT, bench, results_of

from benchmarks.launchers.local import CORES_PER_RUN, shares

RUN = ["run", "--dataset", TOY, "--set", *SLOW]
LOCAL = ["--launcher", "local", "--jobs", "2"]


def started(*arguments: object) -> subprocess.Popen:
    """The pool of `bench.py`, not waited for."""
    command = [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_pool_does_what_one_process_does_and_a_failure_stops_nobody(toy_plugin, whole, tmp_path):
    arguments = [*RUN, "csp.lr=1e30", "--plugin", toy_plugin, "--methods", "coop", "csp", *LOCAL, "--results", tmp_path]
    done = bench(*arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("failed.") == 1 and "csp, toy_jobs, seed 0 failed." in done.stderr
    (coop,) = tmp_path.glob("coop-*")
    assert results_of(tmp_path) == {coop.name: whole[coop.name]}
    start = json.loads((coop / "spec.json").read_text())["starts"][-1]
    assert start["environment"]["launcher"] == "local" and start["environment"]["job"].startswith("local-")
    assert start["environment"]["threads"] == 1, "the cores are divided, and no more than the user allowed"
    assert "a lower learning rate helps" in json.loads(next(tmp_path.glob("csp-*/error.json")).read_text())["message"]
    assert "Results" in done.stdout, "the pool ends with the report"
    assert list((tmp_path / ".launch").iterdir()) == [tmp_path / ".launch" / "lock"], "nothing else is left behind"


def test_a_stopped_pool_goes_on(toy_plugin, whole, tmp_path):
    arguments = [*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *LOCAL, "--results", tmp_path]
    pool = started(*arguments)
    assert wait_until(lambda: sum(epochs(path) for path in tmp_path.glob("coop-*")) >= 2, 90), pool.poll()
    pool.send_signal(signal.SIGTERM)
    _, said = pool.communicate(timeout=60)
    assert pool.returncode == 128 + signal.SIGTERM and "Nothing is lost; go on with:" in said
    kept = {path.name: epochs(path) for path in tmp_path.glob("coop-*")}
    assert bench("status", "--results", tmp_path).stdout.count("interrupted") >= 1
    bench(*arguments)
    found = results_of(tmp_path)
    assert found == {name: whole[name] for name in found} and len(found) == 2
    assert all(epochs(tmp_path / name) == 6 for name in kept)


def test_runs_that_wait_in_a_pool_can_be_cancelled(toy_plugin, tmp_path):
    one = ["--launcher", "local", "--jobs", "1", "--results", tmp_path]
    pool = started(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *one)
    assert wait_until(lambda: sum(epochs(path) for path in tmp_path.glob("coop-*")) >= 1, 90), pool.poll()
    (waits,) = (path for path in tmp_path.glob("coop-*") if not (path / "spec.json").exists())
    assert "queued" in bench("status", "--results", tmp_path).stdout
    assert "taken out of the queue" in bench("cancel", waits.name, "--results", tmp_path).stdout
    assert "is asked to stop" in bench("cancel", "--results", tmp_path).stdout
    pool.communicate(timeout=60)
    assert not list(tmp_path.glob("*/result.json")) and not (waits / "spec.json").exists()
    stopped = next(path for path in tmp_path.glob("coop-*") if path != waits)
    assert epochs(stopped) < 6 and (stopped / "interrupted.json").exists()


def test_the_record_of_a_run_is_enough_to_do_it_again(toy_plugin, whole, tmp_path):
    bench(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--results", tmp_path / "one")
    (coop,) = (tmp_path / "one").glob("coop-*")
    other = tmp_path / "two"
    bench("run", "--spec", coop / "spec.json", "--plugin", toy_plugin, "--results", other)
    assert results_of(other) == {coop.name: whole[coop.name]}
    again = bench("run", "--spec", coop / "spec.json", "--plugin", toy_plugin)
    assert "Nothing new to do: the run is there already" in again.stdout
    altered = json.loads((coop / "spec.json").read_text())
    altered["spec"]["seed"] = 7
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    (tmp_path / "other.json").write_text('{"digest": 1}')
    for path, words in (("altered.json", "has been altered"), ("other.json", "is no run"), ("missing.json", "missing")):
        refused = bench("run", "--spec", tmp_path / path, "--plugin", toy_plugin, check=False)
        assert refused.returncode == 2 and words in refused.stderr and "Traceback" not in refused.stderr
    both = bench("run", "--spec", coop / "spec.json", "--methods", "csp", check=False)
    assert both.returncode == 2 and "--methods does not go with --spec" in both.stderr


@pytest.mark.parametrize(
    ("jobs", "gpus", "cores", "places", "threads"),
    [(None, [], 8, 8 // CORES_PER_RUN, "4"), (None, [], 1, 1, "1"), (3, [], 2, 3, "1"), (None, ["0", "2"], 8, 2, "4")],
)
def test_cores_are_shared_among_runs(monkeypatch, jobs, gpus, cores, places, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = shares(jobs, "auto", gpus, cores)
    assert len(found) == places and {place["OMP_NUM_THREADS"] for place in found} == {threads}
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in found] == (gpus or [None] * places)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {place["OMP_NUM_THREADS"] for place in shares(jobs, "auto", gpus, cores)} == {"1"}


def test_a_launcher_of_ones_own(toy_plugin, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from benchmarks.launchers.inline import Inline\n"
        "from registry import LAUNCHERS\n\n\n"
        '@LAUNCHERS.register("backwards", title="last run first")\n'
        "class Backwards(Inline):\n"
        '    name = "backwards"\n\n'
        "    def launch(self, planned, workbench, watch):\n"
        "        return super().launch(planned[::-1], workbench, watch)\n"
    )
    listed = bench("list", "launchers", "--plugin", own).stdout
    assert all(name in listed for name in ("inline", "local", "slurm", "backwards"))
    arguments = [
        "run",
        "--dataset",
        TOY,
        "--plugin",
        toy_plugin,
        own,
        "--methods",
        "clip_zero_shot",
        "--seeds",
        "0",
        "1",
    ]
    done = bench(*arguments, "--launcher", "backwards", "--results", tmp_path / "r")
    lines = [line for line in done.stderr.splitlines() if "AUC" in line]
    assert ["seed 1" in lines[0], "seed 0" in lines[1]] == [True, True]
    assert os.environ.get("CZSL_LAUNCHER") is None
