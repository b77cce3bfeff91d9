"""Everything that `run` does, on a pretended accelerator that refuses tensors of two devices, for every method."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def dataset():
    return pretended.small_dataset()


def a_run(results, dataset, name, *overrides, world="closed", report=None, **choices):
    """Do a run on the device and return its record."""
    with pretended.bench(results, dataset, *overrides, **choices) as workbench:
        request = RunRequest(name, "made", pretended.known_backbone(), world, "clean", 0)
        (planned,) = plan_runs([request], workbench)
        return execute(planned, workbench, report)


@pytest.fixture(scope="module")
def csp(dataset, tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("csp"), dataset, "csp")


@pytest.fixture(scope="module")
def msci(dataset, tmp_path_factory):
    return a_run(tmp_path_factory.mktemp("msci"), dataset, "msci", "epochs=1")


@pytest.mark.parametrize("name", ["csp", "msci"])
def test_a_whole_run(name, dataset, request, tmp_path):
    """Training, validation, checkpoints, evaluation; the CPU gives the recorded scores with the weights it left."""
    record = request.getfixturevalue(name)
    assert record.environment["device"] == "gpu"
    method = load_method(record, dataset.vocabulary)
    candidates = dataset.candidates("test")
    batches = PhaseBatches(method, dataset, "test", candidates, pretended.CPU)
    expected = score_images(method, batches.ordered(), candidates)
    arrays = np.load(record.path / "scores.npz")
    for field in ("best_seen", "best_unseen", "true_score"):
        assert np.allclose(arrays[f"test.{field}"], getattr(expected, field), atol=2e-3), field
    picture = tmp_path / "one.png"
    dataset.load_image("test", 0).save(picture)
    with Pretend():
        (on_device,) = predict(record, [picture], device=DEVICE)
    (on_cpu,) = predict(record, [picture])
    words = [[(guess.state, guess.object) for guess in found.guesses] for found in (on_device, on_cpu)]
    assert words[0] == words[1]


def test_an_open_world_with_a_searched_threshold_in_half_precision(dataset, tmp_path):
    record = a_run(tmp_path, dataset, "csp", "epochs=1", world="open", precision="bf16")
    assert record.finished.open_world is not None
    assert (record.path / "best.safetensors").exists()


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_trains_and_scores_there(name, dataset):
    """A step waits once, to read the loss, and copies nothing; scores are those of the CPU; bf16 is near fp32.

    A second list of candidates between two steps changes nothing of that.
    """
    train, test = dataset.candidates("train"), dataset.candidates("test")

    def scores(method, batch):
        with torch.inference_mode():
            return method.score(method.encode(batch), method.prepare(test), slice(0, 5))

    with Pretend(places=True) as counted:
        method = pretended.built(name, dataset)
        config = TrainingConfig(batch_size=2, clip_norm=1.0)
        here, batch = (pretended.some_batch(dataset, place, 2) for place in (torch.device("cpu"), DEVICE))
        expected = scores(method.eval(), here)
        method.to(DEVICE)
        assert torch.allclose(scores(method, batch).cpu(), expected, atol=1e-3)
        if not method.info.trains:
            return
        losses = []
        for precision in ("fp32", "bf16"):
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=precision == "bf16"), torch.no_grad():
                losses.append(method.training_loss(batch, train).total)
                scored = scores(method, batch)
            assert losses[-1].dtype == scored.dtype == torch.float32
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.05)
        optimizer, _ = make_optimizer(method.train(), config)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=False)
        stepper = Stepper(method, config, pretended.ON_DEVICE, train, optimizer, scaler, print)
        stepper.step(batch, "the first step")  # makes the state of the optimizer, and what is kept for candidates
        with torch.inference_mode():
            method.prepare(dataset.candidates("val"))
        counted.clear()
        stepper.step(batch, "the second step")
    where = [place for place in counted.places if "SYNC" in place or "COPY" in place]
    assert counted.synchronisations == {"tolist": 1}, where
    assert not counted.copies, where
    assert all(parameter.grad is None or parameter.grad.held.isfinite().all() for parameter in method.parameters())


def test_a_run_that_was_killed_goes_on_there(dataset, csp, tmp_path):
    def killed(what, done, total, note):
        if what == "epoch 2 of 2":
            raise Killed

    with pytest.raises(Killed):
        a_run(tmp_path, dataset, "csp", report=killed)
    again = a_run(tmp_path, dataset, "csp")
    assert numbers(again.finished) == numbers(csp.finished)


def test_frozen_features_are_kept_and_used_there(dataset, csp, tmp_path):
    kept = a_run(tmp_path, dataset, "csp", feature_cache=True)
    assert kept.finished.cost.feature_cache == ["train", "val", "test"]
    for field in ("best_seen", "best_unseen", "true_score"):
        one, other = (np.load(record.path / "scores.npz")[f"test.{field}"] for record in (kept, csp))
        assert np.allclose(one, other, atol=1e-4), field


def test_attention_maps_are_made_there(dataset, msci):
    with Pretend():
        found = maps(Loaded(msci, load_method(msci, dataset.vocabulary, DEVICE), dataset), [0, 1], 0.0)
    expected = maps(Loaded(msci, load_method(msci, dataset.vocabulary), dataset), [0, 1], 0.0)
    for stage, values in expected.patches.items():
        assert np.allclose(found.patches[stage], values, atol=1e-3)


def test_two_processes_share_it(tmp_path):
    pretended.in_two_processes(tmp_path, ["csp"])


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
