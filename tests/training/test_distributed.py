"""One run over several processes: shares, equality with one process, one message when one of them fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import torch
from forked import Forked, in_two_processes
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.training.distributed import ALONE, Group, own_device
from benchmarks.training.failing import _sentences
from benchmarks.training.processes import launch, must_launch, processes, rank
from errors import UserError

ROOT = Path(__file__).parents[2]
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
LAUNCHED |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
FAULTY = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from toy_world import make_toy
from datasets.base import CompositionDataset
from errors import UserError
from registry import DATASETS


class Faulty(CompositionDataset):
    loads = 0

    def load_image(self, phase, index):
        fault, _, rank = os.environ.get("FAULT", "").partition("-")
        if phase == "train" and rank == os.environ.get("RANK"):
            if fault == "torn":
                raise UserError("The picture 7 is torn.", "It is made of paper.", "Glue it.")
            if fault == "bug":
                raise ValueError("a bug")
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            Faulty.loads += 1
            if Faulty.loads == 40:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().load_image(phase, index)


@DATASETS.register("toy", title="toy icons")
def load():
    toy = make_toy(Path({folder!r}), train_images=2)
    return Faulty(**{{name: getattr(toy, name) for name in toy.__dataclass_fields__}})
"""


# Shares


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3), st.integers(2, 5))
def test_shares_cover_every_image_once_and_batches_are_the_shares(images, micro_batch, accumulated, size):
    order = torch.randperm(images)
    groups = [Group(rank, size) for rank in range(size)]
    found = [list(group.shares(images, micro_batch)) for group in groups]
    for number, start in enumerate(range(0, images, micro_batch)):
        at_once = [shares[number] for shares in found]
        rows = [row for share in at_once for row in range(share.first, share.first + share.count)]
        assert rows == list(range(min(micro_batch, images - start)))
        assert max(s.count for s in at_once) - min(s.count for s in at_once) <= 1
        assert {share.total for share in at_once} == {len(rows)}
    for group in groups:
        batch_size = accumulated * micro_batch
        own, batch = group.training_rows(order, batch_size, micro_batch)
        expected = [
            torch.cat([part[share.rows] for part, share in zip(whole.split(micro_batch), shares, strict=True)])
            for whole in order.split(batch_size)
            for shares in [group.shares(len(whole), micro_batch)]
        ]
        assert all(map(torch.equal, own.split(batch), expected)) and len(own.split(batch)) == len(expected)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(2, 5))
def test_evaluation_batches_are_dealt_out_whole(images, batch, size):
    groups = [Group(rank, size) for rank in range(size)]
    dealt = [group.evaluation_rows(images, batch) for group in groups]
    assert torch.equal(torch.cat(dealt), torch.arange(images))
    whole = {tuple(part.tolist()) for part in torch.arange(images).split(batch)}
    assert all(tuple(part.tolist()) in whole for rows in dealt if len(rows) for part in rows.split(batch))


def test_one_process_shares_nothing():
    (share,) = ALONE.shares(7, 9)
    assert (share.first, share.count, share.total) == (0, 7, 7)
    order = torch.randperm(5)
    assert torch.equal(ALONE.training_rows(order, 2, 1)[0], order)
    assert ALONE.gather(b"x") == [b"x"]
    assert ALONE.facts == {"processes": 1}


# Launching


def test_a_launcher_is_known_by_all_that_it_sets(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")  # schedulers and shells set single ones of these
    assert (processes(), rank()) == (1, 0)
    assert must_launch(2)
    assert not must_launch(None)
    assert not must_launch(1)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert (processes(), rank()) == (2, 1)
    assert not must_launch(2)
    with pytest.raises(UserError, match="has started 2 processes"):
        must_launch(3)


def test_every_process_needs_a_device_of_its_own(monkeypatch):
    assert own_device(torch.device("cuda:1")) == torch.device("cuda:1"), "one process takes what it is given"
    with pytest.raises(UserError, match="cannot train on the device 'mps'"):
        own_device(torch.device("mps"), 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, count in (("cuda:1", 2), ("cuda", 3)):
        with pytest.raises(UserError, match="needs a device of its own"):
            own_device(torch.device(device), count)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert own_device(torch.device("cuda")) == torch.device("cuda", 1)


def test_the_launcher_returns_the_code_of_a_process_that_failed():
    code = "import os, sys, time; sys.exit(2 if os.environ['RANK'] == '0' else time.sleep(30))"
    assert launch(2, [sys.executable, "-c", code]) == 2


# Two processes


def test_two_processes_make_the_run_of_one(tmp_path):
    """See distributed_worker.py: all its checks share one start of two processes."""
    in_two_processes(distributed_worker.main, tmp_path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Run the toy data set with CSP over two processes, with a fault on one of them."""
    folder = tmp_path_factory.mktemp("faulty")
    plugin = folder / "faulty.py"
    plugin.write_text(FAULTY.format(tests=str(ROOT / "tests"), folder=str(folder / "toy")))

    def run(results: Path, fault: str = "", *more: str) -> subprocess.CompletedProcess:
        command = ["run", "--plugin", plugin, "--dataset", "toy", "--devices", "2", "--results", results]
        command += more or ("--methods", "csp", "coop", "--epochs", "1")
        process = Forked(*command, env={"FAULT": fault, "COLUMNS": "300"})
        out, err = process.communicate(timeout=300)
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.words, process.returncode, out, err)

    return run


def test_a_process_that_fails_ends_the_run_with_one_message_and_one_record(tmp_path, bench):
    done = bench(tmp_path, "torn-1")
    assert done.returncode == 1
    assert done.stderr.count("The picture 7 is torn. It is made of paper. Glue it.") == 1, done.stderr
    assert "Traceback" not in done.stderr
    (path,) = tmp_path.glob("*/error.json")
    record = json.loads(path.read_text())
    assert record["message"] == "The picture 7 is torn. It is made of paper. Glue it."
    assert "training_loss" in record["traceback"] or "batches" in record["traceback"], "of the other process"
    assert len(list(tmp_path.glob("*/spec.json"))) == 1, "the second run was not begun"


def test_a_killed_process_is_told_by_the_launcher_and_a_signal_to_one_stops_them_all(tmp_path, bench):
    """The same command ends both runs, with the same bytes."""
    more = ("--methods", "coop", "--epochs", "4", "--set", "coop.augmentation=clip", "coop.batch_size=8")
    killed = bench(tmp_path / "killed", "kill-1", *more)
    assert killed.returncode == 2
    assert "Process 1 of 2 was ended by SIGKILL." in killed.stderr
    assert "Traceback" not in killed.stderr
    stopped = bench(tmp_path / "stopped", "stop-1", *more)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert stopped.stderr.count("Stopped by SIGTERM in coop, toy, seed 0, epoch 4 of 4. Nothing is lost") == 1
    (record,) = tmp_path.glob("stopped/*/interrupted.json")
    assert json.loads(record.read_text())["epochs"] == 3 and json.loads(record.read_text())["images"] > 0
    for name in ("killed", "stopped"):
        done = bench(tmp_path / name, "", *more)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("coop, toy, seed 0: AUC") == 1, "the first process alone prints"
        (path,) = tmp_path.glob(f"{name}/*/spec.json")
        starts = [start["environment"] for start in json.loads(path.read_text())["starts"]]
        assert [(start["processes"], start["communication"]) for start in starts] == [(2, "gloo")] * 2
    for name in ("best.safetensors", "scores.npz"):
        one, two = (next(tmp_path.glob(f"{folder}/*/{name}")).read_bytes() for folder in ("killed", "stopped"))
        assert one == two


def test_an_error_of_ours_names_the_process():
    told = UserError(*_sentences(ValueError("a  bug."), 3))
    assert str(told).startswith("Process 3 of this run failed. ValueError: a bug. The same command")
