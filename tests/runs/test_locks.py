"""One process at a time in a run folder, and a dead one never blocks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from benchmarks.runs import locks
from benchmarks.runs.locks import Held, Holder, hold, is_held
from errors import UserError

ROOT = Path(__file__).parents[2]
HOLDING = """
import os, sys, time
from pathlib import Path
from benchmarks.runs.locks import hold
with hold(Path(sys.argv[1])):
    if len(sys.argv) > 2:
        # Releases of filelock that close an inherited lock in the child know nothing of its copy.
        open_files = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]}
        os.dup(next(int(name) for name, file in open_files.items() if file.endswith(".lock")))
        if os.fork() == 0:
            time.sleep(float(sys.argv[2]))
            os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(folder: Path, *arguments: str):
    """Another process that holds the folder; with a number, a child of it sleeps that many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def test_who_holds_a_folder_is_told_and_a_killed_holder_does_not_block(tmp_path):
    folder = tmp_path / "results" / "run"
    assert is_held(folder) is None and not folder.exists()
    with another_process(folder) as process:
        assert is_held(folder).pid == process.pid
        with (
            pytest.raises(Held, match=rf"The run run is being done already\. By process {process.pid} on .+, since 20"),
            hold(folder),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert is_held(folder) is None
        with hold(folder):
            assert is_held(folder).pid == os.getpid()
    assert is_held(folder) is None
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_children_of_a_killed_holder_are_waited_for(tmp_path):
    with another_process(tmp_path, "6") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert is_held(tmp_path).is_dead, "the child has the lock still"
        with hold(tmp_path):
            assert is_held(tmp_path).pid == os.getpid()


def test_asking_who_holds_does_not_get_in_the_way(tmp_path):
    with hold(tmp_path):
        pass
    lock = filelock.FileLock(tmp_path / locks.LOCK)
    with lock:
        assert is_held(tmp_path) == Holder("an unknown host", 0, "an unknown time")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_locked_is_a_user_error(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    told = rf"cannot be written.*{os.strerror(number)}.*another results folder"
    with pytest.raises(UserError, match=told), hold(tmp_path):
        pass


def test_a_file_system_without_locks_is_told_of_and_used(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", unknown)
    told = []
    with hold(tmp_path, told.append):
        assert locks.read_holder(tmp_path).pid == os.getpid()
        assert is_held(tmp_path).pid == os.getpid()
    assert len(told) == 1 and "knows no locks" in told[0]
    assert is_held(tmp_path) is None


def test_a_holder_on_another_machine_is_never_taken_for_dead():
    assert not Holder("another machine", 2**22 + 7, "").is_dead
