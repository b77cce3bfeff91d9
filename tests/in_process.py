"""Command lines done in the process of the tests, which has imported torch already."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

import bench


def here(*arguments: object, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Do a command line as `test_bench.bench` does, but in this process, which has imported torch already."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["bench.py", *map(str, arguments)])
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        code = 0
        try:
            bench.main()
        except SystemExit as end:
            code = int(end.code or 0)
    if check:
        assert code == 0, err.getvalue()
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())
