"""Shared fixtures: a cache folder of the tests' own, and a toy data set in the real layout of pairs and splits."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

# The tests' networks are tiny: threads would wait for each other longer than they compute. Set before torch is
# imported, and for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "80"  # of the terminal that commands print to

import pytest
from toy_world import make_toy

from datasets.base import CompositionDataset


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--parity-table docs/parity.md`, which tests/methods/conftest.py answers, and `--rewrite-golden`."""
    parser.addoption("--parity-table", type=Path, help="write the largest differences from the golden numbers there")
    parser.addoption("--rewrite-golden", action="store_true", help="write what the golden report should say anew")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: some tests wait for processes of their own."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


LONG = {
    *("test_slurm.py", "test_distributed.py", "test_local.py", "test_kill_loop.py", "test_threads.py"),
    "test_windows.py",
}
"""Files with tests that take tens of seconds, most of them in waiting for processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests begin, so that none of them is left to a single process at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the user's cache out of the tests, in this process and in those it starts."""
    home = tmp_path_factory.mktemp("czsl_home")
    if "PYTEST_XDIST_WORKER" in os.environ:  # icon_states is rendered by one worker, for all of them
        rendered = tmp_path_factory.getbasetemp().parent / "rendered"
        rendered.mkdir(exist_ok=True)
        (home / "datasets").symlink_to(rendered)
    os.environ["CZSL_HOME"] = str(home)
    return home


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> CompositionDataset:
    """The toy data set, rendered once."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the memory estimates out of `--dry-run`: they take seconds a method, and have tests of their own."""
    monkeypatch.setattr("benchmarks.running.memory_estimate.memory_table", lambda planned, workbench: [])


@pytest.fixture
def svg_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write figures as SVG, which the page holds, and not in the other formats too: tests of figures have all."""
    monkeypatch.setattr("benchmarks.report.style.FORMATS", ((".svg", {"Date": None}),))


@pytest.fixture
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the operations of a method once for several `cost` commands of a test: it takes seconds."""
    from benchmarks.cost import whole
    from benchmarks.cost.labels import label_space
    from benchmarks.cost.record import Row, Settings

    count = whole.count_or_say

    @cache
    def counted(name: str, settings: str) -> Row:
        asked = Settings.model_validate_json(settings)
        return count(name, asked, label_space(asked.labels))

    monkeypatch.setattr(whole, "count_or_say", lambda name, settings, _: counted(name, settings.model_dump_json()))
