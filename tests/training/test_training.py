"""The training loop: exact resume, accumulation, selection, cached features, NaN, and records that say it all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from toy_runs import CPU, Killed, make_backbone, make_trainer, numbers, without_times

from benchmarks.evaluation.metrics import ImageScores, Labels, evaluate
from benchmarks.runs import checkpoints
from errors import UserError
from methods.backbone.clip import Backbone
from methods.base import Losses
from methods.clip_zero_shot import CLIPZeroShot
from methods.csp import CSP, CSPConfig
from methods.troika import Troika, TroikaConfig


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def test_a_run_killed_anywhere_ends_bit_identical(tmp_path, toy, backbone):
    whole = make_trainer(tmp_path / "whole", toy, backbone, epochs=2, scheduler="step", step_size=1)
    expected = numbers(whole.run())
    calls = 2 * (3 + 1) + 3  # two epochs of three batches and a closing word each, then the evaluation
    for point in range(calls):
        folder, seen = tmp_path / f"killed-{point}", 0

        def report(what: str, done: int, total: int, note: str, point: int = point) -> None:
            nonlocal seen
            if seen == point:
                raise Killed
            seen += 1

        with pytest.raises(Killed):
            make_trainer(folder, toy, backbone, epochs=2, scheduler="step", step_size=1, report=report).run()
        again = make_trainer(folder, toy, backbone, epochs=2, scheduler="step", step_size=1)
        assert numbers(again.run()) == expected, f"killed at report {point}"
        assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
        for name in (checkpoints.BEST, "scores.npz"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path, toy, backbone):
    first = make_trainer(tmp_path / "a", toy, backbone)
    first.run()
    torch.manual_seed(12345)  # what the global generator did before must not matter
    second = make_trainer(tmp_path / "b", toy, backbone)
    second.run()
    assert (tmp_path / "a" / checkpoints.BEST).read_bytes() == (tmp_path / "b" / checkpoints.BEST).read_bytes()
    other = make_trainer(tmp_path / "c", toy, backbone)
    other.spec = other.spec.model_copy(update={"seed": 6})
    other.run()
    assert (tmp_path / "a" / checkpoints.BEST).read_bytes() != (tmp_path / "c" / checkpoints.BEST).read_bytes()


def test_accumulated_micro_batches_equal_the_whole_batch(tmp_path, toy, backbone):
    tables = []
    for micro in (None, 4):
        trainer = make_trainer(
            tmp_path / str(micro), toy, backbone, config=CSPConfig(dropout=0.0), micro_batch=micro, epochs=2
        )
        trainer.run()
        tables.append(trainer.method.table.weight.detach().clone())
    start = CSP(backbone, toy.vocabulary, CSPConfig(dropout=0.0)).table.weight
    assert (tables[0] - start).abs().max() > 1e-3, "training moved nothing"
    assert torch.allclose(tables[0], tables[1], atol=2e-5)


def test_mixed_precision_scores_stay_float32(tmp_path, toy, backbone):
    execution = dataclasses.replace(CPU, precision="bf16")
    trainer = make_trainer(tmp_path / "bf16", toy, backbone, execution=execution, epochs=1)
    assert 0.0 <= trainer.run().metrics.test.auc <= 1.0
    scores = trainer.score("test")[0].true_score
    assert scores.dtype == np.float32
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert (rounded != scores).any(), "scores that are all bf16 values tie at the top"


def test_gradients_are_clipped_before_the_step(tmp_path, toy, backbone, monkeypatch):
    step, norms = torch.optim.Adam.step, {}

    def watched(optimizer, *arguments):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norms.setdefault(limit, []).append(torch.cat([weight.grad.flatten() for weight in weights]).norm().item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    for limit in (None, 1e-3):
        make_trainer(tmp_path / str(limit), toy, backbone, clip_norm=limit, epochs=1).run()
    assert min(norms[None]) > 2e-3, "there was something to clip"
    assert norms[1e-3] == pytest.approx([1e-3] * 3, rel=1e-3)


def test_computing_activations_again_changes_no_number(tmp_path, toy, backbone, monkeypatch):
    """Troika has all three kinds: passes of prompts, vision blocks with adapters, chunks of cross-attention."""
    results = []
    for again in (False, True):
        monkeypatch.setattr(backbone, "recompute", again)
        trainer = make_trainer(tmp_path / str(again), toy, backbone, method=Troika, config=TroikaConfig(), epochs=1)
        trainer.method.rows_at_once = 100
        results.append((numbers(trainer.run()), trainer.folder.epochs()[0]["losses"]))
    assert results[0] == results[1]


def test_selection_policies(tmp_path, toy, backbone):
    results = {}
    for policy in ("val_auc", "val_hm", "val_unseen", "val_loss", "last_batch_loss", "last"):
        trainer = make_trainer(tmp_path / policy, toy, backbone, selection=policy, epochs=4)
        results[policy] = trainer.run().selection
        values = {"val_auc": "auc", "val_hm": "best_hm", "val_unseen": "best_unseen"}
        values |= dict.fromkeys(("val_loss", "last_batch_loss"), "loss")
        if policy in values:
            path = [record["val"][values[policy]] for record in trainer.folder.epochs()]
            best = np.argmin(path) if values[policy] == "loss" else np.argmax(path)
            assert results[policy].epoch == int(best), "the earliest of the best"
    assert results["last"].epoch == 3


def test_the_selected_weights_are_the_evaluated_ones(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, epochs=4)
    result = trainer.run()
    chosen = trainer.folder.epochs()[result.selection.epoch]
    assert result.metrics.val.auc == chosen["val"]["auc"]


def test_everything_can_be_recomputed_from_the_stored_scores(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    result = trainer.run()
    arrays = trainer.folder.read_arrays()
    for phase in ("val", "test"):
        own = {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith(f"{phase}.")}
        pairs = own["candidate_pairs"]
        labels = Labels(pairs[:, 0], pairs[:, 1], own["states"], own["objects"])
        bias = result.selection.bias if phase == "test" else None
        metrics = evaluate(ImageScores.from_arrays(own), labels, bias=bias)
        assert numbers(dataclasses.asdict(metrics)) == numbers(dataclasses.asdict(getattr(result.metrics, phase)))
    assert set(arrays["test.tag.kind"]) == {"local", "global"}


def test_a_method_without_training_is_only_evaluated(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, method=CLIPZeroShot, epochs=3)
    result = trainer.run()
    assert result.selection.epoch is None
    assert result.cost.trained_parameters == 0
    assert trainer.folder.epochs() == []
    assert not (tmp_path / "run" / checkpoints.BEST).exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_done(tmp_path, toy, backbone, monkeypatch):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    compute, calls = trainer.method.training_loss, []

    def diverge(batch, candidates):
        calls.append(1)
        losses = compute(batch, candidates)
        return Losses(losses.total * (float("nan") if len(calls) == 5 else 1.0), losses.terms)

    monkeypatch.setattr(trainer.method, "training_loss", diverge)
    with pytest.raises(UserError, match="became nan in epoch 2"):
        trainer.run()
    assert [record["epoch"] for record in trainer.folder.epochs()] == [0]
    expected = numbers(make_trainer(tmp_path / "whole", toy, backbone).run())
    assert numbers(make_trainer(tmp_path / "run", toy, backbone).run()) == expected


def test_learning_rate_follows_the_schedule(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, scheduler="step", step_size=2, gamma=0.1, epochs=4, lr=1e-3)
    trainer.run()
    rates = [record["lr"] for record in trainer.folder.epochs()]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
