"""States of runs while others write them, and of damaged ones: the other runs are shown all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from in_process import here
from report_records import make_run

from benchmarks.launchers.states import state_of, states
from benchmarks.runs.records import RunFolder


def failed(root: Path):
    """A run that failed."""
    run = make_run(root, "csp")
    (run.path / "result.json").unlink()
    RunFolder(run.path).fail(RuntimeError("it broke"))
    return run


def test_a_file_that_is_renamed_meanwhile_is_passed_over(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    aside = run.path / ".epochs.jsonl.7.tmp"
    aside.write_text("half")
    os.utime(aside, (2e9, 2e9))
    listed = Path.iterdir

    def renamed(path):
        found = list(listed(path))
        aside.unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", renamed)
    (found,) = states(tmp_path)
    assert found.state == "done" and found.changed is not None and found.changed.year < 2033


def test_a_folder_that_is_gone_meanwhile_is_passed_over(tmp_path, monkeypatch):
    run = make_run(tmp_path)

    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "iterdir", gone)
    assert state_of(run.spec, run.path).state == "done"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema_version": 99}', b"\xff"])
@pytest.mark.parametrize("file", ["error.json", "spec.json"])
def test_a_damaged_record_is_unreadable_and_the_others_are_shown(tmp_path, content, file):
    run, other = failed(tmp_path), make_run(tmp_path, "coop")
    assert state_of(run.spec, run.path).note.startswith("it broke")
    (run.path / file).write_bytes(content)
    found = state_of(run.spec, run.path)  # as of a suite, which knows the specification by itself
    assert found.state == "unreadable" and str(run.path / file) in found.note
    assert {one.run_id: one.state for one in states(tmp_path)} == {run.path.name: "unreadable", other.run_id: "done"}
    shown = here("status", "--results", tmp_path).stdout
    assert "1 unreadable" in shown and "1 done" in shown
