"""The figure of AUC and U against the share of seen pairs: which runs belong together, its numbers, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from in_process import here
from toy_world import make_toy

from benchmarks.report.evidence import Question
from benchmarks.report.groups import groups
from benchmarks.report.scaling import caption, families, measure
from benchmarks.report.scaling_table import scaling_tables
from benchmarks.runs.records import find_runs

PLUGIN = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from toy_world import make_toy
from registry import DATASETS


@DATASETS.register("toy", title="toy icons")
def load():
    return make_toy(Path({folder!r}), train_images=2)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    plugin = folder / "toy_plugin.py"
    make_toy(folder / "toy", train_images=2)
    plugin.write_text(PLUGIN.format(tests=str(Path(__file__).parents[1]), folder=str(folder / "toy")))
    for dataset in ("toy", "toy@seen=0.5"):
        here("run", "--plugin", plugin, "--dataset", dataset, "--methods", "csp", "clip_zero_shot", "--epochs", 1,
             "--results", folder / "results", "--no-feature-cache")  # fmt: skip
    return folder / "results"


def test_a_family_has_a_point_for_each_share(results):
    found = groups(find_runs(results)[0])
    (family,) = families(found)
    assert list(family.groups) == [0.5, 0.75] and family.name.startswith("toy, closed world")
    measured = measure(family, Question(resamples=100))
    for statistic in ("auc", "best_unseen"):
        drawn = measured.lines[statistic]
        assert len(drawn) == 2
        for points in drawn.values():
            assert [point.share for point in points] == [0.5, 0.75]
            for point in points:
                runs = family.groups[point.share].runs
                assert any(np.isclose(point.value, run.finished.metrics.test.get(statistic)) for run in runs)
                assert point.low <= point.value <= point.high
    assert "(0.5, 0.75)" in caption(family)
    assert families(found[:1]) == []


def test_the_report_draws_it(results, svg_alone):
    here("report", "--results", results, "--resamples", 100)
    assert (results / "report/scaling.svg").stat().st_size > 1000
    assert "Share of seen pairs" in (results / "report.html").read_text()
    text = (results / "report.md").read_text()
    assert "## Share of seen pairs: AUC" in text and "## Share of seen pairs: U" in text


def test_the_table_says_what_the_largest_share_adds(results):
    (family,) = families(groups(find_runs(results)[0]))
    auc, unseen = scaling_tables(measure(family, Question(resamples=100)))
    assert [column.name for column in unseen.columns] == ["method", "seeds", "0.5", "0.75", "gain"]
    for row in (*auc.rows, *unseen.rows):
        _, seeds, less, more, gain = row
        assert seeds.text == "1" and less.interval is not None and gain.interval is None  # one seed has no spread
        assert gain.value == pytest.approx(more.value - less.value)
