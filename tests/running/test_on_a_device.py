"""Everything that `run` does, on a pretended accelerator that refuses tensors of two devices, for every method."""

from __future__ import annotations

import json

import numpy as np
import pretend_device as pretended
import pytest
import torch
from toy_runs import Killed, numbers

from benchmarks.cost.pretend_device import DEVICE, Pretend
from benchmarks.evaluation.scoring import score_images
from benchmarks.report.attention_maps import maps
from benchmarks.report.finished import load_method
from benchmarks.report.prediction import predict
from benchmarks.report.rescoring import Loaded
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.runs.spec import TrainingConfig
from benchmarks.runs.suites import RunRequest
from benchmarks.training.batches import PhaseBatches
from benchmarks.training.optimizers import OPTIMIZERS, make_optimizer
from benchmarks.training.steps import Stepper
from methods.backbone.fused_attention import attend_fused
from methods.backbone.prefix_attention import Beginning, attend_after
from methods.parts.memo import PerObject
from registry import METHODS

TRAINED = [name for name in METHODS.names() if METHODS.get(name).info.trains]


@pytest.fixture(scope="module")
def dataset():
    return pretended.small_dataset()


def a_run(results, dataset, name, *overrides, world="closed", report=None, **choices):
    """Do a run on the device and return its record."""
    with pretended.bench(results, dataset, *overrides, **choices) as workbench:
        request = RunRequest(name, "made", pretended.known_backbone(), world, "clean", 0)
        (planned,) = plan_runs([request], workbench)
        return execute(planned, workbench, report)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_whole_run(name, dataset, tmp_path):
    """Training, validation, checkpoints, evaluation; the CPU gives the recorded scores with the weights it left."""
    record = a_run(tmp_path, dataset, name)
    assert record.environment["device"] == "gpu"
    method = load_method(record, dataset.vocabulary)
    candidates = dataset.candidates("test")
    batches = PhaseBatches(method, dataset, "test", candidates, pretended.CPU)
    expected = score_images(method, batches.ordered(), candidates)
    arrays = record.folder.read_arrays() if hasattr(record, "folder") else np.load(record.path / "scores.npz")
    for field in ("best_seen", "best_unseen", "true_score"):
        assert np.allclose(arrays[f"test.{field}"], getattr(expected, field), atol=2e-3), field
    if name in ("csp", "msci"):
        picture = tmp_path / "one.png"
        dataset.load_image("test", 0).save(picture)
        with Pretend():
            on_device = predict(record, [picture], device=DEVICE)
        on_cpu = predict(record, [picture])
        assert [found.pairs for found in on_device] == [found.pairs for found in on_cpu]


@pytest.mark.parametrize("name", ["csp", "troika", "dfsp"])
def test_an_open_world_with_a_searched_threshold(name, dataset, tmp_path):
    record = a_run(tmp_path, dataset, name, "epochs=1", world="open")
    assert record.finished.open_world is not None


@pytest.mark.parametrize("name", TRAINED)
def test_mixed_precision_trains_and_scores(name, dataset):
    """Losses and gradients in bf16 are near those in fp32; what is said to stay fp32 does."""
    losses = []
    for precision in ("fp32", "bf16"):
        with Pretend():
            method = pretended.built(name, dataset).to(DEVICE).eval()
            batch = pretended.some_batch(dataset, DEVICE)
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = method.training_loss(batch, dataset.candidates("train")).total
                loss.backward()
                with torch.inference_mode():
                    candidates = dataset.candidates("test")
                    scores = method.score(method.encode(batch), method.prepare(candidates), slice(0, 5))
            assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in method.parameters())
            assert loss.dtype == scores.dtype == torch.float32
            losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_waits_once_and_copies_nothing(name, dataset):
    """The host reads the loss and no more; a second list of candidates in between changes nothing of that."""
    candidates = dataset.candidates("train")
    with Pretend(places=True) as counted:
        method = pretended.built(name, dataset).to(DEVICE).train()
        config = TrainingConfig(batch_size=4, clip_norm=1.0)
        optimizer, _ = make_optimizer(method, config)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=False)
        stepper = Stepper(method, config, pretended.ON_DEVICE, candidates, optimizer, scaler, print)
        batch = pretended.some_batch(dataset, DEVICE)
        stepper.step(batch, "the first step")
        with torch.inference_mode():
            method.prepare(dataset.candidates("val"))
        counted.clear()
        stepper.step(batch, "the second step")
    where = [place for place in counted.places if "SYNC" in place or "COPY" in place]
    assert counted.synchronisations == {"tolist": 1}, where
    assert not counted.copies, where


def test_a_run_that_was_killed_goes_on_there(dataset, tmp_path):
    def killed(what, done, total, note):
        if what == "epoch 2 of 2" and done == 3:
            raise Killed

    whole = a_run(tmp_path / "whole", dataset, "troika")
    with pytest.raises(Killed):
        a_run(tmp_path / "killed", dataset, "troika", report=killed)
    again = a_run(tmp_path / "killed", dataset, "troika")
    assert numbers(again.finished) == numbers(whole.finished)


def test_frozen_features_are_kept_and_used_there(dataset, tmp_path):
    kept, anew = (a_run(tmp_path / str(wish), dataset, "csp", feature_cache=wish) for wish in (True, False))
    for one, other in zip(*(record.finished.metrics.test.model_dump().items() for record in (kept, anew)), strict=True):
        assert one == pytest.approx(other, nan_ok=True, abs=1e-5) if isinstance(one[1], float) else one[0] == other[0]
    assert json.loads((kept.path / "result.json").read_text())["cost"] != {}


def test_attention_maps_are_made_there(dataset, tmp_path):
    record = a_run(tmp_path, dataset, "msci", "epochs=1")
    with Pretend():
        found = maps(Loaded(record, load_method(record, dataset.vocabulary, DEVICE), dataset), [0, 1], 0.0)
    expected = maps(Loaded(record, load_method(record, dataset.vocabulary), dataset), [0, 1], 0.0)
    for stage, values in expected.patches.items():
        assert np.allclose(found.patches[stage], values, atol=1e-3)


def test_two_processes_share_it(tmp_path):
    pretended.in_two_processes(tmp_path, ["csp", "msci", "refiner_style"])


# What accelerators compute otherwise


@pytest.mark.parametrize("length, beginnings", [(1, 0), (2, 1), (3, 2)])
def test_fused_attention_is_the_attention_after_beginnings(length, beginnings):
    """Another order of operations, the same numbers and gradients up to rounding."""
    generator = torch.Generator().manual_seed(length)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, requires_grad=True)

    prompts, width, heads = 5, 12, 3
    own = [drawn(prompts, length, width) for _ in range(3)]
    some, common = [drawn(4, 2, width) for _ in range(2)], [drawn(1, 3, width) for _ in range(2)]
    of = torch.tensor([0, 3, 3, 1, 0])
    before = [Beginning(*some, of), Beginning(*common, None)][2 - beginnings :]
    known = sum(part.keys.shape[1] for part in before)
    mask = torch.ones(length, known + length, dtype=torch.bool).tril(known)
    leaves = [*own, *(tensor for part in before for tensor in (part.keys, part.values))]
    results = []
    for found in (
        attend_after(*own, before, mask[:, known:], heads),
        attend_fused(*own, before, mask, heads),
        *([attend_fused(*own, before, None, heads)] if length == 1 else []),
    ):
        results.append([found, *torch.autograd.grad(found.square().sum(), leaves)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.allclose(one, two, atol=1e-5)


def test_early_adamw_is_its_formula():
    """All tensors at once move as each by itself would, bit for bit, also one that has no gradient at first."""
    torch.manual_seed(0)
    start = [torch.randn(3, 2), torch.randn(4)]
    moved = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = OPTIMIZERS["early_adamw"]([{"params": moved}], lr=0.1, weight_decay=0.01)
    expected = [tensor.clone() for tensor in start]
    state = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in start]
    steps = [0, 0]
    for number in range(3):
        for place, tensor in enumerate(moved):
            tensor.grad = torch.randn_like(tensor) if number or not place else None
            if tensor.grad is None:
                continue
            mean, square = state[place]
            steps[place] += 1
            mean.lerp_(tensor.grad, 1 - 0.9)
            square.mul_(0.999).addcmul_(tensor.grad, tensor.grad, value=1 - 0.999)
            size = 0.1 * np.sqrt(1 - 0.999 ** steps[place]) / (1 - 0.9 ** steps[place])
            expected[place].addcdiv_(mean, square.sqrt().add_(1e-6), value=-float(size))
            expected[place].mul_(1 - 0.1 * 0.01)
        optimizer.step()
        assert all(torch.equal(one.detach(), two) for one, two in zip(moved, expected, strict=True))


def test_what_is_kept_for_an_object_goes_with_it():
    made = []

    class Thing:
        pass

    def make():
        made.append(torch.zeros(1))
        return made[-1]

    kept, thing, cpu = PerObject(), Thing(), torch.device("cpu")
    with torch.inference_mode():
        first = kept.get(thing, cpu, make)
    assert not first.is_inference(), "training goes on with it"
    assert kept.get(thing, cpu, make) is first
    assert kept.get(thing, torch.device("meta"), make) is not first
    assert kept.get(Thing(), cpu, make) is not first
    del thing
    assert len(kept._kept) == 0
    assert len(made) == 3
