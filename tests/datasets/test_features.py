"""The feature cache: whole or not there, checked when opened, repaired shard by shard, filled by one process."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_world import make_toy

from datasets import files
from datasets.feature_cache import cache as features
from datasets.feature_cache import folder as feature_folder
from datasets.feature_cache import shards as feature_shards
from datasets.feature_cache.cache import obtain
from datasets.feature_cache.entries import damages, entries, remove, select
from datasets.feature_cache.folder import INDEX, alone, root
from datasets.feature_cache.key import FeatureKey, images_digest
from errors import UserError

KEY = FeatureKey(
    *(
        "toys",
        "0" * 8,
        "train",
        "1" * 8,
        "tiny/one",
        "2" * 8,
        "module.Class.image_features",
        "3" * 8,
        "none, 64 pixels",
    ),
    **{"view": None, "precision": "fp32", "batch": 4, "made_with": "torch 0"},
)
COUNT = 22


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CZSL_HOME", str(tmp_path))
    monkeypatch.setattr(feature_shards, "SHARD_BYTES", 250)  # two batches each
    return tmp_path


class Source:
    """Made features of 22 images, in batches of 4; remembers for which images it was asked."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(COUNT, 3, generator=generator)
        self.tokens = torch.randn(COUNT, 2, 5, generator=generator).bfloat16()
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int):
        self.asked.append((start, stop))
        for low in range(start, stop, 4):
            rows = slice(low, min(low + 4, stop))
            yield {"image": self.image[rows], "tokens": self.tokens[rows]}


def same(source: Source, stored, rows) -> bool:
    found = stored.rows(rows)
    wanted = {"image": source.image[rows], "tokens": source.tokens[rows]}
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def shards() -> list[Path]:
    return sorted(root().glob("*/shard-*"))


def test_rows_are_those_that_were_computed_in_any_order():
    source = Source()
    stored = obtain(KEY, COUNT, source)
    assert len(stored) == COUNT and len(shards()) > 2
    generator = torch.Generator().manual_seed(1)
    for rows in (
        torch.arange(COUNT),
        torch.randperm(COUNT, generator=generator),
        torch.tensor([21, 0, 0, 7]),
        torch.tensor([5]),
    ):
        assert same(source, stored, rows)
    again = obtain(KEY, COUNT, source)
    assert same(source, again, torch.randperm(COUNT, generator=generator))
    assert source.asked == [(0, COUNT)], "the second time nothing is computed"


def test_what_is_read_while_scoring_can_be_trained_on():
    source = Source()
    with torch.inference_mode():
        stored = obtain(KEY, COUNT, source)
    weight = torch.ones(3, requires_grad=True)
    (stored.rows(torch.arange(4))["image"] @ weight).sum().backward()
    assert torch.allclose(weight.grad, source.image[:4].sum(dim=0))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FeatureKey)])
def test_every_field_of_a_key_makes_another_folder(field):
    changed = {"view": (0, 1), "batch": 5}.get(field, "other")
    assert dataclasses.replace(KEY, **{field: changed}).name != KEY.name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def flip_unseen(path: Path) -> None:
    """As a failing disk does: the file looks as before."""
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("harm", [cut, flip, flip_unseen, Path.unlink])
def test_a_damaged_shard_is_named_and_computed_again_alone(harm):
    source = Source()
    obtain(KEY, COUNT, source)
    index = json.loads((root() / KEY.name / INDEX).read_text())
    rows = [shard["rows"] for shard in index["shards"]]
    harm(shards()[1])
    assert len(damages(entries()[0])) == 1
    notices: list[str] = []
    stored = obtain(KEY, COUNT, source, notify=notices.append)
    assert same(source, stored, torch.arange(COUNT))
    assert source.asked[1:] == [(rows[0], rows[0] + rows[1])]
    assert len(notices) == 1 and str(shards()[1]) in notices[0] and "encoded again" in notices[0]
    assert damages(entries()[0]) == [] and source.asked[2:] == []
    digests = [shard["sha256"] for shard in json.loads((root() / KEY.name / INDEX).read_text())["shards"]]
    assert digests == [shard["sha256"] for shard in index["shards"]]


def test_large_features_are_read_in_full_only_after_a_change(monkeypatch):
    monkeypatch.setattr(feature_shards, "READ_BYTES", 0)
    source = Source()
    obtain(KEY, COUNT, source)
    monkeypatch.setattr(feature_folder.hashlib, "file_digest", lambda *_: pytest.fail("a file was read in full"))
    assert same(source, obtain(KEY, COUNT, source), torch.arange(COUNT))


def test_a_damaged_header_is_noticed_in_large_features_too(monkeypatch):
    monkeypatch.setattr(feature_shards, "READ_BYTES", 0)
    source = Source()
    obtain(KEY, COUNT, source)
    times = shards()[0].stat()
    content = shards()[0].read_bytes()
    shards()[0].write_bytes(content[:8] + b"?" + content[9:])
    os.utime(shards()[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    notices: list[str] = []
    assert same(source, obtain(KEY, COUNT, source, notify=notices.append), torch.arange(COUNT))
    assert "is no file of tensors" in notices[0]


def test_a_copied_cache_is_checked_and_used(home, monkeypatch):
    source = Source()
    obtain(KEY, COUNT, source)
    for path in shards():
        os.utime(path, ns=(1, 1))
    assert same(source, obtain(KEY, COUNT, source), torch.arange(COUNT))
    assert source.asked == [(0, COUNT)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 1, "count": 22, "shards": [{}]}'])
def test_a_folder_without_a_good_index_is_computed_anew(text):
    source = Source()
    obtain(KEY, COUNT, source)
    (root() / KEY.name / INDEX).write_text(text)
    assert [entry.state for entry in entries()] == ["incomplete"]
    assert same(source, obtain(KEY, COUNT, source), torch.arange(COUNT))
    assert source.asked == [(0, COUNT)] * 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, UserError, RuntimeError])
def test_an_error_while_computing_leaves_no_folder(kind):
    def broken(start: int, stop: int):
        for number, batch in enumerate(Source()(start, stop)):
            if number == 4:
                raise kind("stop")
            yield batch

    with pytest.raises(kind):
        obtain(KEY, COUNT, broken)
    assert entries() == [] and shards() == []


def test_features_of_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match="22 images were computed, there are 23"):
        obtain(KEY, COUNT + 1, lambda start, stop: Source()(start, stop - 1))
    assert entries() == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing():
    """The system itself refuses: files of this process may not grow beyond 300 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be kept.*File too large.*--no-feature-cache"):
            obtain(KEY, COUNT, Source())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries() == [] and shards() == []
    assert same(Source(), obtain(KEY, COUNT, Source()), torch.arange(COUNT))


@pytest.mark.parametrize(("free", "kept"), [(2 * 32 * COUNT, True), (2 * 32 * COUNT - 1, False)])
def test_features_that_would_take_most_of_the_disk_are_not_kept(monkeypatch, free, kept):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    notices: list[str] = []
    assert (obtain(KEY, COUNT, Source(), notify=notices.append) is not None) == kept
    assert ["more than half" in notice for notice in notices] == ([] if kept else [True])
    assert len(entries()) == kept


def hold(home: str, ready, done) -> None:
    os.environ["CZSL_HOME"] = home
    with alone(root() / KEY.name):
        ready.set()
        done.wait(300)


def test_the_lock_makes_others_wait_and_lets_them_stop(home):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(home), ready, done), daemon=True)
    process.start()
    assert ready.wait(300)
    notices: list[str] = []

    class Stop(BaseException):
        pass

    def pause() -> None:
        raise Stop

    with pytest.raises(Stop):
        obtain(KEY, COUNT, Source(), notify=notices.append, pause=pause)
    assert "waits for it" in notices[0]
    (root() / KEY.name).mkdir()
    assert entries()[0].state == "in use" and not remove(entries()[0])
    process.kill()  # whatever way a process ends, its lock goes with it
    process.join()
    assert obtain(KEY, COUNT, Source()) is not None


WORKER = """
import sys, time, torch
from pathlib import Path
from datasets.feature_cache import shards as feature_shards
from test_features import COUNT, KEY, Source, same
from datasets.feature_cache.cache import obtain
feature_shards.SHARD_BYTES = 250
source = Source()
def slow(start, stop):
    Path(sys.argv[1]).open("a").write("computed\\n")
    for batch in source(start, stop):
        time.sleep(0.1)
        yield batch
stored = obtain(KEY, COUNT, slow)
print(same(source, stored, torch.arange(COUNT)))
"""


def start(home: Path) -> subprocess.Popen:
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "CZSL_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent, here.parents[1]))),
    }
    command = [sys.executable, "-c", WORKER, str(home / "log")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_of_two_processes_one_computes_and_both_read(home):
    processes = [start(home) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].strip() for process in processes] == ["True"] * 2
    assert (home / "log").read_text().splitlines() == ["computed"]


def test_a_killed_process_leaves_nothing_that_counts(home):
    process = start(home)
    while not shards():
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert entries()[0].state == "incomplete"
    assert same(Source(), obtain(KEY, COUNT, Source()), torch.arange(COUNT))
    assert [entry.state for entry in entries()] == ["whole"]


def test_a_cache_that_may_only_be_read_is_read(monkeypatch):
    source = Source()
    obtain(KEY, COUNT, source)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    monkeypatch.setattr(features.os, "utime", refuse)
    assert same(source, obtain(KEY, COUNT, source), torch.arange(COUNT))
    assert source.asked == [(0, COUNT)]


def test_entries_say_what_they_belong_to_and_are_selected_by_it():
    obtain(KEY, COUNT, Source())
    other = dataclasses.replace(KEY, dataset="icons", view=(0, 3))
    obtain(other, COUNT, Source())
    for number, key in enumerate((KEY, other)):
        os.utime(root() / key.name / INDEX, (number, number))
    first, second = entries()
    assert (first.name, first.about["view"], first.count, first.state) == (other.name, [0, 3], COUNT, "whole")
    assert first.bytes == sum(path.stat().st_size for path in (root() / other.name).iterdir())
    assert select("icons") == [first] and select(KEY.name) == [second]
    assert select("tiny/one") == select(None) == [first, second]
    with pytest.raises(UserError, match=r"nothing called 'icon'.*Did you mean 'icons'"):
        select("icon")
    assert remove(first) and [entry.name for entry in entries()] == [KEY.name]


def test_a_replaced_image_is_other_features_and_a_copied_one_is_not(tmp_path):
    toy = make_toy(tmp_path / "toy")
    before = images_digest(toy, "train"), images_digest(toy, "val")
    path = toy.image_path("train", 0)
    os.utime(path)
    assert images_digest(toy, "train") == before[0]
    path.write_bytes(toy.image_path("train", 1).read_bytes())
    assert images_digest(toy, "train") != before[0] and images_digest(toy, "val") == before[1]
    path.unlink()
    assert images_digest(toy, "train") not in before


def test_listing_imports_no_torch(home):
    code = "import sys, datasets.feature_cache.entries as f; f.entries(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
