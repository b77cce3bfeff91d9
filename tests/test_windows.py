"""Without what Windows lacks: modules, signals and functions are hidden, and the commands do their work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_bench import PLUGIN, ROOT

HIDE = """
import os, signal, sys

# Other people's packages come first: on this system they are those of this system.
import filelock, multiprocessing, open_clip, platformdirs, rich.progress, scipy.stats, seaborn, subprocess, torch, typer
import pandas.io.formats.style, platformdirs.unix, scikit_posthocs, torchvision, torch.utils.data, torch._dynamo
import torch.distributed.elastic.multiprocessing.api, torch.distributed.launcher.api

from types import SimpleNamespace

subprocess.os, subprocess.signal = SimpleNamespace(**vars(os)), SimpleNamespace(**vars(signal))

for name in ("resource", "fcntl", "pwd", "grp", "termios", "readline"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGHUP", "pthread_sigmask", "setitimer", "alarm"):
    if hasattr(signal, name):
        delattr(signal, name)
gone = ("fork", "forkpty", "getuid", "geteuid", "getgid", "setsid", "killpg", "getpgid", "chown", "sched_getaffinity")
for name in (*gone, "WNOHANG", "uname", "sysconf", "mkfifo", "nice"):
    if hasattr(os, name):
        delattr(os, name)

asked = os.kill


def kill(process, number):
    assert number != 0, "which would send Ctrl-C"
    asked(process, number)


os.kill = kill
"""


LOOP = """
import bench

words = sys.argv[1:]
while words:  # command lines with "then" between them, in one process because its imports take seconds
    end = words.index("then") if "then" in words else len(words)
    sys.argv, words = ["bench.py", *words[:end]], words[end + 1 :]
    code = 0
    try:
        bench.main()
    except SystemExit as stop:
        code = stop.code or 0
    print(f"{END} {code}", file=sys.stderr)
"""
END = "-- ended with exit code"


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """A function that does a command of the command line in a process without these, and returns what came of it."""
    folder = tmp_path_factory.mktemp("windows")
    script = folder / "bench_there.py"
    script.write_text(f"{HIDE}\nsys.path.insert(0, {str(ROOT)!r})\nEND = {END!r}\n{LOOP}")
    plugin = folder / "toy_plugin.py"
    plugin.write_text(PLUGIN.format(tests=str(ROOT / "tests"), folder=str(folder / "toy"), images=2))

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        where = ["--results", folder / "results", "--plugin", plugin]
        words = [str(part) for word in arguments for part in ((*where, word) if word == "then" else (word,))]
        words += map(str, where)
        environment = {**os.environ, "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, str(script), *words], capture_output=True, text=True, timeout=300, env=environment
        )

    return command


RUN = ("run", "--methods", "csp", "--dataset", "toy", "--epochs", "1")
REFUSED = {
    "several devices": (("--devices", "2"), "Several processes for a run are started on Linux and macOS alone."),
    "SLURM": (("--launcher", "slurm"), "There is no SLURM"),
    "decoding processes": (("--workers", "2"), "On Windows the process of the run decodes them itself."),
}
WORKS = (RUN, RUN, ("report", "--resamples", "50"), ("status",), ("list", "runs"), ("cancel",))


def test_runs_reports_and_states_need_no_posix_and_what_cannot_work_there_says_so(windows, monkeypatch):
    """In one process, because its imports take seconds."""
    monkeypatch.setenv("PATH", "")
    commands = [*WORKS, *((*RUN, "--seeds", "7", *options) for options, _ in REFUSED.values())]
    words = [word for command in commands for word in ("then", *command)]
    done = windows(*words[1:])
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    *said, rest = done.stderr.split(f"{END} ")
    assert not rest.strip().removeprefix("2")
    codes = [text.partition("\n")[0] for text in [*said[1:], rest]]
    assert codes == ["0"] * len(WORKS) + ["2"] * len(REFUSED), done.stderr
    for words in ("AUC", "Nothing new to do", "1 run: 1 done", "is waiting or at work"):
        assert words in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("Report:"))
    page = Path(line.removeprefix("Report: ")).read_text(encoding="utf-8")
    (row,) = [line for line in page.split("## Cost")[1].splitlines() if line.startswith("| CSP ")]
    assert row.rstrip(" |").endswith("–"), "the peak of memory is not known"
    for (_, sentence), text in zip(REFUSED.values(), said[len(WORKS) :], strict=True):
        assert sentence in text
