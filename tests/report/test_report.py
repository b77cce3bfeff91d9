"""Tables from records: what may stand together, means and spreads, gaps, and how it looks at 80 columns."""

from __future__ import annotations

import json

import pytest
from made_reports import drawn, record

from benchmarks.report.render import markdown
from benchmarks.report.tables import tables
from benchmarks.report.writing import read_report
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.records import RunFolder, RunRecord


def test_mean_and_spread_over_seeds():
    found = tables([record(seed=seed, auc=auc) for seed, auc in enumerate((0.20, 0.30))])
    cell = found[0].rows[0][2]
    assert cell.value == pytest.approx(0.25)
    assert cell.spread == pytest.approx(0.0707107, abs=1e-6)
    assert "| CSP | 2 | 25.0 ± 7.1 |" in markdown(found[0])
    assert "seeds 0, 1; ± is the standard deviation over seeds" in found[0].caption


def test_one_seed_shows_no_spread():
    found = tables([record()])
    assert "±" not in markdown(found[0]).replace(found[0].caption, "")
    assert "one seed, so no spread is shown" in found[0].caption


@pytest.mark.parametrize(
    "difference",
    [
        {"profile": "official"},
        {"world": "open"},
        {"precision": "bf16"},
        {"protocol_version": 2},
        {"schema_version": 1, "profile": "official", "world": "open"},
        {"world": "open", "open_world": OpenWorld(feasibility="clip")},
    ],
)
def test_what_is_not_comparable_never_shares_a_table(difference):
    found = [table for table in tables([record(), record(**difference)]) if table.title == "Results"]
    assert len(found) == 2
    assert all(len(table.rows) == 1 for table in found)


def test_settings_that_differ_are_rows_of_their_own_and_named():
    runs = [record(), record(training={"lr": 1e-3}), record(method_config={"dropout": 0.0})]
    labels = [row[0].text for row in tables(runs)[0].rows]
    assert len(set(labels)) == 3
    assert all("lr=" in label and "dropout=" in label for label in labels)


def open_record(**changes) -> RunRecord:
    world = OpenWorld(**{"feasibility": "shipped", "feasibility_digest": "f" * 64, **changes})
    return record(world="open", open_world=world)


def test_an_open_world_says_what_removes_pairs_and_shows_the_cap():
    (found, *_) = tables([open_record()])
    assert [column.name for column in found.columns][5:7] == ["U", "cap"]
    assert "| 50.0 | 46 |" in markdown(found)
    assert "feasibility: shipped, threshold searched, masking clean, epoch chosen in the open world" in found.caption
    assert "most that U can be" in found.caption
    assert max(map(len, drawn([found]).splitlines())) <= 80
    (kept_all, *_) = tables([record(world="open")])
    assert "| 50.0 | 100 |" in markdown(kept_all)
    assert "feasibility" not in kept_all.caption
    assert "cap" not in [column.name for column in tables([record()])[0].columns]


def test_open_worlds_share_a_table_where_only_the_threshold_differs():
    (found, *_) = tables([open_record(), open_record(threshold=0.4)])
    assert {row[0].text for row in found.rows} == {"CSP (threshold=search)", "CSP (threshold=0.4)"}
    assert "threshold 0.4, searched" in found.caption
    for change in ({"masking": "official"}, {"feasibility_digest": "e" * 64}, {"feasibility": "glove"}):
        assert len([t for t in tables([open_record(), open_record(**change)]) if t.title == "Results"]) == 2


def test_the_best_of_a_column_is_marked():
    found = tables([record(auc=0.2), record("clip_zero_shot", auc=0.1)])[0]
    marks = {row[0].text: row[2].best for row in found.rows}
    assert marks == {"CSP": True, "CLIP zero-shot": False}
    assert "**20.0**" in markdown(found)


def test_gaps_are_shown_as_gaps():
    found = tables([record(), record(seed=1, auc=None)])[0]
    assert found.rows[0][1].text == "1/2"
    assert "The loss became nan." in found.notes[0]
    alone = tables([record(auc=None)])[0]
    assert alone.rows[0][2].text == "–"


def test_the_terminal_table_fits_80_columns():
    text = drawn(tables([record(seed=seed, auc=0.2 + seed / 100) for seed in range(3)]))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "±1.0" in text


def test_report_of_a_folder(tmp_path):
    spec = record().spec
    folder = RunFolder(tmp_path / spec.run_id)
    folder.start(spec, provenance={}, command_line=[], environment={"device": "cpu"})
    folder.finish(record().result)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/spec.json").write_text("{")
    report = read_report(tmp_path)
    report.write()
    assert [run.run_id for run in report.runs] == [spec.run_id]
    assert len(report.problems) == 1
    page = report.path.read_text()
    for part in ("# Report", "## Results", "## Slices by kind", "## Cost", "## Records that could not be read"):
        assert part in page
    assert json.loads((tmp_path / spec.run_id / "result.json").read_text())["metrics"]["test"]["auc"] == 0.25
    assert [table.title for table in report.tables] == ["Results", "Slices by kind", "Cost"]
