"""Fixtures of the launchers' tests: a plugin with the toy data set, and a SLURM of one node where it can be started."""

from __future__ import annotations

import importlib.util

import pytest
from jobs import SLOW, TOY
from slurm_node import NotHere, slurm_node
from test_bench import PLUGIN, ROOT, results_of

from registry import load_plugin


@pytest.fixture(scope="session")
def toy_plugin(tmp_path_factory):
    """A plugin file that registers the toy data set, loaded in this process too."""
    folder = tmp_path_factory.mktemp("plugin")
    path = folder / "toy_plugin.py"
    text = PLUGIN.format(tests=str(ROOT / "tests"), folder=str(folder / "toy"), images=6)
    # A name of its own, also within the data set: a record must find it again.
    text = text.replace('"toy"', f'"{TOY}"').replace("images=6)", f'images=6, name="{TOY}")')
    path.write_text(text)
    assert load_plugin(path) is None
    return path


@pytest.fixture(scope="session")
def whole(toy_plugin, tmp_path_factory):
    """What results say (see `results_of`) of two runs of CoOp in `SLOW` and one of CLIP zero-shot, done in one go."""
    from benchmarks.plan import Suite, expand
    from benchmarks.run import Choices, Workbench, execute, plan_runs

    results = tmp_path_factory.mktemp("whole")
    workbench = Workbench(Choices(results=results, device="cpu", overrides=SLOW))
    suite = Suite(methods=("coop", "clip_zero_shot"), datasets=(TOY,), seeds=(0, 1))
    for item in plan_runs(expand(suite), workbench):
        if item.spec.method == "coop" or item.spec.seed == 0:
            execute(item, workbench)
    return results_of(results)


@pytest.fixture(scope="session")
def node():
    """The environment variables of a running SLURM node."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("needs submitit: pip install -e '.[slurm]'")
    try:
        with slurm_node() as variables:
            yield variables
    except NotHere as reason:
        pytest.skip(f"no SLURM can be started here: {reason}")
