"""What tables say of chance, of papers and of gaps, on made records with per-image scores."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from made_reports import drawn, record
from made_results import open_world
from report_records import make_run

from benchmarks.report import captions
from benchmarks.report.ablations import changes
from benchmarks.report.evidence import Question, choose_baseline, evidence
from benchmarks.report.formats import csv_text
from benchmarks.report.groups import check_comparable, group_of, groups
from benchmarks.report.published import PAPERS_METHODS, comparable, published_results
from benchmarks.report.render import markdown, narrow, shown
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.table_model import Cell, Column
from benchmarks.report.tables import group_tables, tables
from benchmarks.report.writing import read_report
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.result import Counts
from benchmarks.significance import Resampling, compare
from errors import UserError
from registry import DATASETS

QUICK = Question(resamples=400)
METHODS = ("clip_zero_shot", "coop", "csp")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three methods, three seeds."""
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root, method, seed) for method in METHODS for seed in range(3)]


def by_title(found):
    return {table.title: table for table in found}


def column(table, name):
    place = [head.name for head in table.columns].index(name)
    return {row[0].text: row[place] for row in table.rows}


# Which runs may stand together


OTHER = {
    "data set": {"dataset": "other"},
    "data": {"dataset_digest": "e" * 64},
    "backbone": {"backbone": "other"},
    "weights": {"backbone_digest": "e" * 64},
    "world": {"world": "open"},
    "profile": {"profile": "official"},
    "precision": {"precision": "bf16"},
    "protocol version": {"protocol_version": 2},
    "feasibility": {"world": "open", "open_world": OpenWorld(feasibility="clip")},
    "feasibility table": {"world": "open", "open_world": OpenWorld(feasibility="glove", feasibility_digest="a" * 64)},
    "masking": {"world": "open", "open_world": OpenWorld(feasibility="clip", masking="official")},
}


@pytest.mark.parametrize("name", OTHER)
def test_one_table_of_runs_that_differ_is_refused_with_the_reason(name):
    first = record()
    if name in ("feasibility", "feasibility table", "masking"):
        first = record(world="open", open_world=OpenWorld(feasibility="clip"))
    if name == "feasibility table":
        first = record(world="open", open_world=OpenWorld(feasibility="glove", feasibility_digest="b" * 64))
    if name == "feasibility":
        first = record(world="open", open_world=OpenWorld(feasibility="shipped"))
    other = record("coop", **OTHER[name])
    for refused in (group_of, check_comparable):
        with pytest.raises(UserError, match=f"cannot stand in one table. Their {name} differs: "):
            refused([first, other])
    assert len(groups([first, other])) == 2
    shown_together = tables([first, other], QUICK)
    assert [len(table.rows) for table in shown_together if table.title == "Results"] == [1, 1]


def test_groups_never_write_over_each_other():
    found = groups([record(), record(dataset_digest="e" * 64), record(protocol_version=2), record(profile="official")])
    assert len({group.title for group in found}) == 4
    assert sum(", data dddddddd, protocol version 1" in group.title for group in found) == 1
    assert [group.title for group in groups([record()])] == ["icon_states, closed world, tiny-icons, fp32"]


def test_a_copied_run_counts_once(runs):
    copy = replace(runs[0], path=runs[0].path / "copy", status="failed", result=None, error={"message": "gone"})
    (group,) = groups([copy, *runs])
    assert len(group.runs) == len(runs)
    (main, *_) = group_tables(group, QUICK)
    assert column(main, "seeds")["CLIP zero-shot"].text == "3"
    assert any("lies in several folders" in note for note in main.notes)


# Intervals and differences


def test_intervals_and_differences_are_those_of_the_comparison(runs):
    found = by_title(tables(runs, QUICK))
    labels = {"clip_zero_shot": "CLIP zero-shot", "coop": "CoOp", "csp": "CSP"}
    own = {labels[method]: [run for run in runs if run.spec.method == method] for method in METHODS}
    wanted = compare(scored_runs(own), "CSP", ("auc", "best_hm"), tested=("auc",), resampling=Resampling(400))
    for name, statistic in (("AUC", "auc"), ("HM", "best_hm")):
        cells = column(found["Results"], name)
        for label, cell in cells.items():
            summary = wanted.methods[label].statistics[statistic]
            assert cell.value == pytest.approx(summary.value, abs=1e-12)
            if label == "CLIP zero-shot":  # nothing that seeds could change: images alone, BCa
                interval = summary.sources["images"].bca
            else:
                interval = summary.sources["seeds and images"].percentile
            assert cell.interval == (interval.low, interval.high)
            assert cell.interval[0] < cell.value < cell.interval[1]
    differences = found["Differences from CSP"]
    for label in ("CLIP zero-shot", "CoOp"):
        difference = wanted.methods[label].statistics["auc"].difference
        assert column(differences, "AUC")[label].value == pytest.approx(difference.value, abs=1e-12)
        assert column(differences, "AUC")[label].interval == (difference.interval.low, difference.interval.high)
        assert column(differences, "p")[label].value == difference.p_value
        assert column(differences, "p Holm")[label].value == difference.adjusted_p
        assert column(differences, "d_z")[label].value == difference.seeds.effect_size
        assert column(differences, "beats")[label].value == difference.seeds.improvement
        tests = wanted.methods[label].mcnemar.values()
        mean = np.mean([(test["all"].first_only + test["all"].second_only) / 96 for test in tests])
        assert column(differences, "differ")[label].value == pytest.approx(mean)
        marked = "*" if difference.adjusted_p <= 0.05 else ""
        assert column(differences, "AUC")[label].mark == column(found["Results"], "AUC")[label].mark == marked
    assert column(found["Results"], "AUC")["CSP"].mark == ""
    assert "adjusted for the 2 comparisons" in differences.caption
    assert "bootstrap of 400 resamples over seeds and test images" in found["Results"].caption


def test_one_seed_has_intervals_over_images_alone(runs):
    first = [run for run in runs if run.spec.seed == 0 and run.spec.method != "clip_zero_shot"]
    main, differences = tables(first, QUICK)[:2]
    own = {"CoOp": [first[0]], "CSP": [first[1]]}
    wanted = compare(scored_runs(own), "CSP", ("auc",), resampling=Resampling(400)).methods["CoOp"].statistics["auc"]
    interval = wanted.sources["images"].bca
    assert column(main, "AUC")["CoOp"].interval == (interval.low, interval.high)
    assert "over test images alone, because there is one run of each" in main.caption
    assert column(differences, "p")["CoOp"].value == wanted.difference.sources["images"].p_value
    assert column(differences, "d_z")["CoOp"].text == "–"


def test_a_baseline_with_one_run_is_why_no_difference_has_seeds(runs):
    some = [run for run in runs if run.spec.method == "coop" or (run.spec.method == "csp" and run.spec.seed == 0)]
    main, differences = tables(some, QUICK)[:2]
    assert "over seeds and test images (test images alone for CSP, with one run)" in main.caption
    assert "over test images alone, because CSP has one run, the same" in differences.caption


def test_what_was_not_tested_is_no_comparison():
    made = SimpleNamespace(decided_by="images", p_value=0.5)
    said = captions.tests(QUICK, {"one": made, "other": SimpleNamespace(decided_by="images", p_value=np.nan)})
    assert "adjusted for the 1 comparison of this table" in said


def test_the_baseline_is_a_choice(runs):
    assert "Differences from CoOp" in by_title(tables(runs, replace(QUICK, baseline="COOP")))
    assert "Differences from CLIP zero-shot" in by_title(tables(runs, replace(QUICK, baseline="clip zero-shot")))
    without = [run for run in runs if run.spec.method != "csp"]
    assert "Differences from CLIP zero-shot" in by_title(tables(without, QUICK)), "the first where there is no CSP"
    found = tables(without, replace(QUICK, baseline="csp"))
    assert not any(table.title.startswith("Differences") for table in found)
    assert "No differences: the baseline csp has no finished run under these conditions." in found[0].notes
    (group,) = groups([record(auc=None), record("coop")])
    assert choose_baseline(group.full, QUICK).method == "coop", "a baseline has results"


def test_a_baseline_that_is_nowhere_is_refused_and_nothing_written(runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "run")
    with pytest.raises(UserError, match=r"The baseline 'clip_zero' has no finished run here.*Did you mean"):
        read_report(tmp_path, Question("clip_zero", 100))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_no_resamples_no_intervals(runs):
    found = by_title(tables(runs, Question(resamples=0)))
    assert all(cell.interval is None for cell in column(found["Results"], "AUC").values())
    assert "Intervals" not in found["Results"].caption
    assert found["Results"].notes[0] == "No intervals: no resamples were asked for."
    assert column(found["Differences from CSP"], "AUC")["CoOp"].value < 0
    assert column(found["Differences from CSP"], "p")["CoOp"].text == "–"


def test_runs_without_arrays_or_of_other_images_are_gaps_with_reasons(runs, tmp_path):
    other = make_run(tmp_path, "dfsp", images_per_pair=5)
    old = make_run(tmp_path, "troika")
    (old.path / "scores.npz").unlink()
    found = by_title(tables([*runs, other, old], QUICK))
    notes = " ".join(found["Results"].notes)
    assert "No interval of DFSP: CLIP zero-shot, seed 0, and DFSP, seed 0, cannot be compared image by image." in notes
    assert f"No interval of Troika: The record {old.run_id}/scores.npz cannot be read." in notes
    cells = column(found["Results"], "AUC")
    assert cells["DFSP"].interval is None and cells["Troika"].interval is None and cells["CSP"].interval is not None
    (group,) = groups([*runs, old])
    titled = by_title(group_tables(group, replace(QUICK, baseline="troika")))
    assert column(titled["Differences from Troika"], "AUC")["CSP"].value is not None, "the numbers are there"
    assert column(titled["Differences from Troika"], "AUC")["CSP"].interval is None, "but nothing to resample"


# Ablations


@pytest.fixture(scope="module")
def switches(tmp_path_factory):
    """Two seeds of one switch, one seed of the other."""
    root = tmp_path_factory.mktemp("switches")
    changed = {"no_dropout": {"dropout": 0.0}, "random_init": {"init": "random"}}
    wanted = (("no_dropout", 0, 1.3), ("no_dropout", 1, 1.3), ("random_init", 0, 0.4))
    return [
        make_run(root, "csp", seed, skill=skill, ablation=name, method_config=changed[name])
        for name, seed, skill in wanted
    ]


def test_each_switch_is_compared_on_shared_seeds_and_all_switches_are_the_family(runs, switches):
    csp = [run for run in runs if run.spec.method == "csp"]
    table = by_title(tables([*csp, *switches], QUICK))["Ablations of CSP"]
    p_values, wanted = {}, {"no_dropout": csp[:2], "random_init": csp[:1]}
    for name, full in wanted.items():
        own = [run for run in switches if run.spec.ablation == name]
        found = compare(scored_runs({"full": full, name: own}), "full", ("auc", "best_hm"), resampling=Resampling(400))
        for head, statistic in (("AUC change", "auc"), ("HM change", "best_hm")):
            difference = found.methods[name].statistics[statistic].difference
            cell = column(table, head)[name]
            assert cell.value == pytest.approx(difference.value, abs=1e-12)
            assert cell.interval == (difference.interval.low, difference.interval.high)
        p_values[name] = found.methods[name].statistics["auc"].difference.p_value
        assert column(table, "p")[name].value == p_values[name]
    first, second = sorted(p_values.values())
    assert sorted(cell.value for cell in column(table, "p Holm").values() if cell.value is not None) == [
        min(1.0, 2 * first),
        max(min(1.0, 2 * first), second),
    ]
    assert "test images alone for random_init, with one run" in table.caption
    assert column(table, "AUC change")["CSP"].value is None


def test_a_switch_without_a_shared_seed_has_no_change(runs, switches):
    (full,) = groups([runs[-1]])[0].full  # seed 2
    (row,) = [row for row in groups(switches)[0].rows if row.ablation == "random_init"]
    assert changes(full, [row], QUICK).found == {}


# Published numbers


REAL = {"dataset": "mit_states", "backbone": "ViT-L-14-quickgelu/openai"}


def test_published_numbers_stand_beside_measured_ones(tmp_path):
    real = {**REAL, "test_images": 12_995}
    own = [make_run(tmp_path, method, seed, **real) for method in ("csp", "troika") for seed in (0, 1)]
    own += [make_run(tmp_path, "dfsp", 0, method_config={"fusion": "i2t"}, **real)]
    own += [make_run(tmp_path, "refiner_style", 0, **real)]
    found = by_title(tables(own, QUICK))
    table = found["Published numbers"]
    closed = [entry for entry in published_results() if (entry.dataset, entry.world) == ("mit_states", "closed")]
    assert len(table.rows) == sum(entry.backbone == "ViT-L/14" for entry in closed)
    assert column(table, "AUC paper")["CSP (ICLR 2023)"].value == pytest.approx(0.194)
    legacy = [run.result.legacy.test.auc for run in own if run.spec.method == "csp"]
    assert column(table, "AUC here")["CSP (ICLR 2023)"].value == pytest.approx(np.mean(legacy))
    assert column(table, "S here")["DFSP(i2t) (CVPR 2023)"].value is not None
    assert column(table, "S here")["DFSP(t2i) (CVPR 2023)"].text == "–"
    assert column(table, "HM paper")["MSCI (IJCAI 2025)"].value == pytest.approx(0.399)
    assert table.notes == ["No published numbers of Refiner-style."]
    assert any(source.startswith("CLIP, CoOp, DFSP(t2i): VP-CMJL Table 1") for source in table.sources)
    assert not any("No published numbers stand" in note for note in found["Results"].notes)
    assert max(map(len, drawn([table]).splitlines())) <= 80
    assert "Sources:" in markdown(table)


def test_published_numbers_follow_the_world():
    own = record(world="open", **REAL)
    (group,) = groups([replace(own, result=None)])
    entries = comparable(group)
    assert {entry.world for entry in entries} == {"open"}
    assert next(entry for entry in entries if entry.method == "CSP").numbers["auc"] == pytest.approx(0.057)


@pytest.mark.parametrize(
    ("changes", "images", "reason"),
    [
        ({}, 0, "there are none of icon_states."),
        ({"dataset": "mit_states"}, 12_995, "in the closed world are of ViT-B/32, ViT-L/14, these of tiny-icons."),
        (REAL, 40, "they are of 12,995 test images, these of 40."),
    ],
)
def test_why_there_are_no_published_numbers_is_said(changes, images, reason):
    run = record(**changes)
    run = replace(run, result=run.finished.model_copy(update={"counts": Counts(test_images=images)}))
    (main, *others) = tables([run], QUICK)
    assert any(note.startswith("No published numbers") and note.endswith(reason) for note in main.notes)
    assert "Published numbers" not in by_title(others)


def test_the_published_file_is_sound():
    entries = published_results()
    keys = [(entry.method, entry.backbone, entry.dataset, entry.world) for entry in entries]
    assert len(set(keys)) == len(keys) > 170
    assert {entry.dataset for entry in entries} <= set(DATASETS.names())
    assert {entry.world for entry in entries} == {"closed", "open"}
    assert set(PAPERS_METHODS.values()) <= {entry.method for entry in entries}
    for entry in entries:
        numbers = np.array(list(entry.numbers.values()))
        assert entry.source and np.isfinite(entry.numbers["auc"])
        assert (numbers[np.isfinite(numbers)] > 0).all() and (numbers[np.isfinite(numbers)] < 1).all()
        if np.isfinite(numbers).all():  # the area below a falling curve, and the best HM of S and U at most
            assert entry.numbers["auc"] <= entry.numbers["seen"] * entry.numbers["unseen"] + 0.001
            harmonic = 2 / (1 / entry.numbers["seen"] + 1 / entry.numbers["unseen"])
            assert entry.numbers["hm"] <= harmonic + 0.001


# Slices, cost, captions, widths


def test_slices_have_a_column_for_each_value_that_has_images(runs):
    found = by_title(tables(runs, QUICK))
    frequency = found["Slices by training images of the pair"]
    assert [head.name for head in frequency.columns[2:]] == ["0 unseen", "2-5 seen"]
    assert "Images: 0 unseen 48, 2-5 seen 48." in frequency.caption
    assert [head.name for head in found["Slices by kind"].columns[2:]] == [
        "global seen",
        "global unseen",
        "local unseen",
    ]


def test_cost_in_minutes_and_megabytes(runs):
    found = by_title(tables(runs, QUICK))["Cost"]
    assert column(found, "train min")["CSP"].value == pytest.approx((6 + 18.5 + 31) / 3 / 60)
    assert column(found, "train img/s")["CLIP zero-shot"].text == "–"
    assert column(found, "peak MB")["CSP"].value == 500
    assert found.notes == []
    elsewhere = replace(runs[0], starts=[{"environment": {"device": "cuda", "gpu": "H100"}}])
    mixed = by_title(tables([elsewhere, *runs[1:]], QUICK))["Cost"]
    assert "cuda (H100)" in mixed.caption and "do not compare" in mixed.notes[0]


def test_every_caption_says_what_it_is_of(runs, switches):
    for table in tables([*runs, *switches], QUICK):
        for part in ("toy, closed world", "backbone tiny-icons", "profile clean", "selected by val_auc", "seeds 0, 1"):
            assert part in table.caption, (table.title, part)
        if any(cell.interval for row in table.rows for cell in row):
            assert re.search(r"95 %, bootstrap of 400 resamples over seeds and test images", table.caption), table.title


def test_everything_fits_80_columns(runs, switches, tmp_path):
    world = OpenWorld(feasibility="shipped", feasibility_digest="f" * 64)
    there = [make_run(tmp_path, method, seed, world="open", open_world=world) for method in METHODS for seed in (0, 1)]
    there = [replace(run, result=run.finished.model_copy(update={"open_world": open_world(0.5)})) for run in there]
    for found in (tables([*runs, *switches], QUICK), tables(there[:-1], QUICK)):
        text = drawn(found)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
    assert "1/2" in text


def test_a_cell_in_one_line_and_in_several():
    cell = Cell(0.594, 0.004, interval=(0.568, 0.621), mark="*")
    assert shown(cell, Column("AUC")) == "59.4* ± 0.4 [56.8, 62.1]"
    assert narrow(cell, Column("AUC")) == ["59.4*", "±0.4", "56.8–62.1"]
    assert narrow(replace(cell, spread=None), Column("AUC", signed=True)) == ["+59.4*", "+56.8, +62.1"]
    p_value = Column("p", p_value=True)
    assert [shown(Cell(value), p_value) for value in (0.0002, 0.00099, 0.001, 0.0404)] == [
        "<0.001", "<0.001", "0.001", "0.040",
    ]  # fmt: skip


def test_stars_are_no_markup_in_markdown(runs):
    main, differences = tables(runs, QUICK)[:2]
    assert re.search(r"\| -\d+\.\d\\\* \[", markdown(differences))
    assert "\\*" in markdown(main)
    assert "AUC mark" in csv_text(main) and "AUC low,AUC high" in csv_text(main)


def test_the_report_makes_the_tables_of_some_runs_without_doing_it_again(runs, tmp_path):
    for run in runs:
        shutil.copytree(run.path, tmp_path / run.run_id)
    report = read_report(tmp_path, QUICK)
    every = {run.run_id for run in report.runs}
    assert report.tables_of(every) == report.tables
    assert all(one is other for one, other in zip(report.tables_of(every), report.tables, strict=True))
    some = {run.run_id for run in report.runs if run.spec.method == "coop"}
    assert [row[0].text for row in report.tables_of(some)[0].rows] == ["CoOp"]
    assert "Differences" not in " ".join(table.title for table in report.tables_of(some))


def test_evidence_of_nothing_is_nothing():
    assert evidence([], None, QUICK).comparison is None
