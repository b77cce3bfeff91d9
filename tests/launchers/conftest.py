"""Fixtures of the launchers' tests: a plugin with the toy data set, and a SLURM of one node where it can be started."""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext

import pytest
from filelock import FileLock
from forked import fork_run
from jobs import PACE, PACED, SLOW, TOY, numbers_of
from slurm_node import NotHere, slurm_node
from test_bench import PLUGIN, ROOT

from registry import load_plugin


@pytest.fixture(scope="session")
def toy_plugin(tmp_path_factory):
    """A plugin file that registers the toy data set, loaded in this process too."""
    folder = tmp_path_factory.mktemp("plugin")
    path = folder / "toy_plugin.py"
    text = PLUGIN.format(tests=str(ROOT / "tests"), folder=str(folder / "toy"), images=2)
    # A name of its own, also within the data set: a record must find it again.
    text = text.replace('"toy"', f'"{TOY}"').replace("images=2)", f'images=2, name="{TOY}")')
    path.write_text(text + PACED)
    assert load_plugin(path) is None
    return path


@pytest.fixture(scope="session")
def whole(toy_plugin, tmp_path_factory):
    """What (see `numbers_of`) comes of two runs of CoOp in `SLOW` and one of CLIP zero-shot, done in one go."""
    from benchmarks.running.choices import Choices, How
    from benchmarks.running.execute import execute
    from benchmarks.running.plan import plan_runs
    from benchmarks.running.workbench import Workbench
    from benchmarks.runs.suites import Suite, expand

    results = tmp_path_factory.mktemp("whole")
    workbench = Workbench(Choices(results=results, overrides=SLOW, how=How(device="cpu")))
    suite = Suite(methods=("coop", "clip_zero_shot"), datasets=(TOY,), seeds=(0, 1))
    for item in plan_runs(expand(suite), workbench):
        if item.spec.method == "coop" or item.spec.seed == 0:
            execute(item, workbench)
    return numbers_of(results)


@pytest.fixture
def forked_runs(monkeypatch):
    """Pools of this process fork their runs from a server that has imported all, instead of starting Python anew."""
    monkeypatch.setattr("benchmarks.launchers.local.start_run", fork_run)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The environment variables of a running SLURM node, and what paces its jobs.

    Of several test processes one at a time has a node: the machine's cores are shared by what they run as it is.
    """
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("needs submitit: pip install -e '.[slurm]'")
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    turn = FileLock(tmp_path_factory.getbasetemp().parent / "slurm.lock") if parallel else nullcontext()
    try:
        with turn, slurm_node() as variables:
            yield {**variables, **PACE}
    except NotHere as reason:
        pytest.skip(f"no SLURM can be started here: {reason}")
