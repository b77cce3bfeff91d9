"""What SLURM's queue holds: squeue and scancel, and what a user is told where they do not answer."""

from __future__ import annotations

import subprocess
from collections.abc import Collection

from errors import UserError


def in_queue(numbers: Collection[str]) -> dict[str, str]:
    """Return the jobs and array tasks with these job numbers that SLURM has not finished, with their states."""
    if not numbers:
        return {}
    try:
        said = ask("squeue", "--noheader", "--array", "--format=%i|%T", f"--jobs={','.join(sorted(numbers))}")
    except UserError as error:
        if "Invalid job id" in str(error):  # the only one asked about is long gone
            return {}
        raise
    return dict(line.strip().split("|", 1) for line in said.splitlines() if "|" in line)


def still_runs(job: str) -> bool:
    """Return whether SLURM says that a job runs on; where it cannot be asked, it is believed to."""
    try:
        return in_queue({job.partition("_")[0]}).get(job) == "RUNNING"
    except UserError:
        return True


def ask(*command: str) -> str:
    """Return what a command of SLURM prints; a `UserError` where it is not there, does not answer or refuses."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        there = f"The command {command[0]} is not found"
    except subprocess.TimeoutExpired:
        there = f"{command[0]} does not answer"
    except subprocess.CalledProcessError as error:
        there = " ".join(error.stderr.split()) or f"{command[0]} ended with code {error.returncode}"
    raise UserError("SLURM cannot be asked.", f"{there}.", "Try again, from a login node of the cluster.")
