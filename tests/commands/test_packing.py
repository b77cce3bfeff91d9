"""`pack`, `unpack` and reports of several folders and files: what comes from elsewhere is checked, and never run."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import here
from report_records import make_run

from benchmarks.report import archive
from benchmarks.report.packing import packed
from benchmarks.runs import files
from benchmarks.runs.records import RunFolder, find_runs
from errors import UserError

pytestmark = pytest.mark.usefixtures("svg_alone")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one that failed, and paths of this machine in a record."""
    root = tmp_path_factory.mktemp("results")
    run = make_run(root, "csp")
    RunFolder(run.path).note(f"Missing in {root}/images/a.jpg: left out; see ~/notes.txt (ViT-L-14/openai).")
    make_run(root, "coop")
    failed = make_run(root, "dfsp")
    (failed.path / "result.json").unlink()
    return root


@pytest.fixture(scope="module")
def file(results: Path) -> Path:
    path = results.parent / "runs.tar.xz"
    shown = here("pack", results, path).stdout
    assert "2 runs" in shown and "1 other record left out" in shown
    return path


def test_what_is_packed_comes_back_without_paths(results, file, tmp_path):
    assert "2 runs below" in here("unpack", file, tmp_path).stdout
    runs, problems = find_runs(tmp_path)
    assert not problems and len(runs) == 2
    for run in runs:
        before = RunFolder(results / run.run_id)
        assert (run.path / "result.json").read_bytes() == (before.path / "result.json").read_bytes()
        stored = before.read_arrays()
        for name, values in RunFolder(run.path).read_arrays().items():
            if "logsumexp" not in name:
                assert np.array_equal(values, stored[name]) and values.dtype == stored[name].dtype, name
    (noted,) = (run for run in runs if run.spec.method == "csp")
    assert noted.starts[0]["notices"] == ["Missing in a.jpg: left out; see notes.txt (ViT-L-14/openai)."]
    again = here("unpack", file, tmp_path)
    assert "0 runs below" in again.stdout and "2 runs were there already" in again.stdout
    assert "different results" not in again.stderr
    assert here("unpack", file, tmp_path / "csp", "--only", "csp-*").stdout.startswith("1 run below")


def better(members: dict[str, bytes]) -> None:
    """Give every run another AUC."""
    for name in [name for name in members if name.endswith("result.json")]:
        result = json.loads(members[name])
        result["metrics"]["test"]["auc"] += 0.25
        members[name] = json.dumps(result).encode()


def damaged(members: dict[str, bytes]) -> None:
    """Cut the result of the first run."""
    members[next(name for name in members if name.endswith("result.json"))] = b"{"


def test_status_of_a_packed_file_says_how_to_lay_it_out(file):
    done = here("status", "--results", file, check=False)
    assert done.returncode == 2
    assert "It is a file; states are read from folders of runs." in done.stderr
    assert f"python bench.py unpack {file} FOLDER" in done.stderr.replace("\n", " ")


def test_unpacking_says_what_differs_from_what_is_there(file, tmp_path):
    here("unpack", file, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/result.json")}
    rewritten(file, tmp_path / "better.tar.xz", better, sign=True)
    done = here("unpack", tmp_path / "better.tar.xz", tmp_path / "out")
    assert done.stderr.count("with different results; the first was taken") == 2
    assert before == {path: path.read_bytes() for path in before}


def test_unpacking_leaves_out_what_cannot_be_read_and_says_so(file, tmp_path):
    rewritten(file, tmp_path / "bad.tar.xz", damaged, sign=True)
    done = here("unpack", tmp_path / "bad.tar.xz", tmp_path / "out", check=False)
    assert done.returncode == 2 and "1 run was left out: in" in done.stderr
    assert "1 run below" in done.stdout and len(find_runs(tmp_path / "out")[0]) == 1


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("written", [0, 1])
def test_an_unpacking_that_was_ended_is_made_up_for_by_the_next(file, tmp_path, monkeypatch, stop, written):
    """Wherever it ends, each run is whole or not there; what a launcher left in a folder stays."""
    write, calls = files.write_arrays, []

    def ends(path, arrays):
        calls.append(path)
        if len(calls) > written:
            with files.writing(path):
                raise stop
        write(path, arrays)

    ids = sorted(run.run_id for run in archive.read(file))
    (tmp_path / ids[0]).mkdir()
    (tmp_path / ids[0] / "log.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_arrays", ends)
        with pytest.raises((UserError, KeyboardInterrupt)):
            for run in archive.read(file):
                archive.unpack(run, tmp_path)
    runs, problems = find_runs(tmp_path)
    assert [run.status for run in runs] == ["done"] * written and not problems
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"
    shown = here("unpack", file, tmp_path).stdout
    assert shown.startswith(f"{2 - written} run")
    assert sorted(run.run_id for run in find_runs(tmp_path)[0] if run.result is not None) == ids
    assert (tmp_path / ids[0] / "log.txt").read_text() == "mine"


def test_what_a_kill_leaves_of_an_unpacking_is_no_run(file, tmp_path):
    here("unpack", file, tmp_path)
    one = next(tmp_path.glob("csp-*"))
    one.rename(tmp_path / f".{one.name}.123.tmp")
    assert [run.spec.method for run in find_runs(tmp_path)[0]] == ["coop"]
    assert here("unpack", file, tmp_path).stdout.startswith("1 run below")
    assert len(find_runs(tmp_path)[0]) == 2


def test_a_run_without_a_result_that_is_there_is_named_and_left(file, tmp_path):
    here("unpack", file, tmp_path)
    one = next(tmp_path.glob("csp-*"))
    (one / "result.json").unlink()
    done = here("unpack", file, tmp_path)
    assert f"{one.name} is in {tmp_path} without a result (partial), and is left as it is." in done.stderr
    assert not (one / "result.json").exists()
    (one / "spec.json").write_text("{")
    done = here("unpack", file, tmp_path)
    assert f"Left as it is: {one}: The record {one / 'spec.json'} cannot be read." in done.stderr


def test_a_place_that_is_not_there_is_named(results, tmp_path):
    for places in (["r", "nowhere"], ["nowhere", "r"], ["nowhere.tar.xz"]):
        (tmp_path / "r").exists() or (tmp_path / "r").symlink_to(results)
        done = here("report", "--results", *places, "--resamples", "0", check=False, cwd=tmp_path)
        assert done.returncode == 2 and "There are no records in nowhere" in done.stderr


def test_the_same_runs_give_the_same_bytes(results, file):
    before = file.read_bytes()
    file.unlink()
    here("pack", results, file)
    assert file.read_bytes() == before


def test_a_report_of_folders_and_files(results, file, tmp_path):
    other = tmp_path / "other"
    make_run(other, "troika")
    shown = here("report", "--results", other, file, "--resamples", "0").stdout
    assert all(name in shown for name in ("Troika", "CSP", "CoOp"))
    assert "lies in several folders" not in shown
    assert f"Report: {other / 'report.md'}" in shown, "the first folder has it"
    again = here("report", "--results", other, file, results, "--resamples", "0")
    assert "lies in several folders; one was taken" in again.stdout
    assert "with different results" not in again.stderr
    assert not list(Path(tmp_path).glob("**/czsl-packed-*"))


def test_a_clash_of_one_run_is_named_and_the_first_counts(results, file, tmp_path):
    better = make_run(tmp_path / "better", "csp", skill=3.0)
    done = here("report", "--results", tmp_path / "better", file, "--resamples", "0")
    auc = f"{100 * better.finished.metrics.test.auc:.2f}"
    assert f"{better.run_id} is in {tmp_path / 'better'} (AUC {auc}) and in {file} (AUC" in done.stderr
    assert "with different results; the first was taken." in done.stderr
    assert f"{100 * better.finished.metrics.test.auc:.1f}" in done.stdout


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def rewritten(path: Path, to: Path, change: Callable[[dict[str, bytes]], object], *, sign: bool = False) -> None:
    """Write an archive with other members; sign: whether the index has their digests."""
    members = members_of(path)
    change(members)
    if sign:
        index = json.loads(members["index.json"])
        index["sha256"] = {n: hashlib.sha256(data).hexdigest() for n, data in members.items() if n != "index.json"}
        members["index.json"] = json.dumps(index).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    to.write_bytes(lzma.compress(out.getvalue()))


def name_of(members: dict[str, bytes], ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def altered(members: dict[str, bytes]) -> None:
    name = name_of(members, "result.json")
    members[name] = members[name].replace(b"0.", b"0.9", 1)


def escaping(members: dict[str, bytes]) -> None:
    members["../evil/spec.json"] = b"{}"


def absolute(members: dict[str, bytes]) -> None:
    members["/tmp/evil"] = b""


def described(change: Callable[[dict], object]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        index = json.loads(members["index.json"])
        change(index)
        members["index.json"] = json.dumps(index).encode()

    return apply


def column(**about: object) -> Callable[[dict[str, bytes]], None]:
    return described(lambda index: next(iter(index["runs"].values()))["test.best_seen"].update(about))


def huge_texts(members: dict[str, bytes]) -> None:
    members["columns/9999"] = b"a\n" * 20_000
    column(dtype="<U99999", text=True, shape=[20_001], member="columns/9999")(members)


def another_run(members: dict[str, bytes]) -> None:
    index = json.loads(members["index.json"])
    first, second = index["runs"]
    members[f"{first}/spec.json"] = members[f"{second}/spec.json"]


def other_spec(members: dict[str, bytes]) -> None:
    name = name_of(members, "spec.json")
    members[name] = members[name].replace(b'"seed": 0', b'"seed": 7')


def link(path: Path, to: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("index.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    to.write_bytes(lzma.compress(out.getvalue()))


def cut(path: Path, to: Path) -> None:
    to.write_bytes(path.read_bytes()[:-100])


def followed(path: Path, to: Path) -> None:
    to.write_bytes(path.read_bytes() * 2)


def with_members(change: Callable[[dict[str, bytes]], object], sign: bool = False) -> Callable[[Path, Path], None]:
    return lambda path, to: rewritten(path, to, change, sign=sign)


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "altered": (with_members(altered), "result.json' has been altered."),
    "a path upwards": (with_members(escaping, True), "it has a member '../evil/spec.json'."),
    "an absolute path": (with_members(absolute, True), "it has a member '/tmp/evil'."),
    "a link": (link, "it has a member 'index.json'."),
    "cut": (cut, "it is cut, or something follows it."),
    "two in one": (followed, "it is cut, or something follows it."),
    "a later format": (with_members(described(lambda index: index.update(format=3)), True), "it is of format 3"),
    "no index": (with_members(lambda members: members.pop("index.json")), "KeyError"),
    "objects": (with_members(column(dtype="|O"), True), "a column is of the type '|O'."),
    "a huge array": (with_members(column(shape=[10**12]), True), "bytes is described as (1000000000000,)"),
    "huge texts": (with_members(huge_texts, True), "20,001 lines of text is described as (20001,) of <U99999"),
    "no xz": (lambda path, to: to.write_bytes(b"PK and so on"), "It does not begin as one."),
}
"""What is wrong with a packed file, and what is said."""


@pytest.mark.parametrize("case", DAMAGE)
def test_a_packed_file_that_is_not_as_it_should_be_is_refused(file, tmp_path, case):
    damage, message = DAMAGE[case]
    damage(file, tmp_path / "bad.tar.xz")
    for command in (["report", "--results"], ["unpack"]):
        target = [tmp_path / "out"] if command == ["unpack"] else []
        done = here(*command, tmp_path / "bad.tar.xz", *target, check=False)
        assert done.returncode == 2
        assert message in done.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "report.md").exists()
    assert not list(tmp_path.parent.glob("evil*"))


@pytest.mark.parametrize(
    ("change", "message"), [(another_run, "It holds the run"), (other_spec, "has been altered")], ids=["moved", "spec"]
)
def test_a_record_inside_that_is_not_what_it_says_is_named_and_the_others_count(file, tmp_path, change, message):
    rewritten(file, tmp_path / "bad.tar.xz", change, sign=True)
    done = here("report", "--results", tmp_path / "bad.tar.xz", "--resamples", "0")
    assert message in done.stderr
    assert str(tmp_path / "bad.tar.xz") in done.stderr and "czsl-packed" not in done.stderr


def test_a_bomb_is_not_taken_apart(file, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LIMIT", 1 << 16)
    (tmp_path / "bomb.tar.xz").write_bytes(lzma.compress(bytes(1 << 20)))
    done = here("report", "--results", tmp_path / "bomb.tar.xz", check=False)
    assert done.returncode == 2
    assert "it takes more than 65,536 bytes when it is taken apart" in done.stderr


PACKING = {
    "a folder": (["r", "r"], "It is a folder."),
    "another ending": (["r", "runs.zip"], "A packed file ends in .tar.xz."),
    "nothing finished": (["empty", "runs.tar.xz"], "There is nothing to pack in 'empty'."),
    "no such run": (["r", "runs.tar.xz", "--only", "msci-*"], "none is finished and fits 'msci-*'."),
    "another file": (["r", "other.tar.xz"], "It is there and is no packed file."),
}


@pytest.mark.parametrize("case", PACKING)
def test_what_cannot_be_packed_is_said(results, tmp_path, case):
    words, message = PACKING[case]
    (tmp_path / "r").symlink_to(results)
    (tmp_path / "other.tar.xz").write_text("mine")
    done = here("pack", *words, check=False, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert (tmp_path / "other.tar.xz").read_text() == "mine"


def test_more_than_can_be_read_again_is_not_packed(results, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LIMIT", 1000)
    done = here("pack", results, tmp_path / "runs.tar.xz", check=False)
    assert done.returncode == 2 and "Pack them into several files." in done.stderr


def test_committed_records_stay_as_they_are(results, tmp_path):
    """An archive without digests is read and written as before."""
    run = next(run for run in find_runs(results)[0] if run.result is not None and run.spec.method == "coop")
    archive.write(tmp_path / "plain.tar.xz", [packed(run)], archive.PLAIN)
    assert json.loads(members_of(tmp_path / "plain.tar.xz")["index.json"])["format"] == 1
    (back,) = archive.read(tmp_path / "plain.tar.xz")
    assert back.run_id == run.run_id
    assert back.texts["result.json"] == (run.path / "result.json").read_bytes()
    assert files.read_json(archive.unpack(back, tmp_path) / "spec.json")["run_id"] == run.run_id
