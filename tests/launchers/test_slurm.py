"""Runs as jobs of a real SLURM node: one that fails, one that is interrupted and queued again, status, cancel."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from in_process import here
from jobs import SLOW, TOY, epochs, numbers_of, until

from benchmarks.launchers.base import LaunchOptions
from benchmarks.launchers.slurm import Slurm
from benchmarks.launchers.slurm_settings import minutes, parameters
from errors import UserError

RUN = ["run", "--dataset", TOY, "--set", *SLOW]
SETTINGS = ["--launcher", "slurm", "--slurm", "time=10", "cpus=1", "mem=0", "--parallel"]


def ask(node, *command: str) -> str:
    return subprocess.run(command, env=node, capture_output=True, text=True, check=True, timeout=60).stdout


def queue(node) -> dict[str, str]:
    shown = ask(node, "squeue", "--noheader", "--array", "--format=%i %T")
    return dict(line.split() for line in shown.splitlines())


def test_an_array_with_a_failing_run_and_one_that_is_interrupted_twice(
    node, toy_plugin, whole, tmp_path, capsys, no_estimates
):
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
    again = here(*arguments, check=False, env=node)
    assert again.returncode == 3, "as of every launcher that leaves runs to others"
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


JUDGED = {
    "constraint=a100|h100": "allocation failure: Invalid feature specification",
    "reservation=nobodys": "Requested reservation is invalid",
    "exclusive=nosuch": "Invalid --exclusive specification",
    "licenses=none_of_these:2": "Invalid license specification",
    "zzyzx": "unrecognized option '--zzyzx'",
    "partitoin=main": "Did you mean 'partition'?",
}


def test_slurm_judges_what_is_handed_through(node, toy_plugin, tmp_path, no_estimates):
    """Every option of sbatch reaches it, is judged before anything is written, and is refused in its own words."""
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "clip_zero_shot", "--results", tmp_path]
    for setting, words in JUDGED.items():
        for more in ([], ["--dry-run"]):
            done = here(*arguments, *more, *SETTINGS[:4], setting, check=False, env=node)
            assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, setting
    assert not queue(node) and not list(tmp_path.glob("[!.]*"))
    taken = [
        "account=abc",
        "exclusive",
        "nice",
        "mail-user=a@b.org",
        "mail-type=END",
        "hold",
        "J=mine",
        "hint=nomultithread",
    ]
    shown = here(*arguments, "--dry-run", *SETTINGS[:4], *taken, env=node).stdout
    assert {"#SBATCH --exclusive", "#SBATCH --account=abc", "#SBATCH --job-name=mine"} <= set(shown.splitlines())
    here(*arguments, *SETTINGS[:4], *taken, env=node)
    (job,) = queue(node)
    about = ask(node, "scontrol", "show", "job", job)
    for words in ("Account=abc", "JobName=mine", "JobHeldUser", "OverSubscribe=NO", "MailUser=a@b.org"):
        assert words in about
    here("cancel", "--results", tmp_path, env=node)
    until(lambda: not queue(node))

    ask(node, "scontrol", "update", "nodename=ALL", "state=drain", "reason=test")
    try:
        shown = here(*arguments, "--dry-run", *SETTINGS[:4], env=node).stdout
        assert "The jobs would wait until such a node is there." in shown
        here(*arguments, *SETTINGS[:4], env=node)
        assert list(queue(node).values()) == ["PENDING"], "as sbatch takes it"
        here("cancel", "--results", tmp_path, env=node)
    finally:
        ask(node, "scontrol", "update", "nodename=ALL", "state=resume")


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
        ("constrain=a", "Did you mean 'constraint'"),
        ("exclusiv", "Did you mean 'exclusive'"),
        ("gpus", "gpus needs a value"),
        ("account", "account needs a value"),
        ("constraint=", "It needs a key and a value"),
        ("=x", "It needs a key and a value"),
        ("comment=a\nrm x", "of one line"),
        ("gpus=all", "It is a number"),
        ("gpus-per-node=0", "It is a number"),
        ("cpus=a:2", "It is a number"),
        ("time=soon", "Write 240, 4:00:00 or 1-12:00"),
        ("array=0-3", "use --parallel"),
        ("a=0-3", "use --parallel"),
        ("output=x.log", "What jobs print goes to files"),
        ("open-mode=truncate", "What jobs print goes to files"),
        ("signal=USR2@30", "90 seconds before their end"),
        ("no-requeue", "queues itself again"),
        ("ntasks=2", "A run is one process"),
        ("nodes=2", "docs/distributed.md"),
        ("N=2", "docs/distributed.md"),
        ("clusters=other", "the cluster of this machine"),
        ("test-only", "--dry-run submits nothing"),
        ("cpus=4 cpus-per-task=8", "'--slurm cpus=4' and '--slurm cpus-per-task=8' contradict each other"),
        ("cpus=4 c=8", "contradict"),
        ("gpus=1 gpus-per-node=2", "contradict"),
        ("partition=a p=b", "Both are partition"),
        ("time=10 t=20", "contradict"),
        ("mem=1G mem-per-cpu=1G", "one of mem, mem-per-cpu and mem-per-gpu"),
        ("mem-per-cpu=1G mem-per-gpu=1G", "one of mem"),
        ("exclusive exclusive=user", "contradict"),
    ],
)
def test_what_slurm_cannot_be_asked_for(setting, words, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=re.escape(words)):
        parameters(re.split(" (?!x)", setting))


THROUGH = (
    "mem-per-cpu=2G",
    "reservation=r1",
    "mail-user=a@b.org",
    "licenses=x:2",
    "tmp=10G",
    "wckey=w",
    "begin=now+1hour",
)
FLAGS = ("exclusive", "requeue", "hold", "contiguous", "nice", "spread-job", "a-plugin-of-the-site")


@pytest.mark.parametrize("setting", [*THROUGH, *FLAGS, "exclusive=user", "nice=100", "switches=1@0:10:0", "b=now"])
def test_what_slurm_is_handed_as_it_is(setting, monkeypatch):
    monkeypatch.setenv("PATH", "")
    key, _, value = setting.partition("=")
    name = {"b": "begin"}.get(key, key)
    assert parameters([setting]) == {"time": 240, "additional_parameters": {name: value or True}}
    assert (
        parameters([f"--{name}={value}" if value else f"--{name}"])
        == parameters([setting])
        == parameters([setting] * 2)
    )


def test_two_names_of_one_setting(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert parameters(["cpus=4", "cpus-per-task=4", "c=4"]) == parameters(["cpus_per_task=4"])
    assert parameters(["gpus=a100:2"])["gpus_per_node"] == "a100:2" and parameters(["G=2"])["gpus_per_node"] == 2
    assert parameters(["t=1:00:00"])["time"] == 60 and parameters(["J=mine"])["job_name"] == "mine"
    assert parameters(["setup=a", "setup=b"])["setup"] == ["a", "b"]


def test_mistakes_are_told_before_anything_is_submitted(toy_plugin, tmp_path):
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "csp", "--results", tmp_path / "r"]
    pytest.importorskip("submitit")
    for more, words in (
        (["--launcher", "slurm", "--slurm", "gpus=1"], "Pass --precision bf16, fp16 or fp32."),
        (["--launcher", "slurm"], "The command sbatch is not found."),
        (["--launcher", "local", "--slurm", "gpus=1"], "--slurm is not for the launcher local"),
        (["--jobs", "2", "--launcher", "inline"], "Add --launcher local"),
        (["--launcher", "slrum"], "Did you mean 'slurm'?"),
    ):
        done = here(*arguments, *more, check=False, env={"PATH": str(tmp_path)})
        assert done.returncode == 2 and words in done.stderr, more
    assert not (tmp_path / "r").exists()


def test_without_submitit_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[slurm\]"'):
        Slurm(LaunchOptions())


def test_a_script_for_another_cluster_is_shown_without_slurm(toy_plugin, tmp_path, no_estimates):
    pytest.importorskip("submitit")
    arguments = ["run", "--dataset", TOY, "--plugin", toy_plugin, "--methods", "coop", "--results", tmp_path / "r"]
    settings = ["partition=gpu", "account=vision", "gpus=1", "cpus=8", "mem=32G", "time=2:00:00", "setup=module load x"]
    asked = ["--launcher", "slurm", "--precision", "bf16", "--slurm", *settings, "--dry-run"]
    shown = here(*arguments, *asked, env={"PATH": str(tmp_path)}).stdout.splitlines()
    for key, value in (("partition", "gpu"), ("account", "vision"), ("gpus-per-node", 1), ("cpus-per-task", 8)):
        assert f"#SBATCH --{key}={value}" in shown
    assert {"#SBATCH --mem=32G", "#SBATCH --time=120", "#SBATCH --requeue", "module load x"} <= set(shown)
    assert not any("--array" in line for line in shown) and not (tmp_path / "r").exists()
