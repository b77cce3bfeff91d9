"""Command lines done in the process of the tests, which has imported torch already."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import registry
from benchmarks.commands.app import main
from benchmarks.launchers import side_by_side

CORES = side_by_side.cores


def here(
    *arguments: object, check: bool = True, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Do a command line as `test_bench.bench` does, but in this process; its plugins are gone afterwards."""
    with (
        pytest.MonkeyPatch.context() as patch,
        plugins_apart(),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["bench.py", *map(str, arguments)])
        if side_by_side.cores is CORES:  # a test of that has its own
            patch.setattr(side_by_side, "cores", lambda: 1)  # several runs stay in this process
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    if check:
        assert code == 0, err.getvalue()
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


@contextmanager
def plugins_apart() -> Iterator[None]:
    """Forget what is registered in the block, so that tests may use the same names."""
    for one in registry.REGISTRIES:
        one.names()  # built-ins and entry points stay
    before = [(one, dict(one._slots), dict(one._broken)) for one in registry.REGISTRIES]
    modules = set(sys.modules)
    try:
        yield
    finally:
        for one, slots, broken in before:
            one._slots, one._broken = slots, broken
        for name in set(sys.modules) - modules:
            if name.startswith("czsl_bench_plugin_"):
                del sys.modules[name]
