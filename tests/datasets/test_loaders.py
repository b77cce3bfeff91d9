"""Loading: order and augmented views depend on seed, epoch and image, never on workers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal

import pytest
import torch
from toy_world import make_toy

from datasets import loaders
from datasets.base import CompositionDataset
from datasets.loaders import DeadWorker, ImageBatch, ahead, dead_worker, epoch_order, image_batches
from datasets.transforms import build_transform, derived_seed, with_stream
from errors import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def views(dataset, **options):
    transform = build_transform(64, MEAN, STD, options.pop("augmentation", "clip"))
    batches = list(image_batches(dataset, "train", transform, 10, **options))
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.index for batch in batches])


def test_views_do_not_depend_on_workers_or_on_the_global_generator(toy):
    torch.manual_seed(1)
    here, index = views(toy, seed=3, epoch=2, workers=0)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    there, _ = views(toy, seed=3, epoch=2, workers=2)
    assert torch.equal(here, there)
    assert torch.equal(state, torch.random.get_rng_state())
    assert index.tolist() == list(range(len(toy.splits["train"])))


def test_views_change_with_epoch_and_seed_but_not_with_order(toy):
    first, _ = views(toy, seed=3, epoch=2)
    assert not torch.equal(first, views(toy, seed=3, epoch=3)[0])
    assert not torch.equal(first, views(toy, seed=4, epoch=2)[0])
    order = epoch_order(len(toy.splits["train"]), 0, 0)
    shuffled, index = views(toy, seed=3, epoch=2, order=order)
    assert torch.equal(index, order)
    assert torch.equal(shuffled, first[order])


def test_evaluation_transform_equals_a_plain_one(toy):
    """At the native size nothing is resized: the tensor is the normalised picture."""
    picture = toy.load_image("train", 5)
    tensor = build_transform(64, MEAN, STD)(picture)
    raw = torch.tensor(list(picture.tobytes()), dtype=torch.float32).view(64, 64, 3).permute(2, 0, 1) / 255
    expected = (raw - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(tensor, expected, atol=1e-6)


def test_other_shapes_are_resized_by_the_shorter_side_and_cropped(toy):
    wide = toy.load_image("train", 0).resize((90, 60))
    assert build_transform(32, MEAN, STD)(wide).shape == (3, 32, 32)


def test_order_is_a_permutation_of_its_own_stream():
    assert sorted(epoch_order(50, 0, 1).tolist()) == list(range(50))
    assert torch.equal(epoch_order(50, 0, 1), epoch_order(50, 0, 1))
    assert not torch.equal(epoch_order(50, 0, 1), epoch_order(50, 0, 2))
    assert derived_seed("a", 1) != derived_seed("a", 2)


def test_a_stream_is_put_back():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with_stream(lambda _: torch.rand(7), None, "x")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_clear_error_from_a_worker_too(tmp_path, workers):
    damaged = make_toy(tmp_path)
    lost = tmp_path / "images" / damaged.splits["train"].images[7]
    lost.write_bytes(lost.read_bytes()[:200])
    with pytest.raises(UserError, match=lost.name) as caught:
        views(damaged, workers=workers)
    assert "Traceback" not in str(caught.value)


class Deadly(CompositionDataset):
    """Its seventh image ends the process that loads it, as the system does when memory runs out."""

    def load_image(self, phase, index):
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load_image(phase, index)


def test_a_worker_that_dies_is_one_clear_error(toy):
    deadly = Deadly(**{field.name: getattr(toy, field.name) for field in dataclasses.fields(toy)})
    with pytest.raises(
        DeadWorker, match=r"decodes images died \(DataLoader worker.*memory ran out.*--workers 0"
    ) as caught:
        views(deadly, workers=1)
    assert "Traceback" not in str(caught.value)


def test_only_the_death_of_a_worker_is_taken_for_one():
    assert dead_worker(RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. ")) is not None
    for other in (RuntimeError("CUDA error"), ValueError("DataLoader worker (pid 5) is killed"), KeyboardInterrupt()):
        assert dead_worker(other) is None


def some_batches(log):
    for number in range(3):
        log.append(f"loaded {number}")
        yield torch.tensor([number]), {"images": Fake(number, log)}


class Fake:
    """A tensor of a device that is not here."""

    def __init__(self, number, log, place="host"):
        self.number, self.log, self.place = number, log, place

    def to(self, device, non_blocking=False):
        assert non_blocking
        self.log.append(f"copy {self.number} on {Stream.current}")
        return Fake(self.number, self.log, str(device))

    def record_stream(self, stream):
        self.log.append(f"kept for {stream.name}")


class Stream:
    """A stream that notes what it is asked for."""

    current = "compute"

    def __init__(self, log, name):
        self.log, self.name, self.copied = log, name, 0

    def record_event(self):
        self.copied += 1
        return self.copied - 1

    def wait_event(self, event):
        self.log.append(f"wait for {event}")


def test_on_cuda_the_next_batch_is_copied_while_one_is_computed_on(monkeypatch):
    log: list[str] = []
    copies, computing = Stream(log, "copies"), Stream(log, "compute")

    @contextlib.contextmanager
    def stream(chosen):
        Stream.current = chosen.name
        yield
        Stream.current = "compute"

    monkeypatch.setattr(loaders.torch.cuda, "Stream", lambda device: copies)
    monkeypatch.setattr(loaders.torch.cuda, "stream", stream)
    monkeypatch.setattr(loaders.torch.cuda, "current_stream", lambda device: computing)
    for rows, tensors in ahead(some_batches(log), torch.device("cuda", 0)):
        assert tensors["images"].place == "cuda:0" and tensors["images"].number == int(rows)
        log.append(f"compute {int(rows)}")
    assert log == [
        *("loaded 0", "copy 0 on copies", "loaded 1", "copy 1 on copies"),
        *("wait for 0", "kept for compute", "compute 0", "loaded 2", "copy 2 on copies"),
        *("wait for 1", "kept for compute", "compute 1", "wait for 2", "kept for compute", "compute 2"),
    ]


def test_elsewhere_batches_are_loaded_as_they_are_asked_for():
    log: list[str] = []
    for rows, _ in ahead(some_batches(log), torch.device("cpu")):
        log.append(f"compute {int(rows)}")
    assert log[:4] == ["loaded 0", "copy 0 on compute", "compute 0", "loaded 1"]


def test_the_loader_can_pin_a_batch(monkeypatch):
    """It asks a batch of a class of its own for this method, and leaves it as it is where there is none."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = torch.utils.data._utils.pin_memory.pin_memory(ImageBatch(torch.zeros(2), torch.zeros(2)))
    assert pinned.images.tolist() == [1, 1]
