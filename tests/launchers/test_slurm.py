"""Runs as jobs of a real SLURM node: an array with a failing run, a run interrupted and queued again, cancel."""

from __future__ import annotations

import json
import subprocess

import pytest
from jobs import SLOW, TOY, epochs
from slurm_node import wait_until
from test_bench import bench, results_of

from benchmarks.launchers.slurm import minutes, parameters
from errors import UserError

RUN = ["run", "--dataset", TOY, "--set", *SLOW]
SETTINGS = ["--launcher", "slurm", "--parallel", "2", "--slurm", "time=10", "cpus=1", "mem=0"]


def ask(node, *command: str) -> str:
    return subprocess.run(command, env=node, capture_output=True, text=True, check=True, timeout=30).stdout


def queue(node) -> dict[str, str]:
    shown = ask(node, "squeue", "--noheader", "--array", "--format=%i %T")
    return dict(line.split() for line in shown.splitlines())


def test_an_array_with_a_failing_run_and_one_that_is_interrupted_twice(node, toy_plugin, whole, tmp_path, capsys):
    results = tmp_path / "results"
    arguments = [*RUN, "csp.lr=1e30", "--plugin", toy_plugin, "--methods", "coop", "csp", "clip_zero_shot"]
    arguments += [*SETTINGS, "--results", results]
    submitted = bench(*arguments, env=node)
    first = queue(node)
    assert "3 runs are queued" in submitted.stdout and len(first) == 3
    again = bench(*arguments, env=node).stderr
    assert again.count("is left out.") == 3 and len(queue(node)) <= 3, "nothing is submitted twice"
    coop = next(results.glob("coop-*"))
    job = json.loads((coop / "launch.json").read_text())["job"]
    shown = [ask(node, "squeue", "--array")]

    assert wait_until(lambda: epochs(coop) >= 1, 60)
    ask(node, "scancel", "--signal=USR1", job)  # what a scheduler sends before it takes the node away
    assert wait_until(lambda: queue(node).get(job) == "PENDING", 30), "the job queued itself again"
    assert json.loads((coop / "interrupted.json").read_text())["epochs"] >= 1
    shown += [ask(node, "squeue", "--array"), bench("status", "--results", results, env=node).stdout]
    assert f"is queued: slurm job {job}, PENDING" in shown[-1]

    before = epochs(coop)
    assert wait_until(lambda: epochs(coop) > before, 60)
    ask(node, "scontrol", "requeue", job)
    assert wait_until(lambda: not queue(node), 90)
    shown += [ask(node, "squeue", "--array", "--states=all"), bench("status", "--results", results, env=node).stdout]
    with capsys.disabled():
        print("\n" + "\n".join(shown))

    found = results_of(results)
    assert len(found) == 2 and all(found[name] == whole[name] for name in found)
    starts = json.loads((coop / "spec.json").read_text())["starts"]
    assert [start["environment"]["job"] for start in starts] == [job] * 3
    error = json.loads(next(results.glob("csp-*/error.json")).read_text())
    assert "a lower learning rate helps" in error["message"]
    assert "3 runs: 2 done, 1 failed" in shown[-1]


def test_a_cancelled_job_keeps_what_it_has(node, toy_plugin, whole, tmp_path):
    bench(*RUN, "--plugin", toy_plugin, "--methods", "coop", "--results", tmp_path, *SETTINGS, env=node)
    (coop,) = tmp_path.glob("coop-*")
    assert wait_until(lambda: epochs(coop) >= 1, 60)
    said = bench("cancel", "coop", "--results", tmp_path, env=node).stdout
    assert "(RUNNING) is cancelled" in said
    assert wait_until(lambda: not queue(node), 30)
    assert "interrupted" in bench("status", "--results", tmp_path, env=node).stdout
    kept = epochs(coop)
    assert "waiting or at work" in bench("cancel", "--results", tmp_path, env=node).stdout
    bench("run", "--spec", coop / "job.json")
    assert results_of(tmp_path) == {coop.name: whole[coop.name]} and epochs(coop) == 6 > kept


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
    for more, words in (
        (["--launcher", "slurm", "--slurm", "gpus=1"], "Pass --precision bf16, fp16 or fp32."),
        (["--launcher", "local", "--slurm", "gpus=1"], "--slurm is not for the launcher local"),
        (["--jobs", "2"], "Add --launcher local"),
        (["--launcher", "slrum"], "Did you mean 'slurm'?"),
    ):
        done = bench(*arguments, *more, check=False)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, more
    assert not (tmp_path / "r").exists()
