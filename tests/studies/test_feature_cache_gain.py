"""The script that measures the feature cache, on the toy data set."""

from __future__ import annotations

import argparse

import torch

from benchmarks.runs import files
from benchmarks.studies import feature_cache_gain as feature_cache
from benchmarks.studies.feature_cache_gain import BEGIN, END, Training, compare, row

OPTIONS = argparse.Namespace(epochs=2, device="cpu", workers=0, backbone="tiny-icons")


def test_with_and_without_the_cache_the_same_is_trained(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))
    cached, without = compare("csp", toy, OPTIONS, tmp_path)
    assert len(cached.epochs) == len(without.epochs) == 2 and min(*cached.epochs, *without.epochs) > 0
    assert cached.filling > 0 and (tmp_path / "home/features").is_dir()
    torch.testing.assert_close(cached.trained["table.weight"], without.trained["table.weight"], atol=1e-5, rtol=0)
    assert abs(cached.auc - without.auc) < 1e-6


def test_the_table_and_where_it_is_put(tmp_path):
    cached = Training(9.0, (1.0, 1.0), {"a": torch.tensor([1.0, 2.0])}, 0.5)
    without = Training(0.0, (4.0, 2.0), {"a": torch.tensor([1.0, 2.5])}, 0.75)
    line = row("CSP", cached, without)
    assert line == "| CSP | 3.0 | 1.0 | 3.0 | 9.0 | 0.5 of 2 | 0.25 |"
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    for _ in range(2):
        files.put_between(page, BEGIN, END, f"\nhead\n{line}\n")
    assert page.read_text() == f"before\n\n{BEGIN}\n\nhead\n{line}\n\n{END}\n\nafter\n"


def test_main_measures_each_method_in_a_cache_of_its_own(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CZSL_HOME", str(tmp_path))
    asked = []
    one = Training(1.0, (1.0,), {"a": torch.ones(1)}, 0.5)
    monkeypatch.setattr(feature_cache, "compare", lambda method, *_: asked.append(method) or [one, one])
    monkeypatch.setattr(feature_cache.Workbench, "dataset", lambda *_: toy)
    monkeypatch.setattr("sys.argv", ["feature_cache"])
    feature_cache.main()
    assert asked == ["csp", "dfsp"]
    assert "| DFSP | 1.0 | 1.0 | 1.0 | 1.0 | 0 of 1 | 0 |" in capsys.readouterr().out
