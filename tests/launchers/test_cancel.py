"""Ending a process that may end by itself in the same moment, or that belongs to somebody else."""

import os
import socket

import pytest
from made_reports import record, stored

from benchmarks.launchers.cancel import cancel
from benchmarks.runs import locks
from benchmarks.runs.records import RESULT


@pytest.mark.parametrize(
    ("error", "message"), [(ProcessLookupError, None), (PermissionError, "not a process of this user")]
)
def test_a_process_that_takes_no_signal_is_no_traceback(tmp_path, monkeypatch, error, message):
    (stored(tmp_path, record("csp", 0)).path / RESULT).unlink()
    holder = locks.Holder(socket.gethostname(), 4321, "2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(locks, "is_held", lambda folder: holder)

    def refuse(pid: int, number: int) -> None:
        assert pid == holder.pid
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    found = cancel(tmp_path)
    if message is None:
        assert found == [], "it has ended, so there is nothing to cancel"
    else:
        assert [one.done for one in found] == [False] and message in found[0].message
