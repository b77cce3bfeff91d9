"""Methods across the committed backbones: the document is what the packed records say, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import make_run

from benchmarks.report.across_figure import across
from benchmarks.report.style import save
from benchmarks.studies import across_backbones
from errors import UserError

DOCUMENT = across_backbones.ROOT / "docs/across_backbones.md"


def test_the_document_is_made_of_the_packed_runs(tmp_path):
    found = across_backbones.measured()
    text = DOCUMENT.read_text(encoding="utf-8")
    inside = text.partition(across_backbones.BEGIN)[2].partition(across_backbones.END)[0]
    assert inside == f"\n\n{across_backbones.text_of(found)}\n\n"
    assert list(found[0].family.groups) == ["tiny-icons", "tiny-icons-siglip"] and found[0].agreement is not None
    (made,) = save(across(found[0]), tmp_path / "figure", (".svg",))
    assert made.read_bytes() == (DOCUMENT.parent / f"{across_backbones.FIGURE}.svg").read_bytes()


def test_runs_are_packed_without_what_nobody_needs(tmp_path):
    for backbone in ("tiny-icons", "ViT-B-32/openai"):
        make_run(tmp_path / "runs", "csp", 0, backbone=backbone)
    assert across_backbones.collect([tmp_path / "runs"], tmp_path / "to/runs.tar.xz") == 1
    assert across_backbones.measured(tmp_path / "to/runs.tar.xz") == []
    with pytest.raises(UserError, match="no finished runs of tiny-icons and tiny-icons-siglip"):
        across_backbones.collect([tmp_path / "to"])


def test_the_committed_file_is_small():
    assert Path(across_backbones.ARCHIVE).stat().st_size < 1.5e6
