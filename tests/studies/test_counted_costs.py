"""The table of counted costs: every number where its column says, and no line for what was not counted."""

import pytest

from benchmarks.cost.record import Estimate, Flops, Labels, Profile, Row, Settings
from benchmarks.studies.counted_costs import HEADS, table
from errors import UserError


def row(method: str, step: int, scoring: float = 2e9, text: int = 3 * 10**9) -> Row:
    flops = Flops(
        train_step=step, train_parts={}, eval_batch=0, eval_parts={}, prepare=text, train_image=step / 16,
        eval_image=scoring, train_epoch=step * 1e4,
    )  # fmt: skip
    estimate = Estimate(weights=0, training=12_340_000_000, evaluation=0)
    return Row(method=method, batch=16, preset_batch=16, epochs=1, parameters=2304, flops=flops, estimate=estimate)


def profile(candidates: int, *rows: Row) -> Profile:
    return Profile(
        settings=Settings(methods=tuple(one.method for one in rows), backbone="ViT-L-14", labels="ut_zappos"),
        labels=Labels(states=16, objects=12, train_pairs=83, candidates=candidates, train_images=22998),
        environment={},
        backbone=row("backbone", 16 * 10**11),
        rows=rows,
    )


def test_numbers_stand_under_their_heads():
    closed = profile(101, row("csp", 24 * 10**11), row("clip_zero_shot", 0))
    opened = profile(192, row("csp", 0, 5e9, 7 * 10**9), row("clip_zero_shot", 0))
    title, _, heads, _, csp, nothing_trained, backbone = table(closed, opened).splitlines()
    assert title == (
        "**ut_zappos**: 83 training pairs, 101 candidates in the closed and 192 in the open world, "
        "22,998 training images"
    )
    assert heads == f"| {' | '.join(HEADS)} |"
    assert csp == "| csp | 2,304 | 150 | 1.50 | 2.0 | 5.0 | 3.0 | 7.0 | 12.34 | 24.00 |"
    assert nothing_trained == "| clip_zero_shot | 2,304 | – | – | 2.0 | 2.0 | 3.0 | 3.0 | – | – |"
    assert backbone.startswith("| backbone | 2,304 | 100 | 1.00 |")
    assert "| csp | 2,304 | 150 | 1.50 | 2.0 |  | 3.0 |  | 12.34 | 24.00 |" in table(closed, None)


def test_what_was_not_counted_is_refused_with_its_reason():
    failed = Row(method="csp", batch=16, preset_batch=0, epochs=0, error="Not counted: no such shape")
    with pytest.raises(UserError, match="no such shape"):
        table(profile(101, failed), None)
