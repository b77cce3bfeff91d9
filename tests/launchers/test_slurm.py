"""Runs as jobs of a real SLURM node: one that fails, one that is interrupted and queued again, status, cancel."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from in_process import here
from jobs import SLOW, TOY, epochs, numbers_of, until

from benchmarks.launchers.base import LaunchOptions
from benchmarks.launchers.slurm import Slurm, minutes, parameters
from errors import UserError

RUN = ["run", "--dataset", TOY, "--set", *SLOW]
SETTINGS = ["--launcher", "slurm", "--slurm", "time=10", "cpus=1", "mem=0", "--parallel"]


def ask(node, *command: str) -> str:
    return subprocess.run(command, env=node, capture_output=True, text=True, check=True, timeout=60).stdout


def queue(node) -> dict[str, str]:
    shown = ask(node, "squeue", "--noheader", "--array", "--format=%i %T")
    return dict(line.split() for line in shown.splitlines())


def test_an_array_with_a_failing_run_and_one_that_is_interrupted_twice(node, toy_plugin, whole, tmp_path, capsys):
    results = tmp_path / "results"
    arguments = [*RUN, "csp.lr=1e30", "--plugin", toy_plugin, "--methods", "coop", "csp", "clip_zero_shot"]
    arguments += [*SETTINGS, "2", "--results", results]
    planned = here(*arguments, "--dry-run", env=node).stdout
    assert "SLURM: an array of 3 jobs" in planned and "#SBATCH --array=0-2%2" in planned and not results.exists()

    submitted = here(*arguments, env=node)
    first = queue(node)
    assert "3 runs are queued" in submitted.stdout and f"bench.py report --results {results}" in submitted.stdout
    assert len(first) == 3
    (script,) = {path.read_text() for path in results.glob(".launch/slurm/*submission*.sh")}
    assert script.rstrip() in planned, "what was shown is what was submitted"
    again = here(*arguments, env=node)
    assert again.stderr.count("is left out.") == 3 and len(queue(node)) <= 3, "nothing is submitted twice"
    coop = next(results.glob("coop-*"))
    job = json.loads((coop / "launch.json").read_text())["job"]
    shown = [ask(node, "squeue", "--array")]

    until(lambda: epochs(coop) >= 1)
    ask(node, "scancel", "--signal=USR1", job)  # what a scheduler sends before it takes the node away
    until(lambda: queue(node).get(job) == "PENDING")  # the job queued itself again
    assert json.loads((coop / "interrupted.json").read_text())["epochs"] >= 1
    shown += [ask(node, "squeue", "--array"), here("status", "--results", results, env=node).stdout]

    before = epochs(coop)
    until(lambda: epochs(coop) > before)
    ask(node, "scontrol", "requeue", job)
    until(lambda: not queue(node))
    shown += [ask(node, "squeue", "--array", "--states=all"), here("status", "--results", results, env=node).stdout]
    with capsys.disabled():
        print("\n" + "\n".join(shown))

    assert f"is queued: slurm job {job}, PENDING" in shown[2]
    found = numbers_of(results)
    assert len(found) == 2 and all(found[name] == whole[name] for name in found)
    starts = json.loads((coop / "spec.json").read_text())["starts"]
    assert [start["environment"]["job"] for start in starts] == [job] * 3
    error = json.loads(next(results.glob("csp-*/error.json")).read_text())
    assert "a lower learning rate helps" in error["message"]
    assert "3 runs: 2 done, 1 failed" in shown[-1]


def test_queued_and_running_jobs_can_be_cancelled(node, toy_plugin, whole, tmp_path):
    where = ["--results", tmp_path]
    here(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--seeds", "0", "1", *SETTINGS, "1", *where, env=node)
    coop, waits = sorted(tmp_path.glob("coop-*"))
    until(lambda: epochs(coop) >= 1)
    job = json.loads((waits / "launch.json").read_text())["job"]
    status = here("status", *where, env=node).stdout
    assert f"is queued: slurm job {job}, PENDING" in status and "1 running, 1 queued" in status
    away = {"PATH": str(tmp_path)}
    assert f"slurm job {job} cannot be asked about from here" in here("status", *where, env=away).stdout
    refused = here("cancel", waits.name, *where, env=away, check=False)
    assert refused.returncode == 1 and "Cancel it from where it was started" in refused.stdout

    assert f"slurm job {job} (PENDING) is cancelled" in here("cancel", waits.name, *where, env=node).stdout
    assert job not in queue(node)
    assert f"slurm job {job} was cancelled before it began" in here("status", *where, env=node).stdout
    assert "(RUNNING) is cancelled" in here("cancel", *where, env=node).stdout
    until(lambda: not queue(node))
    assert "1 interrupted, 1 planned" in here("status", *where, env=node).stdout
    assert "waiting or at work" in here("cancel", *where, env=node).stdout
    assert not (waits / "spec.json").exists()
    assert 1 <= epochs(coop) < 6, "it was stopped, and what it had is kept"
    here("run", "--spec", coop / "job.json")
    assert numbers_of(tmp_path) == {coop.name: whole[coop.name]}


def test_what_slurm_refuses_is_told(node, toy_plugin, tmp_path):
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--results", tmp_path]
    done = here(*arguments, *SETTINGS[:3], "partition=nowhere", check=False, env=node)
    assert done.returncode == 2 and "SLURM did not take the jobs. It said: sbatch: error: invalid part" in done.stderr
    assert not queue(node) and not list(tmp_path.glob("*/launch.json"))


def test_what_slurm_is_asked_for():
    found = parameters(["partition=gpu", "gpus=2", "mem=32G", "time=1-0", "reservation=r1", "setup=module load cuda"])
    assert found == {
        "partition": "gpu",
        "gpus_per_node": 2,
        "mem": "32G",
        "time": 1440,
        "additional_parameters": {"reservation": "r1"},
        "setup": ["module load cuda"],
    }
    assert [minutes(text) for text in ("90", "1:30:01", "5:30", "1-2:03", "1-0:0:1")] == [90, 91, 6, 1563, 1441]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("partitoin=gpu", "Did you mean 'partition'?"),
        ("gpus", "It needs a key and a value"),
        ("gpus=all", "It is a number"),
        ("time=soon", "Write 240, 4:00:00 or 1-12:00"),
    ],
)
def test_what_slurm_cannot_be_asked_for(setting, words):
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        parameters([setting])


def test_mistakes_are_told_before_anything_is_submitted(toy_plugin, tmp_path):
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "csp", "--results", tmp_path / "r"]
    pytest.importorskip("submitit")
    for more, words in (
        (["--launcher", "slurm", "--slurm", "gpus=1"], "Pass --precision bf16, fp16 or fp32."),
        (["--launcher", "slurm"], "The command sbatch is not found."),
        (["--launcher", "local", "--slurm", "gpus=1"], "--slurm is not for the launcher local"),
        (["--jobs", "2"], "Add --launcher local"),
        (["--launcher", "slrum"], "Did you mean 'slurm'?"),
    ):
        done = here(*arguments, *more, check=False, env={"PATH": str(tmp_path)})
        assert done.returncode == 2 and words in done.stderr, more
    assert not (tmp_path / "r").exists()


def test_without_submitit_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[slurm\]"'):
        Slurm(LaunchOptions())


def test_a_script_for_another_cluster_is_shown_without_slurm(toy_plugin, tmp_path):
    pytest.importorskip("submitit")
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "coop", "--results", tmp_path / "r"]
    settings = ["partition=gpu", "account=vision", "gpus=1", "cpus=8", "mem=32G", "time=2:00:00", "setup=module load x"]
    asked = ["--launcher", "slurm", "--precision", "bf16", "--slurm", *settings, "--dry-run"]
    shown = here(*arguments, *asked, env={"PATH": str(tmp_path)}).stdout.splitlines()
    for key, value in (("partition", "gpu"), ("account", "vision"), ("gpus-per-node", 1), ("cpus-per-task", 8)):
        assert f"#SBATCH --{key}={value}" in shown
    assert {"#SBATCH --mem=32G", "#SBATCH --time=120", "#SBATCH --requeue", "module load x"} <= set(shown)
    assert not any("--array" in line for line in shown) and not (tmp_path / "r").exists()
