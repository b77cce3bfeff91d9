"""Convergence: what curves over epochs say, against plain loops; who is unfinished, and that the table says so."""

import statistics

import numpy as np
import pytest
from made_reports import record
from scipy.stats import t as student

from benchmarks.report import convergence, style
from benchmarks.report.groups import Row, group_of
from benchmarks.report.render import markdown


def trained(values, seed=0, method="csp", **changes):
    """A record with these validation AUCs by epoch, ten seconds each."""
    epochs = [{"epoch": place, "val": {"auc": auc}, "train_seconds": 10.0} for place, auc in enumerate(values)]
    run = record(method, seed=seed, training={"epochs": len(values)}, **changes)
    return run.__class__(**{**vars(run), "epochs": epochs})


def row(*curves, method="csp"):
    return Row(method, [trained(values, seed, method) for seed, values in enumerate(curves)])


def test_curves_are_what_a_plain_loop_finds():
    draw = np.random.default_rng(0)
    values = draw.random((5, 10)).tolist()
    found = convergence.curves_of(row(*values))
    assert found.seeds == (0, 1, 2, 3, 4) and found.epochs == 10
    gains = []
    for own, best, far, seconds in zip(values, found.best, found.best_so_far, found.seconds, strict=True):
        assert best == own.index(max(own)) + 1
        assert list(far) == [max(own[: end + 1]) for end in range(10)]
        assert list(seconds) == [10.0 * (end + 1) for end in range(10)]
        gains.append(max(own[7:]) - max(own[:7]))
    assert found.gains.tolist() == pytest.approx(gains)
    half = student.ppf(0.975, 4) * statistics.stdev(gains) / 5**0.5
    gain = convergence.convergence_table([row(*values)]).rows[0][5]
    assert gain.interval == pytest.approx((statistics.fmean(gains) - half, statistics.fmean(gains) + half))
    assert found.at_last == sum(own.index(max(own)) == 9 for own in values)


def test_the_earliest_of_equal_epochs_is_the_best():
    found = convergence.curves_of(row([0.5, 0.6, 0.6]))
    assert found.best.tolist() == [2] and found.at_last == 0


@pytest.mark.parametrize(
    ("curves", "unfinished"),
    [
        ([[0.1, 0.2, 0.3]] * 2, True),
        ([[0.1, 0.3, 0.2], [0.1, 0.2, 0.3]], True),  # half of the seeds
        ([[0.1, 0.3, 0.2], [0.1, 0.3, 0.2], [0.1, 0.2, 0.3]], False),  # a third, and on the mean no gain
        ([[0.1] * 7 + [0.2, 0.3, 0.25], [0.1] * 7 + [0.2, 0.31, 0.25]], True),  # rising, best before last
        ([[0.1] * 7 + [0.102, 0.103, 0.1]] * 2, False),  # by less than half a point
        ([[0.3, 0.2, 0.1]], False),
        ([[0.1, 0.2]], True),
    ],
)
def test_who_is_unfinished(curves, unfinished):
    found = convergence.curves_of(row(*curves))
    assert found.is_unfinished is unfinished
    table = convergence.convergence_table([row(*curves)])
    assert table.rows[0][-1].text == ("unfinished" if unfinished else "finished")
    assert table.rows[0][-2].text == f"{found.at_last}/{len(curves)}"


def test_the_table_leaves_out_what_was_not_trained_and_what_lacks_epochs():
    zero = record("clip_zero_shot", training={"epochs": 0})
    torn = trained([0.1, 0.2])
    torn = torn.__class__(**{**vars(torn), "epochs": torn.epochs[:1]})
    undefined = trained([0.1, float("nan")])
    assert convergence.convergence_table([Row("zero", [zero]), Row("torn", [torn]), Row("none", [undefined])]) is None
    table = convergence.convergence_table([Row("zero", [zero]), row([0.1, 0.3, 0.2], [0.2, 0.4, 0.3])])
    (line,) = table.rows
    assert [cell.text for cell in line[:4]] == ["csp", "2", "3", "2, 2"]
    assert line[5].value == pytest.approx(-0.1) and "| -10.0 |" in markdown(table)  # equal gains have no interval


def test_the_figure_has_a_line_for_each_method():
    group = group_of([trained([0.1, 0.3, 0.2], seed, method) for method in ("csp", "dfsp") for seed in (0, 1)])
    found = [convergence.curves_of(one) for one in group.full]
    figure = convergence.convergence(found, style.styles(group.full))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [one.label for one in found] and len(figure.axes) == 2
    style.pyplot().close(figure)
