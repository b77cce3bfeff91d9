"""A SLURM of one node for the tests: munged, slurmctld and slurmd on private ports, sockets and folders.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python tests/launchers/slurm_node.py squeue     # start it, do a command in it, stop it

It needs root, as slurmd does. No accounting, no cgroups, no systemd: what a container allows.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])

CONFIGURATION = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,requeue_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=20
MinJobAge=3600
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NotHere(Exception):
    """A node cannot be started here, and why."""


@contextmanager
def slurm_node(cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start a node and yield the environment variables that its clients need; stop it after. `NotHere` if it cannot.

    cpus: processors the node pretends to have. "SLURM_NODE_FOLDER" among the variables holds the daemons' logs.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        raise NotHere(f"{', '.join(missing)} not installed")
    if os.geteuid() != 0:
        raise NotHere("the daemons need root")
    # Not pytest's own folders: munged trusts none that others may write to, and socket paths are short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/run" if os.access("/run", os.W_OK) else None))
    started: list[subprocess.Popen[bytes]] = []
    variables = {"SLURM_CONF": f"{folder}/slurm.conf", "SLURM_NODE_FOLDER": str(folder), "PATH": PATH}
    environment = {**os.environ, **variables}

    def start(*command: object) -> None:
        with (folder / f"{command[0]}.out").open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=output, stderr=output, env=environment, start_new_session=True
            )
        started.append(process)

    def ask(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout + done.stderr

    def wait_for(what: str, ready) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            ended = [process for process in started if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                texts = [f"{path.name}: {_tail(path)}" for path in [*folder.glob("*.out"), *folder.glob("*.log")]]
                raise NotHere(f"{what} does not come up. " + " | ".join(texts))
            time.sleep(0.1)

    try:
        host = socket.gethostname().partition(".")[0]
        ports = {"controller": free_port(), "daemon": free_port()}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, cpus=cpus, **ports))
        (folder / "cgroup.conf").write_text(cgroup_configuration())
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        folder.chmod(0o755)
        places = {
            "key-file": "munge.key",
            "log-file": "munged.log",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
        }
        options = [f"--{option}={folder / name}" for option, name in places.items()]
        start("munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *options)
        wait_for("munged", lambda: (folder / "munge.socket").exists())
        start("slurmctld", "-D", "-i", "-f", folder / "slurm.conf")
        wait_for("slurmctld", lambda: "UP" in ask("scontrol", "ping"))
        start("slurmd", "-D", "-N", host, "-b", "-f", folder / "slurm.conf")
        wait_for("slurmd", lambda: "idle" in ask("sinfo", "--noheader", "--format=%T"))
        yield variables
    finally:
        if len(started) > 1:
            with suppress(subprocess.TimeoutExpired):
                ask("scancel", "--user=root", "--full")
                wait_until(lambda: not ask("squeue", "--noheader", "--states=RUNNING,COMPLETING"), 10)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for number in left_behind(variables["SLURM_CONF"]):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def left_behind(configuration: str) -> list[int]:
    """Return the other processes that belong to the node with a configuration file: jobs' steps outlive slurmd."""
    wanted = f"SLURM_CONF={configuration}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return [number for number in found if number != os.getpid()]


def cgroup_configuration() -> str:
    """Return what keeps slurmd away from control groups, in the words of the version that is installed."""
    version = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, env={**os.environ, "PATH": PATH}).stdout
    numbers = [int(part) for part in version.split()[-1].split(".")[:2] if part.isdigit()]
    if numbers < [22, 5]:
        return "CgroupAutomount=no\n"
    return "IgnoreSystemd=yes\nCgroupPlugin=" + ("disabled\n" if numbers >= [24, 5] else "cgroup/v1\n")


def wait_until(ready, seconds: float) -> bool:
    """Return whether `ready` became true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _tail(path: Path) -> str:
    return " ".join(path.read_text(errors="replace").split())[-300:]


if __name__ == "__main__":
    with slurm_node() as needed:
        sys.exit(subprocess.run(sys.argv[1:] or ["sinfo"], env={**os.environ, **needed}).returncode)
