"""Runs in processes of this machine: equal to runs in one process, failures apart, stopped and cancelled ones kept."""

from __future__ import annotations

import json
import signal

import pytest
from in_process import here, plugins_apart
from jobs import PATIENCE, SLOW, TOY, epochs, numbers_of, started, until

from benchmarks.launchers.local import shares
from benchmarks.runs.locks import is_held
from registry import LAUNCHERS

RUN = ["run", "--dataset", TOY, "--set", *SLOW]
LOCAL = ["--launcher", "local", "--jobs", "2"]


def test_a_pool_does_what_one_process_does_and_a_failure_stops_nobody(
    toy_plugin, whole, tmp_path, no_estimates, forked_runs
):
    arguments = [*RUN, "csp.lr=1e30", "--plugin", toy_plugin, "--methods", "coop", "csp", *LOCAL, "--results", tmp_path]
    assert "2 runs, 2 at a time" in here(*arguments, "--dry-run").stdout and not list(tmp_path.iterdir())
    done = here(*arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("failed.") == 1 and "csp, toy_jobs, seed 0 failed." in done.stderr
    (coop,) = tmp_path.glob("coop-*")
    assert numbers_of(tmp_path) == {coop.name: whole[coop.name]}
    start = json.loads((coop / "spec.json").read_text())["starts"][-1]
    assert start["environment"]["launcher"] == "local" and start["environment"]["job"].startswith("local-")
    assert start["environment"]["threads"] == 1, "as every run on a processor"
    assert "a lower learning rate helps" in json.loads(next(tmp_path.glob("csp-*/error.json")).read_text())["message"]
    assert "Results" in done.stdout, "the pool ends with the report"
    assert list((tmp_path / ".launch").iterdir()) == [tmp_path / ".launch" / "lock"], "nothing else is left behind"


def test_a_stopped_pool_goes_on(toy_plugin, whole, tmp_path, forked_runs):
    arguments = [*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *LOCAL, "--results", tmp_path]
    with started(*arguments) as pool:
        until(lambda: sum(epochs(path) for path in tmp_path.glob("coop-*")) >= 2)
        pool.send_signal(signal.SIGINT)
        _, said = pool.communicate(timeout=PATIENCE)
    assert pool.returncode == 128 + signal.SIGINT and "Nothing is lost; go on with:" in said
    assert here("status", "--results", tmp_path).stdout.count("interrupted") >= 1
    assert not numbers_of(tmp_path), "none got to its end"
    here(*arguments)
    found = numbers_of(tmp_path)
    assert found == {name: whole[name] for name in found} and len(found) == 2
    assert all(epochs(tmp_path / name) == 6 for name in found)


def test_a_killed_pool_leaves_no_run_at_work(toy_plugin, whole, tmp_path, forked_runs):
    arguments = [*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *LOCAL, "--results", tmp_path]
    with started(*arguments) as pool:
        until(lambda: all(epochs(path) for path in tmp_path.glob("coop-*")) and len(list(tmp_path.glob("coop-*"))) == 2)
        pool.kill()
        pool.communicate(timeout=PATIENCE)
    folders = list(tmp_path.glob("coop-*"))
    until(lambda: all((path / "interrupted.json").exists() and is_held(path) is None for path in folders))
    here(*arguments)
    found = numbers_of(tmp_path)
    assert found == {name: whole[name] for name in found} and len(found) == 2


def test_runs_that_wait_in_a_pool_can_be_cancelled(toy_plugin, tmp_path):
    one = ["--launcher", "local", "--jobs", "1", "--results", tmp_path]
    with started(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *one) as pool:
        until(lambda: sum(epochs(path) for path in tmp_path.glob("coop-*")) >= 1)
        (waits,) = (path for path in tmp_path.glob("coop-*") if not (path / "spec.json").exists())
        assert "queued" in here("status", "--results", tmp_path).stdout
        assert "taken out of the queue" in here("cancel", waits.name, "--results", tmp_path).stdout
        assert "is asked to stop" in here("cancel", "--results", tmp_path).stdout
        pool.communicate(timeout=PATIENCE)
    assert not list(tmp_path.glob("*/result.json")) and not (waits / "spec.json").exists()
    stopped = next(path for path in tmp_path.glob("coop-*") if path != waits)
    assert epochs(stopped) < 6 and (stopped / "interrupted.json").exists()


def test_the_record_of_a_run_is_enough_to_do_it_again(toy_plugin, whole, tmp_path):
    here(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--results", tmp_path / "one")
    (coop,) = (tmp_path / "one").glob("coop-*")
    other = tmp_path / "two"
    here("run", "--spec", coop / "spec.json", "--plugin", toy_plugin, "--results", other)
    assert numbers_of(other) == {coop.name: whole[coop.name]}
    again = here("run", "--spec", coop / "spec.json", "--plugin", toy_plugin)
    assert "Nothing new to do: the run is there already" in again.stdout
    altered = json.loads((coop / "spec.json").read_text())
    altered["spec"]["seed"] = 7
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    (tmp_path / "other.json").write_text('{"digest": 1}')
    for path, words in (("altered.json", "has been altered"), ("other.json", "is no run"), ("missing.json", "missing")):
        refused = here("run", "--spec", tmp_path / path, "--plugin", toy_plugin, check=False)
        assert refused.returncode == 2 and words in refused.stderr
    both = here("run", "--spec", coop / "spec.json", "--methods", "csp", check=False)
    assert both.returncode == 2 and "--methods does not go with --spec" in both.stderr


@pytest.mark.parametrize(
    ("runs", "jobs", "gpus", "cores", "places", "threads"),
    [
        (9, 3, ["0"], 2, 3, "1"),
        (9, None, ["0", "2"], 8, 2, "4"),
        (9, None, [], 8, 1, "8"),
        (1, 4, ["0", "2"], 8, 1, "8"),
    ],
)
def test_cores_are_shared_among_runs(monkeypatch, runs, jobs, gpus, cores, places, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = shares(runs, jobs, gpus, cores)
    assert len(found) == places and {place["OMP_NUM_THREADS"] for place in found} == {threads}
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in found] == ((gpus or [None]) * places)[:places]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {place["OMP_NUM_THREADS"] for place in shares(runs, jobs, gpus, cores)} == {"1"}


def test_a_launcher_of_another_package(toy_plugin, tmp_path, monkeypatch):
    """A distribution with an entry point, as pip would have installed it."""
    (tmp_path / "backwards.py").write_text(
        "from benchmarks.launchers.inline import Inline\n\n\n"
        "class Backwards(Inline):\n"
        '    """Last run first."""\n\n'
        '    name = "backwards"\n\n'
        "    def launch(self, planned, workbench, watch):\n"
        "        return super().launch(planned[::-1], workbench, watch)\n"
    )
    about = tmp_path / "backwards-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: backwards\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[czsl_bench.launchers]\nbackwards = backwards:Backwards\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(LAUNCHERS, "_discovered", False)
    with plugins_apart():
        listed = here("list", "launchers").stdout
        assert all(word in listed for word in ("inline", "local", "slurm", "backwards 1.0", "Last run first."))
        words = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--seeds", "0", "1"]
        done = here(*words, "--launcher", "backwards", "--results", tmp_path / "r")
    lines = [line for line in done.stderr.splitlines() if "AUC" in line]
    assert ["seed 1" in lines[0], "seed 0" in lines[1]] == [True, True]
