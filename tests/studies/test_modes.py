"""The study of bf16 and torch.compile: ratios round by round, a mode that fails, the table in its document."""

from __future__ import annotations

import pytest

from benchmarks.studies import modes
from errors import UserError


@pytest.fixture
def measured(monkeypatch):
    """Steps of 2 s in fp32, of 1, 2 and 4 s in bf16; no compiler."""
    jobs = []

    def alternately(work, rounds, warmup):
        (_, mode), (_, plain) = work
        jobs.append((mode, plain))
        if mode["compiled"]:
            raise UserError("A measurement ended early.", "It said: no compiler", "Measure the other targets alone.")
        return [[{"step": seconds} for seconds in (1.0, 2.0, 4.0)], [{"step": 2.0}] * 3]

    monkeypatch.setattr(modes, "alternately", alternately)
    return jobs


def test_the_table_has_a_ratio_for_each_mode_and_the_reason_where_there_is_none(measured, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{modes.BEGIN}\n{modes.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["modes", "--methods", "clip_zero_shot", "csp", "--update", str(page)])
    modes.main()
    text = page.read_text()
    assert "| csp | 2 | 1.00 (0.50 to 2.00) | – | – |" in text
    assert "csp, fp32, compiled: It said: no compiler" in text and "clip_zero_shot" not in text
    assert text.startswith("before\n") and text.endswith("after\n")
    assert {(mode["precision"], mode["compiled"]) for mode, _ in measured} == {
        ("bf16", False),
        ("fp32", True),
        ("bf16", True),
    }
    assert all(plain["precision"] == "fp32" and not plain["compiled"] for _, plain in measured)


def test_every_method_is_measured_unless_some_are_named():
    assert {"csp", "msci", "caila"} <= set(modes.parsed([]).methods)
    assert modes.parsed(["--quick"]).backbone == "tiny-icons"
