"""What a run was made with: versions, processor, source state. Recorded beside the numbers, never part of identity."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from datasets.system import usable_cpus

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "safetensors", "pillow")


def capture_environment() -> dict[str, Any]:
    """Return versions, platform, processor and git state; neither torch is imported nor the machine's name recorded."""
    return {
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": {"name": cpu_name(), "count": usable_cpus()},
        "git": git_state(PROJECT),
    }


def now() -> str:
    """Return the time in UTC as ISO 8601, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def git_state(project: Path) -> dict[str, Any] | None:
    """Return the commit and whether the working tree differs from it; None where `project` is no git checkout.

    Results do not make a tree dirty. A project installed inside somebody else's checkout is not that checkout.
    """
    top = _git(project, "rev-parse", "--show-toplevel")
    commit = _git(project, "rev-parse", "--verify", "HEAD")
    if top is None or commit is None or Path(top).resolve() != project.resolve():
        return None
    changes = _git(project, "status", "--porcelain", "--", ".", ":(exclude)results")
    return {"commit": commit, "dirty": None if changes is None else changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    # Without optional locks, asking for the status never gets in the way of a commit being made at the same time.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version(distribution: str) -> str | None:
    """Return the installed version of a distribution; None if it is not there."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def launcher_facts() -> dict[str, str]:
    """Return which launcher started this process, and its job; nothing where none did."""
    found = {"launcher": os.environ.get("CZSL_LAUNCHER", ""), "job": os.environ.get("CZSL_JOB", "")}
    return {key: value for key, value in found.items() if value}
