"""Methods across backbones: what belongs together, the table's numbers and gaps, W, and the report's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_reports import drawn, record
from report_records import make_run

from benchmarks.report.across import families, measure
from benchmarks.report.across_table import across_table, agreement_text, cautions
from benchmarks.report.evidence import Question
from benchmarks.report.groups import groups
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.writing import read_report, write_files
from benchmarks.runs.records import find_runs
from benchmarks.significance import compare, concordance

OTHER = {"backbone": "tiny-icons-siglip", "backbone_digest": "c" * 64}
QUESTION = Question(resamples=200)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Four methods on one backbone, DFSP not on the other, where CSP is the best; two seeds."""
    root = tmp_path_factory.mktemp("across")
    for seed in (0, 1):
        for method, skill in (("coop", 0.8), ("csp", 1.4), ("dfsp", 1.8), ("troika", 2.2)):
            make_run(root, method, seed, skill=skill)
        for method, skill in (("coop", 0.8), ("csp", 2.2), ("troika", 1.4)):
            make_run(root, method, seed, skill=skill, **OTHER)
    make_run(root, "clip_zero_shot")
    make_run(root, "clip_zero_shot", **OTHER)
    return root


def the_family(root: Path):
    (family,) = families(groups(find_runs(root)[0]))
    return family


def test_groups_that_differ_in_more_than_the_backbone_are_no_family():
    runs = [record(auc=0.2), record(auc=0.3, **OTHER)]
    (family,) = families(groups(runs))
    assert list(family.groups) == ["tiny-icons", "tiny-icons-siglip"]
    assert family.name == "icon_states, closed world, fp32"
    assert families(groups(runs[:1])) == []
    assert families(groups([runs[0], record(auc=0.3, profile="official", **OTHER)])) == []
    two = [record(auc=0.2), record(auc=0.3, backbone_digest="e" * 64)]
    assert [list(one.groups) for one in families(groups(two))] == [["tiny-icons (bbbbbbbb)", "tiny-icons (eeeeeeee)"]]


def test_the_table_is_means_intervals_and_ranks(results):
    family = the_family(results)
    found = measure(family, QUESTION)
    table = across_table(found)
    rows = {row[0].text: row for row in table.rows}
    assert [column.name for column in table.columns] == ["method", "seeds", *family.groups, "mean rank"]
    assert set(rows) == {"CLIP zero-shot", "CoOp", "CSP", "DFSP", "Troika"}
    for place, group in enumerate(family.groups.values(), start=2):
        for row in group.full:
            cell = rows[row.label][place]
            assert cell.value == pytest.approx(np.mean([run.finished.metrics.test.auc for run in row.done]))
            statistics = compare(scored_runs({row.label: row.done}), None, ("auc",)).methods[row.label].statistics
            sources = statistics["auc"].sources
            if row.trains:  # enough resamples for two digits
                wanted = sources["seeds and images"].percentile
                assert cell.interval == pytest.approx((wanted.low, wanted.high), abs=0.03)
    everywhere = ["clip_zero_shot", "coop", "csp", "troika"]
    assert family.everywhere == everywhere
    aucs = [[rows[title][place].value for title in ("CLIP zero-shot", "CoOp", "CSP", "Troika")] for place in (2, 3)]
    expected = concordance(np.array(aucs))
    assert found.agreement.now.w == expected.w and f"backbones: {expected.w:.2f} [" in table.caption
    assert rows["Troika"][2].mark == " (1)" and rows["Troika"][3].mark == " (2)" and rows["Troika"][4].value == 1.5
    assert rows["DFSP"][3].text == "–" and rows["DFSP"][2].mark == ""


def test_the_table_says_why_and_what_it_cannot_mean(results):
    table = across_table(measure(the_family(results), QUESTION))
    said = " ".join(table.notes)
    assert (
        "DFSP does not run on tiny-icons-siglip, which does not offer what it needs: image_tokens (a class token"
        in said
    )
    assert "text_tokens (tokens of all positions" in said
    assert "Two backbones: W is (1 + rho) / 2" in said
    assert "Best in most resamples: tiny-icons, Troika (" in table.caption
    assert "all 24 orders" in table.caption and "over training seeds and test images" in table.caption
    assert "backbones tiny-icons and tiny-icons-siglip, profile clean" in table.caption
    text = drawn([table])
    assert max(map(len, text.splitlines())) <= 80 and "(1)" in text


def test_the_best_of_fewer_than_half_of_the_resamples_is_not_of_most(results):
    found = measure(the_family(results), QUESTION)
    first = np.full_like(found.agreement.first, 0.2)
    first[:, 0] = 0.4
    text = agreement_text(replace(found, agreement=replace(found.agreement, first=first)))
    assert "Best in more resamples than any other: tiny-icons, CLIP zero-shot (40 %);" in text


def test_one_seed_few_methods_and_missing_scores_are_said(tmp_path):
    for method in ("coop", "csp", "troika"):
        for changes in ({}, OTHER):
            make_run(tmp_path, method, 0, **changes)
    one = measure(the_family(tmp_path), QUESTION)
    assert any("One seed: the interval of W is over test images alone" in note for note in cautions(one))
    assert one.agreement.over_images_alone
    none = measure(the_family(tmp_path), Question(resamples=0))
    assert cautions(none) == ["No W: no resamples were asked for."] and none.ranks == one.ranks
    lost = next(tmp_path.glob("csp*/scores.npz"))
    lost.unlink()
    assert cautions(measure(the_family(tmp_path), QUESTION))[0].startswith("No W: ")
    few = measure(families(groups([record(auc=0.2), record(auc=0.3, **OTHER)]))[0], QUESTION)
    assert cautions(few) == ["No ranks: 1 methods have results on all backbones, and ranks need 3."]
    assert across_table(few).rows[0][2].value == 0.2


def test_the_report_has_files_and_a_section(results):
    report = read_report(results, QUESTION)
    made = {
        path.relative_to(results).as_posix() for path in write_files(report) if "across-backbones" in path.as_posix()
    }
    names = {f"across-backbones.{ending}" for ending in ("md", "tex", "csv")} | {"auc.svg", "auc.pdf", "auc.png"}
    assert made == {f"report/across-backbones/{name}" for name in names}
    assert not report.failures.found
    page = (results / "report.html").read_text()
    assert '<section id="across-backbones">' in page and "AUC across backbones" in page
    report.write()
    assert "## Across backbones" in report.path.read_text()
    csv = (results / "report/across-backbones/across-backbones.csv").read_text()
    assert csv.startswith("method,seeds,tiny-icons,tiny-icons sd,tiny-icons low,tiny-icons high,tiny-icons mark,")
    runs = {run.run_id for run in report.runs if run.spec.backbone == "tiny-icons"}
    assert not any(table.title == "Across backbones" for table in report.tables_of(runs))
    assert any(table.title == "Across backbones" for table in report.tables_of({run.run_id for run in report.runs}))
