"""Which epoch counts where validation lacks a group of images, or a value is not finite."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from toy_groups import with_images
from toy_runs import CPU, make_backbone, make_trainer, numbers, without_times

from benchmarks.evaluation.breakdowns import calibration, error_kinds, macro_accuracies, slice_accuracies
from benchmarks.evaluation.empty_groups import Sizes
from benchmarks.evaluation.metrics import ImageScores, Labels, evaluate
from benchmarks.evaluation.selection import LOSSES, SELECTIONS, VAL_SEEN, Rule, counts_more
from benchmarks.runs import checkpoints, files
from benchmarks.training.batches import PhaseBatches
from benchmarks.training.loop import Trainer

POLICIES = tuple(SELECTIONS)


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.mark.parametrize(
    ("sizes", "used"),
    [
        (Sizes(3, 2), dict(zip(POLICIES, POLICIES, strict=True))),
        (Sizes(1, 1), dict(zip(POLICIES, POLICIES, strict=True))),
        (Sizes(3, 0), dict.fromkeys(("val_auc", "val_hm", "val_unseen"), VAL_SEEN) | {name: name for name in LOSSES}),
        (
            Sizes(0, 2),
            dict.fromkeys(("val_auc", "val_hm", "val_unseen"), "val_unseen") | {name: name for name in LOSSES},
        ),
        (Sizes(0, 0), dict.fromkeys(POLICIES, "last")),
    ],
)
@pytest.mark.parametrize("wanted", POLICIES)
def test_the_rule_is_what_validation_defines(wanted: str, sizes: Sizes, used: dict[str, str]) -> None:
    rule = Rule.of(wanted, sizes)
    assert rule.used == used.get(wanted, "last")
    assert bool(rule.reason) == (rule.used != wanted)
    assert rule.recorded(0.5) == (
        {} if rule.used == wanted else {"chosen_by": rule.used, "reason": sizes.lacks("validation")}
    )


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([0.1, 0.3, 0.3, 0.2], 1),  # the largest, the earliest on ties
        ([math.nan] * 4, 3),
        ([-math.inf, -math.inf, -math.inf], 2),
        ([math.nan, 0.2, math.nan, 0.1], 1),
        ([0.2, math.nan, math.inf], 0),
        ([0.0, 0.0], 0),
    ],
)
def test_a_value_that_is_not_finite_never_keeps_an_epoch(values: list[float], chosen: int) -> None:
    best_epoch, best = -1, -math.inf
    rule = Rule("val_loss", "val_loss")
    for epoch, value in enumerate(values):
        worth = rule.value(None, -value, epoch)  # type: ignore[arg-type]
        if best_epoch < 0 or counts_more(worth, best):
            best_epoch, best = epoch, worth
    assert best_epoch == chosen
    assert ("not finite" in rule.recorded(best).get("reason", "")) == (not math.isfinite(best))


def scores_of(seen: int, unseen: int) -> tuple[ImageScores, Labels]:
    matrix = np.random.default_rng(0).normal(size=(seen + unseen, 4)).astype(np.float32)
    columns = np.array([0] * seen + [2] * unseen, dtype=np.int64)
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    labels = Labels(pairs[:, 0], pairs[:, 1], *pairs[columns].T)
    return ImageScores.from_matrix(matrix, np.array([True, True, False, False]), columns), labels


@pytest.mark.parametrize(("seen", "unseen"), [(3, 2), (3, 0), (0, 2), (0, 0), (1, 1)])
@pytest.mark.parametrize("bias", [None, 0.25, math.nan])
def test_every_nan_has_its_reason(seen: int, unseen: int, bias: float | None) -> None:
    scores, labels = scores_of(seen, unseen)
    metrics = evaluate(scores, labels, bias=bias, no_bias="validation has no unseen images")
    found = {name: getattr(metrics, name) for name in ("auc", "best_hm", "best_seen", "best_unseen", "gate")}
    assert {name for name, value in found.items() if math.isnan(value)} == set(found) & set(metrics.undefined)
    if bias is not None and math.isnan(bias):
        assert math.isnan(metrics.at_bias.hm) and math.isnan(metrics.at_bias.pair)
        reasons = {reason for name, reason in metrics.undefined.items() if name.startswith("at_bias.")}
        assert reasons == {"no bias was chosen, because validation has no unseen images"}
    written = files.with_finite_numbers({"undefined": dict(metrics.undefined), "auc": metrics.auc})
    assert ("not_finite" in written) == math.isnan(metrics.auc)


@pytest.mark.parametrize(("seen", "unseen"), [(3, 2), (3, 0), (0, 2), (0, 0)])
@pytest.mark.filterwarnings("error")
def test_nothing_is_broken_down_at_a_bias_that_was_not_chosen(seen: int, unseen: int) -> None:
    scores, labels = scores_of(seen, unseen)
    tags = {"kind": np.array(["a", "b", "a", "b", "a"][: len(scores)])}
    for row in slice_accuracies(scores, labels, tags, bias=math.nan):
        assert math.isnan(row.pair)
        assert math.isnan(row.own_pair) == (row.images == 0)
    assert math.isnan(error_kinds(scores, labels, bias=math.nan).right)
    assert math.isnan(macro_accuracies(scores, labels, bias=math.nan).hm)
    assert math.isnan(calibration(scores, bias=math.nan).error)


def values_of(trainer: Trainer) -> list[float]:
    return [record["val"]["best_seen"] for record in trainer.folder.epochs()]


def test_a_run_without_unseen_validation_images_goes_on_as_if_unbroken(tmp_path, toy, backbone):
    lacking = with_images(toy, val="seen")
    whole = make_trainer(tmp_path / "whole", lacking, backbone)
    result = whole.run()
    selection, values = result.selection, values_of(whole)
    assert selection.chosen_by == VAL_SEEN
    assert selection.no_bias == selection.reason == "validation has no unseen images"
    assert selection.epoch == values.index(max(values))
    assert selection.value == max(values)

    class Killed(BaseException):
        pass

    def report(what: str, done: int, total: int, note: str) -> None:
        if what == "training" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(tmp_path / "again", lacking, backbone, report=report).run()
    again = make_trainer(tmp_path / "again", lacking, backbone)
    assert numbers(again.run()) == numbers(result)
    assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
    for name in (checkpoints.BEST, "scores.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("val", "selection", "by"),
    [("nothing", "val_auc", "last"), ("nothing", "val_loss", "last"), ("unseen", "val_hm", "val_unseen")],
)
def test_what_is_there_chooses(tmp_path, toy, backbone, val, selection, by):
    trainer = make_trainer(tmp_path / "run", with_images(toy, val=val), backbone, epochs=2, selection=selection)
    result = trainer.run()
    assert result.selection.chosen_by == by
    trainer.folder.finish(result)
    record = trainer.folder.read()
    assert math.isnan(record.finished.selection.bias)
    assert not math.isnan(record.finished.metrics.test.auc)
    if by == "last":
        assert result.selection.epoch == 1


def test_a_validation_loss_that_is_never_finite_keeps_the_last_epoch(tmp_path, toy, backbone, monkeypatch):
    monkeypatch.setattr(Trainer, "validation_loss", torch.no_grad()(lambda self: math.inf))
    result = make_trainer(tmp_path / "run", toy, backbone, selection="val_loss").run()
    assert result.selection.epoch == 2
    assert result.selection.chosen_by == "last"
    assert result.selection.reason == "the validation loss was not finite in any epoch"


def test_ordinary_runs_say_nothing_of_it(tmp_path, toy, backbone):
    result = make_trainer(tmp_path / "run", toy, backbone, epochs=1).run()
    assert set(result.content()["selection"]) == {"policy", "epoch", "value", "bias"}


@pytest.mark.parametrize(("size", "last", "batches"), [(5, 4, 5), (9, 6, 3), (None, 8, 2), (24, 24, 1), (100, 24, 1)])
def test_the_loss_of_the_last_batch(tmp_path, toy, backbone, size, last, batches):
    """The mean over its images, one by one, divided by the number of batches; how images are cut here is no matter."""
    settings = {"selection": "last_batch_loss", "selection_batch": size, "batch_size": 16}
    trainer = make_trainer(tmp_path / "run", toy, backbone, **settings)
    method, candidates = trainer.method.eval(), toy.candidates("val")
    images = PhaseBatches(method, toy, "val", candidates, dataclasses.replace(CPU, eval_batch=1))
    assert len(images) == 24
    prepared = method.prepare(candidates)
    losses = [float(method.validation_losses(method.encode(one), prepared).total) for one in images.ordered()]
    assert trainer.validation_loss() == pytest.approx(np.mean(losses[-last:]) / batches, rel=1e-5)
    if size is None:
        epochs = make_trainer(tmp_path / "whole", toy, backbone, epochs=3, **settings)
        result = epochs.run()
        found = [record["val"]["loss"] for record in epochs.folder.epochs()]
        assert result.selection.epoch == int(np.argmin(found)) and result.selection.policy == "last_batch_loss"
