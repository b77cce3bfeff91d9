"""The training loop: exact resume, accumulation, selection, cached features, NaN, and records that say it all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.batches import Execution
from benchmarks.evaluation import ImageScores, Labels, evaluate
from benchmarks.records import RunFolder
from benchmarks.spec import RunSpec, TrainingConfig
from benchmarks.training import Trainer
from datasets.transforms import derived_seed
from errors import UserError
from methods.backbone.clip import Backbone
from methods.backbone.loading import build_clip
from methods.base import Losses
from methods.clip_zero_shot import CLIPZeroShot
from methods.csp import CSP, CSPConfig
from methods.troika import Troika, TroikaConfig

CONFIG = json.loads((Path(__file__).parents[2] / "methods/backbone/tiny-icons.json").read_text())
CPU = Execution(torch.device("cpu"), eval_batch=7, pair_chunk=5)


class Killed(BaseException):
    """Stands for a process that ends without another word."""


def make_backbone() -> Backbone:
    import open_clip

    return Backbone.from_open_clip(
        build_clip(CONFIG, "tiny", 0), open_clip.SimpleTokenizer(context_length=16), "tiny", "random"
    )


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def make_trainer(
    folder, toy, backbone, *, method=CSP, config=None, report=training.silent, execution=CPU, store=None, **settings
):
    config = CSPConfig(dropout=0.3) if config is None else config
    settings = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "augmentation": "clip", **settings}
    spec = RunSpec(
        method=method.info.name,
        method_config=config.model_dump(mode="json"),
        training=TrainingConfig(**settings),
        dataset="toy",
        dataset_digest="toy",
        backbone="tiny",
        backbone_digest="random",
        seed=5,
    )
    record = RunFolder(folder)
    record.start(spec, provenance={}, command_line=[], environment={})
    torch.manual_seed(derived_seed("init", spec.seed))
    built = method(backbone, toy.vocabulary, config if isinstance(config, method.Config) else method.Config())
    return Trainer(spec, record, built, toy, execution, report, store)


def numbers(result: dict) -> str:
    """Everything of a result but how long it took, as text; NaN equals NaN in it."""
    return json.dumps({key: value for key, value in result.items() if key != "cost"}, sort_keys=True)


def without_times(epochs: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in epochs]


def test_a_run_killed_anywhere_ends_bit_identical(tmp_path, toy, backbone):
    whole = make_trainer(tmp_path / "whole", toy, backbone, scheduler="step", step_size=1)
    expected = numbers(whole.run())
    calls = 3 * (3 + 1) + 3  # three epochs of three batches and a closing word each, then the evaluation
    for point in range(calls):
        folder, seen = tmp_path / f"killed-{point}", 0

        def report(what: str, done: int, total: int, note: str, point: int = point) -> None:
            nonlocal seen
            if seen == point:
                raise Killed
            seen += 1

        with pytest.raises(Killed):
            make_trainer(folder, toy, backbone, scheduler="step", step_size=1, report=report).run()
        again = make_trainer(folder, toy, backbone, scheduler="step", step_size=1)
        assert numbers(again.run()) == expected, f"killed at report {point}"
        assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())
        for name in (training.BEST, "scores.npz"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", [training.BEST, training.STATE])
def test_a_kill_while_a_file_is_written_loses_nothing(tmp_path, toy, backbone, monkeypatch, name):
    expected = numbers(make_trainer(tmp_path / "whole", toy, backbone).run())
    trainer = make_trainer(tmp_path / "killed", toy, backbone)
    write, writes = trainer._write, []

    def die_at_the_second(what: str, content: bytes) -> None:
        writes.append(what)
        if writes.count(name) == 2:
            raise Killed
        write(what, content)

    monkeypatch.setattr(trainer, "_write", die_at_the_second)
    # Selection by "last" would write the best weights at every epoch; here whatever comes second will do.
    try:
        trainer.run()
    except Killed:
        pass
    else:
        pytest.skip("validation never improved twice on the toy data")
    assert numbers(make_trainer(tmp_path / "killed", toy, backbone).run()) == expected


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path, toy, backbone):
    first = make_trainer(tmp_path / "a", toy, backbone)
    first.run()
    torch.manual_seed(12345)  # what the global generator did before must not matter
    second = make_trainer(tmp_path / "b", toy, backbone)
    second.run()
    assert (tmp_path / "a" / training.BEST).read_bytes() == (tmp_path / "b" / training.BEST).read_bytes()
    other = make_trainer(tmp_path / "c", toy, backbone)
    other.spec = other.spec.model_copy(update={"seed": 6})
    other.run()
    assert (tmp_path / "a" / training.BEST).read_bytes() != (tmp_path / "c" / training.BEST).read_bytes()


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
    assert 0.0 <= trainer.run()["metrics"]["test"]["auc"] <= 1.0
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
    for policy in ("val_auc", "val_hm", "val_unseen", "val_loss", "last"):
        trainer = make_trainer(tmp_path / policy, toy, backbone, selection=policy, epochs=4)
        results[policy] = trainer.run()["selection"]
        values = {"val_auc": "auc", "val_hm": "best_hm", "val_unseen": "best_unseen", "val_loss": "loss"}
        if policy in values:
            path = [record["val"][values[policy]] for record in trainer.folder.epochs()]
            best = np.argmin(path) if policy == "val_loss" else np.argmax(path)
            assert results[policy]["epoch"] == int(best), "the earliest of the best"
    assert results["last"]["epoch"] == 3


def test_the_selected_weights_are_the_evaluated_ones(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, epochs=4)
    result = trainer.run()
    chosen = trainer.folder.epochs()[result["selection"]["epoch"]]
    assert result["metrics"]["val"]["auc"] == chosen["val"]["auc"]


def test_everything_can_be_recomputed_from_the_stored_scores(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    result = trainer.run()
    arrays = trainer.folder.read_arrays()
    for phase in ("val", "test"):
        own = {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith(f"{phase}.")}
        pairs = own["candidate_pairs"]
        labels = Labels(pairs[:, 0], pairs[:, 1], own["states"], own["objects"])
        bias = result["selection"]["bias"] if phase == "test" else None
        metrics = evaluate(ImageScores.from_arrays(own), labels, bias=bias)
        assert numbers(dataclasses.asdict(metrics)) == numbers(result["metrics"][phase])
    assert set(arrays["test.tag.kind"]) == {"local", "global"}


def test_a_method_without_training_is_only_evaluated(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, method=CLIPZeroShot, epochs=3)
    result = trainer.run()
    assert result["selection"]["epoch"] is None
    assert result["cost"]["trained_parameters"] == 0
    assert trainer.folder.epochs() == []
    assert not (tmp_path / "run" / training.BEST).exists()


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


def test_a_damaged_checkpoint_is_refused_in_words(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    trainer.run()
    path = tmp_path / "run" / training.STATE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="--on-existing redo"):
        make_trainer(tmp_path / "run", toy, backbone).run()


def test_learning_rate_follows_the_schedule(tmp_path, toy, backbone):
    trainer = make_trainer(tmp_path / "run", toy, backbone, scheduler="step", step_size=2, gamma=0.1, epochs=4, lr=1e-3)
    trainer.run()
    rates = [record["lr"] for record in trainer.folder.epochs()]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5])
