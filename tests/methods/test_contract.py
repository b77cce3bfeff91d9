"""The contract of a method, held against everything that is registered."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from toy_runs import make_backbone

from benchmarks.runs.resolution import resolve
from methods.base import Batch
from registry import METHODS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make(toy):
    """Build a registered method with its icon_states settings on a backbone of random weights."""

    def build(name: str):
        backbone = make_backbone()
        method_class = METHODS.get(name)
        config = resolve(name, method_class.Config, "icon_states").method
        torch.manual_seed(0)
        return method_class(backbone, toy.vocabulary, method_class.Config.model_validate(config))

    return build


@pytest.fixture(scope="module")
def candidates(toy):
    return toy.candidates("test")


@pytest.fixture
def batch(toy, candidates) -> Batch:
    generator = torch.Generator().manual_seed(1)
    columns = torch.randint(len(candidates), (6,), generator=generator)
    pairs = torch.from_numpy(candidates.pairs)[columns]
    return Batch(pairs[:, 0], pairs[:, 1], columns, images=torch.randn(6, 3, 32, 32, generator=generator))


def train_batch(toy) -> Batch:
    """One image of every training pair, so that every learned row takes part."""
    candidates = toy.candidates("train")
    pairs = torch.from_numpy(candidates.pairs)
    images = torch.randn(len(pairs), 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return Batch(pairs[:, 0], pairs[:, 1], torch.arange(len(pairs)), images=images)


def moved(method, toy, steps: int = 1):
    """Take optimizer steps, so that what starts as zero or identity has a value."""
    parameters = list(method.trained().values())
    if parameters:
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        method.train()
        for _ in range(steps):
            optimizer.zero_grad()
            method.training_loss(train_batch(toy), toy.candidates("train")).total.backward()
            optimizer.step()
            method.after_step()
    return method.eval()


@torch.no_grad()
def scores(method, batch, candidates, chunks=None):
    prepared = method.prepare(candidates)
    encoded = method.encode(batch)
    chunks = [slice(0, len(candidates))] if chunks is None else chunks
    return torch.cat([method.score(encoded, prepared, chunk) for chunk in chunks], dim=1)


@pytest.mark.parametrize("name", METHODS.names())
def test_scores_are_exact_under_any_chunking_and_order(name, make, toy, batch, candidates):
    method = moved(make(name), toy)
    whole = scores(method, batch, candidates)
    assert whole.shape == (6, len(candidates))
    assert whole.isfinite().all()
    pieces = [slice(at, min(at + 5, len(candidates))) for at in range(0, len(candidates), 5)]
    assert torch.allclose(scores(method, batch, candidates, pieces), whole, atol=1e-4)
    order = np.random.default_rng(0).permutation(len(candidates))
    shuffled = scores(method, batch, candidates.subset(order))
    assert torch.allclose(shuffled, whole[:, torch.from_numpy(order)], atol=1e-4)


@pytest.mark.parametrize("name", METHODS.names())
def test_declared_independence_holds(name, make, toy, batch, candidates):
    method = moved(make(name), toy)
    whole = scores(method, batch, candidates)
    info = method.info
    if info.batch_independent:
        alone = Batch(batch.states[2:3], batch.objects[2:3], batch.pairs[2:3], images=batch.images[2:3])
        assert torch.allclose(scores(method, alone, candidates), whole[2:3], atol=1e-4)
    if info.candidate_independent:
        some = np.arange(0, len(candidates), 3)
        assert torch.allclose(scores(method, batch, candidates.subset(some)), whole[:, some], atol=1e-4)


@pytest.mark.parametrize("name", METHODS.names())
def test_every_trained_tensor_learns_and_the_backbone_does_not(name, make, toy):
    method = make(name)
    before = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    assert bool(method.trained()) == method.info.trains
    moved(method, toy)  # what starts at zero may keep others from their gradient for the first step
    method.train()
    method.zero_grad()
    losses = method.training_loss(train_batch(toy), toy.candidates("train"))
    assert losses.total.isfinite()
    assert losses.terms
    if method.info.trains:
        losses.total.backward()
    without = [key for key, value in method.trained().items() if value.grad is None or not value.grad.any()]
    assert without == []
    after = method.backbone.state_dict()
    trained = {key.removeprefix("backbone.") for key in method.trained()}
    assert all(torch.equal(after[key], value) for key, value in before.items() if key not in trained)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_checkpoint_holds_the_whole_method(name, make, toy, batch, candidates):
    method = moved(make(name), toy)
    stored = {key: value.clone() for key, value in method.checkpoint().items()}
    assert not any(key.startswith("backbone.") for key in stored if key not in method.trained())
    other = make(name)
    other.load_checkpoint(stored)
    assert torch.equal(scores(other.eval(), batch, candidates), scores(method, batch, candidates))
    if stored:
        with pytest.raises(ValueError, match="does not fit"):
            other.load_checkpoint(dict(list(stored.items())[1:]))


@pytest.mark.parametrize("name", METHODS.names())
def test_frozen_features_do_not_change_with_training(name, make, toy, batch):
    method = make(name)
    if not method.info.frozen_image_features:
        pytest.skip(f"{name} trains its image side")
    before = method.image_features(batch.images)
    after = moved(method, toy).image_features(batch.images)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_fresh_method_sees_the_image_as_clip_does(name, make, batch):
    """Adapters start as nothing, so that before training every method has CLIP's own image feature."""
    method = make(name).eval()
    features = method.image_features(batch.images)
    own = features["image"] if "image" in features else features["pair"]
    assert torch.allclose(own, method.backbone.image_embedding(batch.images), atol=1e-5)


SOURCES = [*(ROOT / "methods").glob("*.py"), *(ROOT / "methods/parts").glob("*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_methods_name_no_device_and_no_size_of_a_backbone(path):
    """Sizes of ViT-L/14 (blocks, tokens, widths) and devices are asked of the backbone."""
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not {24, 257, 768} & {value for value in constants if type(value) is int}
    assert not [value for value in constants if isinstance(value, str) and value in ("cuda", "mps", "cpu")]
    assert not [value for value in constants if isinstance(value, str) and value in ("mit_states", "icon_states")]


@pytest.mark.parametrize("name", METHODS.names())
def test_what_a_method_says_of_itself(name):
    method = METHODS.get(name)
    info = method.info
    assert info.name == name
    assert info.title and info.paper
    names = [ablation.name for ablation in info.ablations]
    assert len(set(names)) == len(names)
    for ablation in info.ablations:
        method.Config(**{k: v for k, v in ablation.changes.items() if k in method.Config.model_fields})
        assert ablation.question.endswith("?")


@pytest.mark.parametrize("name", METHODS.names())
def test_logits_norms_and_losses_are_fp32_under_autocast(name, make, toy, batch, candidates, monkeypatch):
    """What decides a ranking is never rounded to bf16, and what a norm computes is rounded after it at most."""
    method = moved(make(name), toy)
    plain = scores(method, batch, candidates)
    logits: list[torch.Tensor] = []
    cross_entropy, normalize, layer_norm = functional.cross_entropy, functional.normalize, functional.layer_norm

    def watched_loss(values, *rest, **options):
        logits.append(values.detach())
        return cross_entropy(values, *rest, **options)

    def watched_normalize(values, *rest, **options):
        assert values.dtype == torch.float32
        return normalize(values, *rest, **options)

    def watched_norm(values, *rest, **options):
        result = layer_norm(values, *rest, **options)
        assert torch.allclose(result.float(), layer_norm(values.float(), *rest, **options), rtol=2**-8, atol=1e-5)
        return result

    for function, watched in (
        ("cross_entropy", watched_loss), ("normalize", watched_normalize), ("layer_norm", watched_norm),
    ):  # fmt: skip
        monkeypatch.setattr(functional, function, watched)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.backbone.embed_images(batch.images).dtype == torch.float32, "the tower adds up in fp32"
        losses = method.training_loss(train_batch(toy), toy.candidates("train"))
        found = scores(method, batch, candidates)
    monkeypatch.undo()
    for label, value in {"total": losses.total, **losses.terms}.items():
        assert value.dtype == torch.float32 and torch.isfinite(value), label
    assert logits and {values.dtype for values in logits} == {torch.float32}
    rounded = torch.cat([(values.bfloat16() == values).flatten() for values in [*logits, found]])
    assert rounded.float().mean() < 0.1, "logits that are bf16 values tie at the top"
    assert found.dtype == torch.float32 and torch.isfinite(found).all()
    assert (found - plain).abs().max() < 0.05 * plain.abs().max(), "the same scores up to rounding"
    assert {parameter.dtype for parameter in method.trained().values()} <= {torch.float32}


@pytest.mark.parametrize("name", ["caila", "msci"])
def test_a_training_step_can_be_followed_by_the_compiler(name, make, toy):
    """From the first step on, before anything is kept; the other methods are put together of the same parts."""
    method, batch, candidates = make(name).train(), train_batch(toy), toy.candidates("train")

    def gradients(training_loss) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        training_loss(batch, candidates).total.backward()
        found = {key: value.grad for key, value in method.trained().items() if value.grad is not None}
        method.zero_grad(set_to_none=True)
        return found

    followed = gradients(torch.compile(method.training_loss, backend="eager"))
    plain = gradients(method.training_loss)
    assert followed.keys() == plain.keys()
    for key, value in plain.items():
        assert torch.allclose(followed[key], value, atol=1e-5), key
    torch._dynamo.reset()
