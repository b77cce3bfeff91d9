"""Optimizer steps: taken back and repeated in smaller parts when memory runs out, in half precision, compiled."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from toy_runs import CONFIG, CPU, make_backbone, make_trainer, numbers, without_times

from benchmarks.runs.checkpoints import read_best
from benchmarks.training import memory, steps
from benchmarks.training.steps import Stepper, mixes_images, rows
from errors import UserError
from methods.base import Batch, Losses
from methods.csp import CSP
from methods.troika import Troika, TroikaConfig

KINDS = {
    "accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
}


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def limit(method, monkeypatch, images: int, error: Exception, after: int = 0) -> None:
    """Let training run out of memory with more than `images` at once, having computed all of it, from a call on."""
    compute, calls = method.training_loss, []

    def limited(batch, candidates):
        calls.append(len(batch))
        losses = compute(batch, candidates)
        if len(batch) > images and len(calls) > after:
            raise error
        return losses

    monkeypatch.setattr(method, "training_loss", limited)


def test_what_is_out_of_memory():
    assert all(memory.out_of_memory(error) for error in KINDS.values())
    assert memory.out_of_memory(MemoryError())
    assert not memory.out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not memory.out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("method", "config", "kind"), [(CSP, None, "cpu"), (Troika, TroikaConfig(), "accelerator")], ids=["csp", "troika"]
)
def test_a_smaller_micro_batch_by_necessity_equals_one_by_choice(
    tmp_path, toy, backbone, monkeypatch, method, config, kind
):
    """Bit by bit, with dropout and BatchNorm: the failed attempts drew from the generators and moved statistics."""
    settings = {"method": method, "config": config, "epochs": 2}
    chosen = make_trainer(tmp_path / "chosen", toy, backbone, micro_batch=4, **settings)
    expected = chosen.run()
    forced = make_trainer(tmp_path / "forced", toy, backbone, **settings)
    limit(forced.method, monkeypatch, 4, KINDS[kind])
    result = forced.run()
    assert numbers(result.content()["metrics"]) == numbers(expected.content()["metrics"])
    for ours, theirs in zip(forced.folder.epochs(), chosen.folder.epochs(), strict=True):
        assert ours["losses"] == theirs["losses"] and ours["micro_batch"] == 4
    tensors = [read_best(tmp_path / name, CPU.device)[0] for name in ("forced", "chosen")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])
    assert result.cost.micro_batch == 4
    notices = forced.folder.read().starts[-1]["notices"]
    assert [notice.partition(":")[0] for notice in notices] == [
        "Memory ran out with 16 images at once",
        "Memory ran out with 8 images at once",
    ]
    assert "from here on the micro-batch is 4; the effective batch stays 16 by accumulation." in notices[1]
    assert all(("BatchNorm" in notice) == (method is Troika) for notice in notices)


def test_the_smaller_micro_batch_outlives_a_kill(tmp_path, toy, backbone, monkeypatch):
    def make(folder, **settings):
        trainer = make_trainer(tmp_path / folder, toy, backbone, **settings)
        limit(trainer.method, monkeypatch, 8, KINDS["cpu"], after=4)  # in the second epoch
        return trainer

    whole = make("whole")
    expected = numbers(whole.run())

    def end(what, done, total, note):
        if what == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("killed", report=end).run()
    again = make_trainer(tmp_path / "killed", toy, backbone)
    assert numbers(again.run()) == expected
    assert [record.get("micro_batch") for record in again.folder.epochs()] == [None, 8, 8]
    assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())


def test_memory_for_not_even_one_image_is_a_user_error(tmp_path, toy, backbone, monkeypatch):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    limit(trainer.method, monkeypatch, 0, KINDS["accelerator"])
    before = trainer.method.table.weight.detach().clone()
    with pytest.raises(UserError, match=r"Memory does not suffice to train csp.*micro-batch of one image.*--recompute"):
        trainer.run()
    assert torch.equal(trainer.method.table.weight, before)


def test_other_errors_are_not_taken_for_it(tmp_path, toy, backbone, monkeypatch):
    trainer = make_trainer(tmp_path / "run", toy, backbone)
    limit(trainer.method, monkeypatch, 4, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.run()


@pytest.mark.parametrize("selection", ["val_auc", "val_loss"])
def test_evaluation_steps_down_too(tmp_path, toy, backbone, monkeypatch, selection):
    expected = make_trainer(tmp_path / "whole", toy, backbone, epochs=1, selection=selection).run()
    trainer = make_trainer(tmp_path / "run", toy, backbone, epochs=1, selection=selection)
    score = trainer.method.score

    def limited(batch, prepared, chunk):
        if len(batch) > 2:
            raise KINDS["cpu"]
        return score(batch, prepared, chunk)

    monkeypatch.setattr(trainer.method, "score", limited)
    result = trainer.run()
    assert result.cost.eval_batch == 2
    assert result.metrics.test.auc == pytest.approx(expected.metrics.test.auc, abs=1e-6)
    notices = trainer.folder.read().starts[-1]["notices"]
    assert len(notices) == 2 and "there are 2. Scores are the same up to rounding." in notices[1]
    monkeypatch.setattr(trainer.method, "score", lambda *_: (_ for _ in ()).throw(KINDS["cpu"]))
    with pytest.raises(UserError, match="Memory does not suffice to evaluate csp"):
        trainer.score("test")


def test_rows_of_a_batch():
    index = torch.arange(5)
    batch = Batch(index, index + 10, index + 20, images=torch.rand(5, 3, 2, 2), features={"image": torch.rand(5, 4)})
    part = rows(batch, 3, 9)
    assert (part.states.tolist(), part.objects.tolist(), part.pairs.tolist()) == ([3, 4], [13, 14], [23, 24])
    assert torch.equal(part.images, batch.images[3:]) and torch.equal(
        part.features["image"], batch.features["image"][3:]
    )
    assert rows(batch, 0, 5) is batch


def test_which_methods_mix_images(toy, backbone):
    assert mixes_images(Troika(backbone, toy.vocabulary, TroikaConfig()))
    assert not mixes_images(CSP(backbone, toy.vocabulary, CSP.Config()))


def test_fp16_scales_its_losses_and_resumes_the_scale(tmp_path, toy):
    backbone = make_backbone(CONFIG)  # the smaller one learns more in the steps that a scale too large leaves out
    half = dataclasses.replace(CPU, precision="fp16")
    whole = make_trainer(tmp_path / "whole", toy, backbone, execution=half)
    expected = numbers(whole.run())
    assert whole.stepper.scaler.is_enabled() and whole.stepper.scaler.get_scale() > 1

    def end(what, done, total, note):
        if what == "training" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "killed", toy, backbone, execution=half, report=end).run()
    assert numbers(make_trainer(tmp_path / "killed", toy, backbone, execution=half).run()) == expected
    single = make_trainer(tmp_path / "single", toy, backbone)
    single.run()
    for ours, theirs in zip(whole.folder.epochs(), single.folder.epochs(), strict=True):
        assert ours["losses"]["total"] == pytest.approx(theirs["losses"]["total"], rel=0.01)


def test_a_compiler_that_fails_is_told_and_gone_without(tmp_path, toy, backbone, monkeypatch):
    expected = make_trainer(tmp_path / "plain", toy, backbone).run()

    class CompilerError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def broken(function):
        def fail(*arguments):
            function(*arguments)  # it may have drawn before it fails
            raise CompilerError("No working C++ compiler found\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    compiled = dataclasses.replace(CPU, compiled=True)
    trainer = make_trainer(tmp_path / "compiled", toy, backbone, execution=compiled)
    result = trainer.run()
    assert numbers(result) == numbers(expected)
    assert result.cost.compiled is False
    (notice,) = trainer.folder.read().starts[-1]["notices"]
    assert notice.startswith("torch.compile failed (CompilerError: No working C++ compiler found). The run goes on")


class OneLayer(CSP):
    """So little to compile that it takes seconds."""

    def __init__(self, backbone, vocabulary, config):
        super().__init__(backbone, vocabulary, config)
        self.layer = torch.nn.Linear(4, 3)

    def training_loss(self, batch, candidates):
        loss = torch.nn.functional.cross_entropy(self.layer(batch.features["image"]).tanh(), batch.pairs)
        return Losses(loss, {"pair": loss})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_step_equals_a_plain_one(tmp_path, toy, backbone):
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        method = OneLayer(backbone, toy.vocabulary, CSP.Config())
        optimizer = torch.optim.SGD(method.layer.parameters(), lr=1.0)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        trainer = make_trainer(tmp_path / str(compiled), toy, backbone)
        told = []
        stepper = Stepper(
            method,
            trainer.config,
            dataclasses.replace(CPU, compiled=compiled),
            trainer.candidates["train"],
            optimizer,
            scaler,
            told.append,
        )
        columns = torch.arange(6) % 3
        stepper.step(Batch(columns, columns, columns, features={"image": torch.rand(6, 4)}), "the first step")
        assert told == [] and stepper.compiled is compiled
        weights.append(method.layer.weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-6)


def test_compiler_errors_are_told_from_others():
    assert steps.of_compiler(torch._dynamo.exc.BackendCompilerFailed.__new__(torch._dynamo.exc.BackendCompilerFailed))
    assert not steps.of_compiler(RuntimeError("shapes"))
