"""AUC against cost: what was reached within a budget against a plain loop, and what is counted."""

import numpy as np
import pytest
from made_reports import record

from benchmarks.cost.record import Flops
from benchmarks.report import style
from benchmarks.report.groups import Row
from benchmarks.runs import files
from benchmarks.studies.reference import spending


def row(method, *runs):
    """A row whose runs have these (AUC, seconds) by epoch."""
    made = []
    for seed, epochs in enumerate(runs):
        run = record(method, seed=seed, training={"epochs": len(epochs)})
        own = [{"epoch": place, "val": {"auc": auc}, "train_seconds": s} for place, (auc, s) in enumerate(epochs)]
        made.append(run.__class__(**{**vars(run), "epochs": own}))
    return Row(method, made)


ROWS = [
    row("csp", [(0.3, 1), (0.5, 1), (0.4, 1)], [(0.2, 1), (0.3, 3), (0.6, 1)]),
    row("msci", [(0.6, 10), (0.7, 10)], [(0.5, 12), (0.4, 12)]),
]
FLOPS = {"csp": 1e12, "msci": 5e12}


def test_what_was_reached_within_a_budget():
    fast, slow = spending.spent_of(ROWS, FLOPS)
    assert fast.seconds.tolist() == [1, 3, 4] and slow.flops.tolist() == [5e12, 1e13]
    for one, own in zip((fast, slow), ROWS, strict=True):
        for budget in (0.5, 1, 3, 3.5, 22, 100):
            done = [place for place, spent in enumerate(one.seconds) if spent <= budget]
            plain = [max(e["val"]["auc"] for e in run.epochs[: done[-1] + 1]) for run in own.runs] if done else []
            assert one.within("seconds", budget) == plain
    assert spending.budgets([fast, slow], "seconds") == pytest.approx([4, np.sqrt(4 * 22), 22])
    assert spending.budgets([fast, slow], "flops") == pytest.approx([3e12, np.sqrt(3e25), 1e13])
    table = spending.spending_table([fast, slow], "")
    assert [column.name for column in table.columns[3:]] == ["4 s", "9 s", "22 s", "3 TFLOP", "5.48 TFLOP", "10 TFLOP"]
    first, second = table.rows
    assert first[3].value == pytest.approx(0.55) and second[3].text == "–" and second[5].value == pytest.approx(0.6)
    assert first[1].value == pytest.approx(4 / 3) and second[2].value == 5000


def test_the_figure_has_two_panels_and_level_lines():
    found = spending.spent_of(ROWS, FLOPS)
    looks = style.styles([*ROWS, Row("clip_zero_shot", [record("clip_zero_shot", training={"epochs": 0})])])
    figure = spending.figure(found, {"clip_zero_shot": 0.1}, looks)
    assert len(figure.axes) == 2 and [len(axes.lines) for axes in figure.axes] == [3, 3]
    style.pyplot().close(figure)


def test_flops_are_counted_once_and_kept(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(spending, "epoch_flops", lambda method, features_kept: counted.append(method) or 7.0)
    files.write_json(tmp_path / spending.COUNTED, {"csp": 3.0})
    assert spending.counted(tmp_path, ROWS) == {"csp": 3.0, "msci": 7.0} == spending.counted(tmp_path, ROWS)
    assert counted == ["msci"]


def test_kept_features_take_the_image_tower_out_of_a_step():
    about = {"eval_batch": 1, "eval_parts": {}, "prepare": 0, "train_image": 0.0, "eval_image": 0.0, "train_epoch": 0.0}
    flops = Flops(train_step=640, train_parts={"vision": 400, "text": 240}, **about)
    assert [spending._of_epoch(flops, 64, 128, kept) for kept in (False, True)] == [1280, 480]
