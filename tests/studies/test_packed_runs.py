"""Runs that are committed as one packed file: each document is what its records say, byte for byte."""

from __future__ import annotations

import pytest
from report_records import make_run

from benchmarks.report.style import save
from benchmarks.studies import across_backbones, scaling
from benchmarks.studies.packed_runs import END, ROOT
from errors import UserError

STUDIES = {"docs/across_backbones.md": across_backbones, "docs/scaling.md": scaling}


@pytest.mark.parametrize("document", STUDIES)
def test_the_document_is_made_of_the_packed_runs(document, tmp_path):
    study, path = STUDIES[document], ROOT / document
    text, figure = study.made(study.RUNS.archive)
    inside = path.read_text(encoding="utf-8").partition(study.RUNS.begin)[2].partition(END)[0]
    assert inside == f"\n\n{text}\n\n"
    assert figure is not None
    (made,) = save(figure, tmp_path / "figure", (".svg",))
    assert made.read_bytes() == (path.parent / f"{study.RUNS.figure}.svg").read_bytes()


def test_both_committed_backbones_are_compared():
    (found,) = across_backbones.measured()
    assert list(found.family.groups) == ["tiny-icons", "tiny-icons-siglip"] and found.agreement is not None


def test_five_shares_of_four_methods_are_compared():
    (found,) = scaling.measured()
    assert len(found.family.groups) == 5
    assert {len(points) for points in found.lines["auc"].values()} == {5} and len(found.lines["auc"]) == 4


@pytest.mark.parametrize("study", STUDIES.values())
def test_runs_are_packed_without_what_nobody_needs(study, tmp_path):
    make_run(tmp_path / "runs", "csp", 0, dataset="icon_states")
    make_run(tmp_path / "runs", "csp", 0, dataset="mit_states", world="open", backbone="ViT-B-32/openai")
    packed = tmp_path / "to/runs.tar.xz"
    assert study.RUNS.collect([tmp_path / "runs"], packed) == 1
    assert study.measured(packed) == []
    with pytest.raises(UserError, match="no finished runs of"):
        study.RUNS.collect([tmp_path / "to"], packed)


@pytest.mark.parametrize("study", STUDIES.values())
def test_the_committed_file_is_small(study):
    assert study.RUNS.archive.stat().st_size < 3e6
