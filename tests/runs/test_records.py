"""Records: written in order, whole or not at all, readable after any kill, and never skipped silently."""

import errno
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import metrics, result

from benchmarks.runs import environment, files
from benchmarks.runs.records import RunFolder, capture_environment, find_runs
from benchmarks.runs.spec import RunSpec, TrainingConfig
from errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "golden" / "records"

SPEC = RunSpec(
    method="csp",
    method_config={"dropout": 0.3},
    training=TrainingConfig(),
    dataset="icon_states",
    dataset_digest="0" * 64,
    backbone="tiny-icons",
    backbone_digest="1" * 64,
)
START = {
    "provenance": {"lr": {"origin": "default"}},
    "command_line": ["bench.py", "run"],
    "environment": {"python": "3"},
}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / SPEC.run_id)
    folder.start(SPEC, **START)
    return folder


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


# The life of a run


def test_life_of_a_run(tmp_path):
    folder = RunFolder(tmp_path / "results" / SPEC.run_id)
    assert folder.status == "empty" and not folder.path.exists()
    folder.start(SPEC, **START)
    assert folder.status == "partial"
    folder.append_epoch({"epoch": 0, "loss": 0.1 + 0.2})
    folder.append_epoch({"epoch": 1, "loss": np.float32(0.1)})
    folder.write_arrays({"target": np.arange(3), "kind": np.array(["local", "global", "local"])})
    folder.finish(result(test=metrics(auc=1 / 3)))
    assert folder.status == "done"
    assert names(folder) == ["epochs.jsonl", "result.json", "scores.npz", "spec.json"]

    record = folder.read()
    assert (record.run_id, record.spec, record.status) == (SPEC.run_id, SPEC, "done")
    assert record.provenance == START["provenance"]
    assert record.environment == {"python": "3"} and record.starts[0]["command_line"] == ["bench.py", "run"]
    assert record.epochs == [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": float(np.float32(0.1))}]
    assert record.finished.metrics.test.auc == 1 / 3
    arrays = folder.read_arrays()
    np.testing.assert_array_equal(arrays["target"], np.arange(3))
    assert arrays["kind"].tolist() == ["local", "global", "local"]


def test_failure_is_a_record_and_the_next_start_forgets_it(run):
    try:
        raise RuntimeError("out\nof memory")
    except RuntimeError as error:
        run.fail(error)
    assert run.status == "failed"
    error = run.read().error
    assert (error["type"], error["message"]) == ("RuntimeError", "out of memory")
    assert "test_records.py" in error["traceback"]
    run.start(SPEC, **START)
    assert run.status == "partial" and run.read().error is None
    assert len(run.read().starts) == 2


def test_a_result_outweighs_an_older_error(run):
    run.fail(ValueError("x"))
    run.finish(result())
    assert run.status == "done" and names(run) == ["result.json", "spec.json"]


def test_done_runs_are_not_started_again_until_cleared(run):
    run.write_arrays({"target": np.arange(3)})
    (run.path / "best.safetensors").write_bytes(b"weights")
    run.finish(result())
    with pytest.raises(ValueError, match="done already"):
        run.start(SPEC, **START)
    run.clear()
    assert run.status == "empty" and names(run) == []
    run.start(SPEC, **START)


def test_another_run_is_not_overwritten(run):
    with pytest.raises(UserError, match="The folder holds csp-"):
        run.start(SPEC.model_copy(update={"seed": 1}), **START)
    assert run.read().spec == SPEC


def test_leftovers_without_a_specification_are_not_continued(run):
    run.append_epoch({"epoch": 0})
    (run.path / "spec.json").unlink()
    (run.path / ".result.json.123.tmp").write_text("half")
    run.start(SPEC, **START)
    assert names(run) == ["spec.json"]


# Epochs


def test_resuming_discards_what_will_be_made_again(run):
    for epoch in range(5):
        run.append_epoch({"epoch": epoch})
    with pytest.raises(ValueError, match="call resume_at first"):
        run.append_epoch({"epoch": 4})
    run.resume_at(3)
    run.append_epoch({"epoch": 3, "again": True})
    assert [record["epoch"] for record in run.epochs()] == [0, 1, 2, 3]
    run.resume_at(0)
    assert run.epochs() == []
    assert not [name for name in names(run) if name.endswith(".tmp")]


def test_every_torn_end_is_dropped_and_cut_off_before_the_next_line(tmp_path):
    whole = tmp_path / "whole.jsonl"
    for epoch in range(3):
        files.append_line(whole, {"epoch": epoch, "note": "é\n"})
    data = whole.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for length in range(len(data) + 1):
        torn.write_bytes(data[:length])
        complete = data[:length].count(b"\n")
        assert [record["epoch"] for record in files.read_lines(torn)] == list(range(complete))
        files.append_line(torn, {"epoch": 99})
        assert [record["epoch"] for record in files.read_lines(torn)] == [*range(complete), 99]


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\0\0\n", b"{\n", b"[1]\n", b"\n"])
def test_garbage_at_the_end_is_a_torn_line(tmp_path, garbage):
    path = tmp_path / "epochs.jsonl"
    files.append_line(path, {"epoch": 0})
    with path.open("ab") as file:
        file.write(garbage)
    assert files.read_lines(path) == [{"epoch": 0}]
    files.append_line(path, {"epoch": 1})
    assert files.read_lines(path) == [{"epoch": 0}, {"epoch": 1}]


def test_a_damaged_line_before_others_is_not_hidden(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_bytes(b'{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        files.read_lines(path)
    path.write_bytes(b'{"epoch": 0}\n{"epo\n{"epoch"')
    with pytest.raises(UserError, match="line 2 is damaged"):
        files.read_lines(path)


# Numbers


@settings(derandomize=True, max_examples=100, deadline=None)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_full_precision(value):
    assert json.loads(json.dumps(files.with_finite_numbers({"value": value})))["value"] == value


def test_numbers_that_are_not_finite_are_null_and_named(run):
    path = run.path / "numbers.json"
    content = {"auc": math.nan, "error": {"hm": [0.5, np.float32("inf")]}, "count": np.int64(3), "good": np.bool_(True)}
    files.write_json(path, content)
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert files.read_json(path) == {
        "auc": None,
        "error": {"hm": [0.5, None]},
        "count": 3,
        "good": True,
        "not_finite": {"auc": "nan", "error.hm.1": "inf"},
    }
    assert str(files.with_all_numbers(files.read_json(path))) == str(
        {"auc": math.nan, "error": {"hm": [0.5, math.inf]}, "count": 3, "good": True}
    )


def test_what_json_cannot_hold_is_a_type_error_with_its_place():
    with pytest.raises(TypeError, match=r"a\.b\.0 is a ndarray"):
        files.with_finite_numbers({"a": {"b": [np.zeros(2)]}})


def test_arrays_are_never_pickled(run):
    with pytest.raises(TypeError, match="'names' holds Python objects"):
        run.write_arrays({"names": np.array(["a", None], dtype=object)})
    assert names(run) == ["spec.json"]
    np.savez(run.path / "scores.npz", names=np.array(["a", None], dtype=object))
    with pytest.raises(UserError, match="it is damaged"):
        run.read_arrays()


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4 no archive", b"\x93NUMPY\x01\x00"])
def test_damaged_arrays_are_a_user_error(run, content):
    if content is not None:
        (run.path / "scores.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.npz cannot be read"):
        run.read_arrays()


def test_equal_arrays_give_equal_bytes(run):
    arrays = {"a": np.linspace(0, 1, 50), "b": np.arange(4)}
    run.write_arrays(arrays)
    first = (run.path / "scores.npz").read_bytes()
    run.write_arrays(arrays)
    assert (run.path / "scores.npz").read_bytes() == first


# Kills and failing disks


def test_failure_while_writing_leaves_the_old_file_and_no_other(run, monkeypatch):
    run.write_arrays({"a": np.arange(3)})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: run.write_arrays({"a": np.arange(4)}),
        lambda: run.finish(result()),
        lambda: run.fail(ValueError("x")),
        lambda: run.append_epoch({"epoch": 0}),
    ):
        with pytest.raises(UserError, match=r"cannot be written.*No space left on device.*Free space"):
            write()
    monkeypatch.undo()
    assert len(run.read_arrays()["a"]) == 3
    assert run.status == "partial"
    assert not [name for name in names(run) if name.endswith(".tmp")]


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "results").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(tmp_path / "results" / "run").start(SPEC, **START)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_read_only_folder_is_a_user_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            RunFolder(tmp_path / "run").start(SPEC, **START)
    finally:
        tmp_path.chmod(0o700)


WRITER = """
import sys
import numpy as np
from benchmarks.runs.records import RunFolder
from benchmarks.runs.spec import RunSpec
spec = RunSpec.model_validate_json(sys.argv[2])
run = RunFolder(sys.argv[1])
run.start(spec, provenance={}, command_line=[], environment={})
epoch = len(run.epochs())
print("writing", flush=True)
while True:
    run.append_epoch({"epoch": epoch, "note": "x" * 5000})
    run.write_arrays({"epoch": np.full(5000, epoch)})
    epoch += 1
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_writers_leave_a_readable_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    done = 0
    for delay in (0.0, 0.03, 0.11):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder.path), SPEC.model_dump_json()], cwd=ROOT, stdout=subprocess.PIPE
        )
        with writer:
            assert writer.stdout.readline() == b"writing\n"
            limit = time.monotonic() + 120 * (delay == 0.11)  # the last one gets round twice, however slow the disk is
            while time.monotonic() < limit and len(folder.epochs()) < done + 2:
                time.sleep(0.01)
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        record = folder.read()
        assert record.status == "partial"
        assert [line["epoch"] for line in record.epochs] == list(range(len(record.epochs)))
        assert len(record.epochs) >= done
        done = len(record.epochs)
    assert done > 0
    arrays = folder.read_arrays()
    assert len(set(arrays["epoch"])) == 1 and arrays["epoch"][0] in (done - 1, done - 2)
    assert len(record.starts) == 3


# Finding runs


def test_every_run_folder_is_found_or_is_a_problem(tmp_path):
    for seed, sub in ((1, "reference"), (0, ".")):
        spec = SPEC.model_copy(update={"seed": seed})
        folder = RunFolder(tmp_path / sub / spec.run_id)
        folder.start(spec, **START)
        folder.finish(result())
    (tmp_path / "empty").mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# Report")
    bad = {
        "broken_json": ("spec.json", "{", "it is not JSON"),
        "no_object": ("spec.json", "[]", "not a JSON object"),
        "no_spec": ("result.json", "{}", "spec.json cannot be read"),
        "only_epochs": ("epochs.jsonl", "", "spec.json cannot be read"),
        "incomplete": ("spec.json", '{"schema_version": 1}', "not complete"),
        "newer": ("spec.json", '{"schema_version": 99}', "schema version 99"),
        "not_versioned": ("spec.json", "{}", "schema version None"),
    }
    for name, (file, text, _) in bad.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    runs, problems = find_runs(tmp_path)
    assert [record.spec.seed for record in runs] == [0, 1]
    assert [problem.path.name for problem in problems] == sorted(bad)
    for problem in problems:
        assert bad[problem.path.name][2] in problem.message and "\n" not in problem.message


@pytest.mark.parametrize("name", ["spec.json", "result.json", "epochs.jsonl"])
def test_damage_to_any_file_is_a_problem(run, name):
    run.append_epoch({"epoch": 0})
    run.append_epoch({"epoch": 1})
    run.finish(result())
    data = (run.path / name).read_bytes()
    (run.path / name).write_bytes(b"#" + data)
    runs, problems = find_runs(run.path.parent)
    assert runs == [] and len(problems) == 1 and name in problems[0].message


def test_altered_settings_are_a_problem(run):
    text = (run.path / "spec.json").read_text()
    (run.path / "spec.json").write_text(text.replace('"dropout": 0.3', '"dropout": 0.4'))
    with pytest.raises(UserError, match="has been altered"):
        run.read()


def test_no_results_folder_is_no_runs(tmp_path):
    assert find_runs(tmp_path / "absent") == ([], [])


def test_old_schema_is_a_clear_problem():
    """A record as the first prototype wrote it: refused by name and version, with what to do."""
    runs, problems = find_runs(OLD)
    assert runs == []
    (problem,) = problems
    assert problem.path == OLD / "schema_0"
    assert problem.message == (
        f"The record {OLD / 'schema_0' / 'spec.json'} is of schema version 0. This release reads version 1. "
        "Use the release that wrote it, or remove the folder and run it again."
    )


# The environment


def test_environment_is_json_and_names_no_machine():
    captured = capture_environment()
    assert captured["python"] and captured["packages"]["numpy"] == np.__version__
    assert captured["cpu"]["count"] >= 1 and captured["cpu"]["name"]
    assert set(captured) == {"python", "packages", "platform", "cpu", "git"}
    machine = platform.node()
    assert len(machine) < 6 or machine not in json.dumps(captured)  # a short name may be part of another word


def test_git_state(tmp_path, monkeypatch):
    assert environment.git_state(tmp_path) is None
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert environment.git_state(tmp_path) is None  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    state = environment.git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text("{}")
    assert environment.git_state(tmp_path)["dirty"] is False
    (tmp_path / "code.py").write_text("")
    assert environment.git_state(tmp_path)["dirty"] is True
    assert environment.git_state(tmp_path / "results") is None  # inside a checkout is not the checkout


def test_records_import_no_torch():
    modules = "benchmarks.runs.records, benchmarks.runs.suites, benchmarks.runs.overrides"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
