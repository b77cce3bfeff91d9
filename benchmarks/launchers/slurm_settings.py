"""What `--slurm` takes: settings with names of our own, and any option of sbatch by its long or short name.

An option that is not known here is handed to sbatch, which judges it: only a name that is like a known one, and that
`sbatch --help` does not have, is taken for a slip of the pen.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from errors import UserError, did_you_mean

DEFAULT_MINUTES = 240
SETUP = "setup"
SAME = {"cpus": "cpus-per-task", "gpus": "gpus-per-node"}
"""Our names of options; a run has one node and one task, so sbatch's `gpus` is `gpus-per-node`."""

SUBMITITS = {
    name: name.replace("-", "_")
    for name in (
        *("partition", "account", "qos", "constraint", "exclude", "nodelist", "gres", "dependency", "comment", "mem"),
        *("gpus-per-node", "cpus-per-task", "time", "job-name"),
    )
}
"""Options that submitit knows, with its names of them; the others it hands on as they are."""

VALUED = (
    *("acctg-freq", "array", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters", "container", "core-spec"),
    *("cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "distribution", "error", "export"),
    *("export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus-per-socket", "gpus-per-task"),
    *("gres-flags", "hint", "input", "licenses", "mail-type", "mail-user", "mcs-label", "mem-bind", "mincpus"),
    *("network", "nodefile", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"),
    *("ntasks-per-socket", "open-mode", "output", "power", "prefer", "priority", "profile", "reservation", "segment"),
    *("signal", "sockets-per-node", "switches", "thread-spec", "threads-per-core", "time-min", "tmp", "tres-bind"),
    *("tres-per-task", "uid", "mem-per-cpu", "mem-per-gpu", "wckey"),
)
FLAGS = (
    *("contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "kill-on-invalid-dep", "nice", "no-kill"),
    *("no-requeue", "overcommit", "oversubscribe", "parsable", "propagate", "quiet", "reboot", "requeue"),
    *("spread-job", "test-only", "use-min-nodes", "verbose", "wait", "wrap"),
)
"""Options that need no value."""

SHORT = {
    **{"a": "array", "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task", "C": "constraint"},
    **{"d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "i": "input"},
    **{"J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution", "M": "clusters", "n": "ntasks"},
    **{
        "N": "nodes",
        "o": "output",
        "O": "overcommit",
        "p": "partition",
        "q": "qos",
        "Q": "quiet",
        "s": "oversubscribe",
    },
    **{"S": "core-spec", "t": "time", "v": "verbose", "w": "nodelist", "W": "wait", "x": "exclude"},
}

_LOGS = ("What jobs print goes to files below the results folder.", "Leave it out; see .launch/slurm and each log.txt.")
_ONE = ("A run is one process on one node.", "Leave it out; docs/distributed.md has one run over several processes.")
_COMMAND = ("It is about the command sbatch and not about jobs.", "Leave it out; --dry-run submits nothing.")
REFUSED: dict[str, tuple[str, str]] = {
    "array": ("The runs of a command are its array.", "Choose them with --methods and --seeds, and use --parallel."),
    **dict.fromkeys(("output", "error", "input", "open-mode"), _LOGS),
    **dict.fromkeys(("nodes", "ntasks", *(f"ntasks-per-{what}" for what in ("node", "core", "gpu", "socket"))), _ONE),
    **dict.fromkeys(
        ("wrap", "parsable", "test-only", "wait", "quiet", "verbose", "help", "usage", "version"), _COMMAND
    ),
    "signal": ("Jobs ask for one themselves, 90 seconds before their end, to save their run.", "Leave it out."),
    "no-requeue": ("A job that is interrupted queues itself again and goes on.", "Leave it out, or end it by cancel."),
    "clusters": ("Status and cancel ask the cluster of this machine.", "Submit from a login node of the other one."),
}
"""Options that jobs need for themselves: why, and what to do instead."""

ALONE = ("mem", "mem-per-cpu", "mem-per-gpu")
"""Options that exclude each other."""

_AWAY = ("configuration source", "contact slurm controller", "Unable to contact", "Connection refused", "timed out")
_LATER = ("node configuration is not available", "node not available", "partition configuration not available now")


def parameters(settings: Sequence[str]) -> dict[str, Any]:
    """Return submitit's parameters for `--slurm` texts, `key=value` or a flag's name.

    A text that is not understood, an option that jobs need for themselves, and options that contradict each other are a
    `UserError`.

    >>> parameters(["gpus=1", "time=1-02:30", "mem=32G", "exclusive"])
    {'time': 1590, 'additional_parameters': {'exclusive': True}, 'gpus_per_node': 1, 'mem': '32G'}
    """
    given: dict[str, tuple[str, str | bool]] = {}  # by the option's name: the text and the value
    setup: list[str] = []
    for text in settings:
        name, value = _read(text)
        if name == SETUP:
            setup.append(str(value))
            continue
        before = given.setdefault(name, (text, value))
        if before[1] != value:
            raise _contradiction(before[0], text, f"Both are {name}")
    several = [given[name][0] for name in ALONE if name in given]
    if len(several) > 1:
        raise _contradiction(several[0], several[1], "SLURM takes one of mem, mem-per-cpu and mem-per-gpu")
    found: dict[str, Any] = {"time": DEFAULT_MINUTES, "additional_parameters": {}}
    for name, (text, value) in given.items():
        if name in SUBMITITS:
            found[SUBMITITS[name]] = _checked(name, str(value), text)
        else:
            found["additional_parameters"][name] = value
    if not found["additional_parameters"]:
        del found["additional_parameters"]
    if setup:
        found["setup"] = setup
    if "cpus_per_task" in found:  # srun does not take that over from sbatch in every version
        found["srun_args"] = [f"--cpus-per-task={found['cpus_per_task']}"]
    return found


def _read(text: str) -> tuple[str, str | bool]:
    """Return the option that a text means by its long name, and its value, True for a flag."""
    key, equals, value = text.partition("=")
    key = key.strip()
    key = SHORT.get(key.removeprefix("-"), key.removeprefix("--").replace("_", "-"))
    name = SAME.get(key, key)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", key) is None or (equals and not value) or re.search("[\r\n]", value):
        raise UserError(
            f"The option '--slurm {text}' is not understood.",
            "It needs a key and a value of one line, or the name of a flag.",
            "Write --slurm gpus=1 exclusive.",
        )
    if name in REFUSED:
        why, instead = REFUSED[name]
        raise UserError(f"The option '--slurm {text}' is refused.", why, instead)
    known = {*SAME, *SUBMITITS, SETUP, *VALUED, *FLAGS}
    if name not in known and (near := did_you_mean(name, known)) and name not in sbatch_options():
        raise UserError(f"There is no SLURM setting '{key}'.", "It is none of ours and none of 'sbatch --help'.", near)
    if not equals and name in known and name not in FLAGS:
        raise UserError(
            f"The option '--slurm {text}' is not understood.", f"{key} needs a value.", f"Write --slurm {key}=..."
        )
    return name, value if equals else True


def _checked(name: str, value: str, text: str) -> str | int:
    """Return a value as submitit takes it; one that cannot be is a `UserError`."""
    if name == "time":
        return minutes(value)
    pattern, what = {
        "cpus-per-task": (r"[1-9]\d*", "a number"),
        "gpus-per-node": (r"([\w.-]+:)?[1-9]\d*", "a number, or a kind, a colon and a number"),
    }.get(name, (r".*", ""))
    if re.fullmatch(pattern, value) is None:
        key = text.partition("=")[0]
        raise UserError(f"The value '{value}' of --slurm {key} is refused.", f"It is {what}.", "Give one.")
    return int(value) if what and value.isdigit() else value


def _contradiction(one: str, other: str, why: str) -> UserError:
    return UserError(
        f"The options '--slurm {one}' and '--slurm {other}' contradict each other.", f"{why}.", "Leave one of them out."
    )


def sbatch_options() -> set[str]:
    """Return the long options that `sbatch --help` shows, a site's plugins' too; none where it does not answer."""
    if shutil.which("sbatch") is None:
        return set()
    try:
        said = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return set(re.findall(r"^\s+(?:-\w,? )?\s*--([a-z][a-z0-9-]*)", said, re.MULTILINE))


def judge(script: str, environment: Mapping[str, str] | None = None) -> str:
    """Have `sbatch --test-only` judge a job's script; return a note, "" where it is fine or nobody can be asked.

    What sbatch refuses is a `UserError` in its words. That no node is free for it now, or none is up, is only a note:
    sbatch itself takes such jobs, and they wait.
    """
    if shutil.which("sbatch") is None:
        return ""
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=60, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return "sbatch does not answer here, so nobody has checked these settings."
    said = " ".join(done.stderr.split()).rstrip(".")
    if done.returncode == 0:
        return ""
    if any(word in said for word in _AWAY):
        return f"sbatch cannot check these settings here: {said}."
    if any(word in said for word in _LATER):
        return f"sbatch says: {said}. The jobs would wait until such a node is there."
    wrong = re.search(r"unrecognized option '--([a-z0-9-]+)", said)
    known = {*SAME, *SUBMITITS, SETUP, *VALUED, *FLAGS, *sbatch_options()}
    near = did_you_mean(wrong[1], known) if wrong else ""
    raise refusal(said, near)


def refusal(said: str, next_step: str = "") -> UserError:
    """Return the `UserError` for what sbatch refuses. said: its words."""
    return UserError(
        "SLURM did not take the jobs.",
        f"It said: {said.strip().rstrip('.')}.",
        next_step or "Mend --slurm; nothing was started.",
    )


def minutes(text: str) -> int:
    """Return the minutes that SLURM means by a time: minutes, H:M:S, M:S, D-H, D-H:M or D-H:M:S, rounded up.

    >>> [minutes(text) for text in ("90", "4:00:00", "0:30", "2-0", "1-12:30")]
    [90, 240, 1, 2880, 2190]
    """
    if re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text) is None:
        raise UserError(
            f"The value '{text}' of --slurm time is refused.",
            "A time is in minutes, or days-hours:minutes:seconds.",
            "Write 240, 4:00:00 or 1-12:00.",
        )
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, mins, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, mins, seconds = parts
    else:
        hours, (mins, seconds) = 0, [*parts, 0][:2]
    return int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)
