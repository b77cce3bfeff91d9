"""The check of a GPU, at small sizes on the processor: it measures, compares, and says where something is wrong."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.studies import gpu_check, gpu_equality
from benchmarks.studies.gpu_equality import Problem
from benchmarks.studies.made_images import made_dataset

SMALL = ["--device", "cpu", "--backbone", "tiny-icons", "--labels", "icon_states", "--pairs", "6", "--images", "4"]


def test_everything_is_measured_and_right(tmp_path, capsys):
    page = tmp_path / "guide.md"
    page.write_text(f"before\n{gpu_check.START}\nnot measured\n{gpu_check.END}\nafter\n")
    more = ["--methods", "csp", "--precisions", "fp32", "--steps", "1", "--no-compile"]
    gpu_check.main([*SMALL, *more, "--json", str(tmp_path / "found.json"), "--update", str(page)])
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["rows"]
    assert row["method"] == "csp"
    assert min(row[name] for name in ("ms", "rate", "eval_rate", "gigabytes", "estimate")) > 0
    assert [name for name, *_ in found["checks"]] == [
        "csp: equal to the processor",
        "csp: two runs are the same",
        "csp: goes on after a kill",
    ]
    assert all(right for _, right, _ in found["checks"])
    assert not found["left_out"]
    assert "not measured" not in page.read_text()
    assert "| icon_states | csp | fp32 |" in page.read_text()
    assert "| csp: goes on after a kill | yes |" in capsys.readouterr().out


def test_what_is_wrong_or_left_out_is_said(monkeypatch, capsys):
    monkeypatch.setattr(gpu_equality, "equal", lambda problem, name: (False, "scores differ by 1e+00"))
    with pytest.raises(SystemExit) as ended:
        gpu_check.main([*SMALL, "--methods", "clip_zero_shot", "--precisions", "fp32", "--steps", "1"])
    assert ended.value.code == 1
    assert "| clip_zero_shot: equal to the processor | **no** | scores differ by 1e+00 |" in capsys.readouterr().out
    gpu_check.main([*SMALL, "--methods", "csp", "--seconds", "-1"])
    assert "Left out: csp: equality with the processor (no time); csp: two runs (no time)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        gpu_check.main([*SMALL, "--device", "quantum"])


def test_a_wrong_device_is_found_out(monkeypatch):
    """Other scores on the second of two devices are beyond the tolerance."""
    problem = Problem(made_dataset("icon_states", 4, 6), "tiny-icons", torch.device("cpu"), 2)
    assert gpu_equality.equal(problem, "csp")[0]
    original, calls = gpu_equality.computed, []

    def off(*given):
        calls.append(1)
        scores, gradients = original(*given)
        return scores * (1 if len(calls) == 1 else 1.01), gradients

    monkeypatch.setattr(gpu_equality, "computed", off)
    right, said = gpu_equality.equal(problem, "csp")
    assert not right
    assert said.startswith("scores differ by 1.0e-02")


def test_made_images_are_always_the_same():
    dataset = made_dataset("icon_states", 4, 6)
    assert len(dataset.train_pairs) == 6
    assert dataset.load_image("val", 1).tobytes() == dataset.load_image("val", 1).tobytes()
    assert dataset.load_image("val", 1).tobytes() != dataset.load_image("test", 1).tobytes()
    assert set(dataset.val_pairs) - set(dataset.train_pairs)
    assert len(made_dataset("icon_states", 4).train_pairs) == 350
