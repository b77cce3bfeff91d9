"""The pretended accelerator itself: it computes what the CPU does, refuses to mix, counts, and casts as CUDA does."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.cost import pretend_counts
from benchmarks.cost.pretend_device import DEVICE, MixedDevices, OnDevice, Pretend


def there(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def test_it_computes_what_the_cpu_computes():
    layer = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    rows, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])

    def gradients(device: torch.device | str) -> list[torch.Tensor]:
        layer.to(device).zero_grad(set_to_none=True)
        functional.cross_entropy(layer(rows.to(device)), targets.to(device)).backward()
        return [parameter.grad.cpu() for parameter in layer.parameters()]

    expected = gradients("cpu")
    with Pretend():
        found = gradients(DEVICE)
        assert all(isinstance(parameter, OnDevice) and parameter.is_leaf for parameter in layer.parameters())
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("dropped", [None, "mask", "causal"])
def test_its_attention_is_that_of_the_cpu(dropped):
    mask = torch.tensor([[True, False, True], [True, True, True]])
    options = {None: {}, "mask": {"attn_mask": mask}, "causal": {"is_causal": True}}[dropped]
    sides = [torch.randn(2, 3, length, 4, requires_grad=True) for length in (2, 3, 3)]
    expected = functional.scaled_dot_product_attention(*sides, **options)
    wanted = torch.autograd.grad(expected.square().sum(), sides)
    with Pretend() as counted:
        moved = [side.detach().to(DEVICE).requires_grad_() for side in sides]
        options = {key: value.to(DEVICE) if key == "attn_mask" else value for key, value in options.items()}
        counted.clear()
        found = functional.scaled_dot_product_attention(*moved, **options)
        assert counted.kernels.total() == 1
        gradients = torch.autograd.grad(found.square().sum(), moved)
        for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
            assert torch.allclose(one.detach().cpu(), other, atol=1e-6)


def test_tensors_of_two_devices_are_refused():
    with Pretend():
        rows = there(3, 4)
        for mixed in (
            lambda: rows + torch.ones(4),
            lambda: rows @ torch.ones(4, 2),
            lambda: torch.cat([rows, torch.ones(1, 4)]),
            lambda: torch.where(rows > 0, rows, torch.zeros(4)),
            lambda: torch.ones(3, 4)[rows[:, 0] > 0],
            lambda: functional.cross_entropy(rows, torch.tensor([0, 1, 2])),
            lambda: rows.index_select(0, torch.tensor([1])),
            lambda: rows.index_add(0, torch.tensor([1]), rows[:1]),
        ):
            with pytest.raises(MixedDevices, match="two devices"):
                mixed()
        with pytest.raises(TypeError, match="convert gpu:0"):
            rows.numpy()
        assert (rows + torch.tensor(2.0)).device == DEVICE, "a number goes along"
        assert rows[torch.tensor([0])].device == DEVICE, "numbers of the CPU may index"


def test_it_counts_what_makes_the_host_wait_and_what_crosses():
    with Pretend(places=True) as counted:
        rows = there(3, 4)
        counted.clear()
        waits = (rows.sum().item, rows.tolist, lambda: rows.nonzero(), lambda: rows[rows[:, 0] > 0], rows.unique)
        for number, wait in enumerate((*waits, lambda: bool(rows[0, 0] > 0), lambda: torch.equal(rows, rows)), 1):
            wait()
            assert counted.synchronisations.total() == number, number
        assert not counted.copies
        rows.cpu()
        torch.zeros(2).to(DEVICE)
        torch.tensor([1, 2], device=DEVICE)
        rows[torch.tensor([0])]
        assert counted.copies == {"to host": 1, "to device": 3}
        counted.clear()
        rows.view(4, 3).T[1:].unsqueeze(0)
        assert not counted.kernels
        assert counted.views.total() == 4
        (rows * 2).add_(1)
        torch.zeros(0, 4, device=DEVICE) * 2
        assert counted.kernels == {"mul": 1, "add_": 1}
    assert torch.zeros(2).device.type == "cpu"


def test_a_place_is_a_line_of_the_suite_wherever_its_environment_lies():
    beside = pretend_counts.ROOT.with_name(f"{pretend_counts.ROOT.name}-venv")
    for folder in (beside, pretend_counts.ROOT / ".venv"):
        assert pretend_counts.own_file(str(folder / "lib/site-packages/torch/nn/modules/linear.py")) is None
    assert pretend_counts.own_file(pretend_counts.__file__) is None
    assert pretend_counts.own_file(__file__) == "tests/cost/test_pretend_device.py"
    with Pretend(places=True) as counted:
        rows = there(3, 4)
        counted.clear()
        rows.cpu()
    assert [place.partition(":")[0] for place in counted.places] == ["tests/cost/test_pretend_device.py"]


def test_mixed_precision_is_that_of_cuda():
    with Pretend(), torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        rows, weight = there(3, 4), there(4, 4).requires_grad_()
        half = rows @ weight
        kinds = [half, half.exp(), half.softmax(-1), functional.layer_norm(half, (4,)), half + rows, half.relu()]
        assert [str(kind.dtype)[6:] for kind in kinds] == ["bfloat16", *["float32"] * 4, "bfloat16"]
        loss = functional.cross_entropy(half, torch.zeros(3, dtype=torch.int64, device=DEVICE))
        loss.backward()
        assert loss.dtype == weight.grad.dtype == torch.float32
        with torch.autocast(DEVICE.type, enabled=False):
            assert (rows @ weight).dtype == torch.float32


def test_tensors_are_saved_and_come_back():
    with Pretend():
        saved, file = {"rows": there(2, 3)}, io.BytesIO()
        torch.save(saved, file)
        file.seek(0)
        (again,) = torch.load(file, weights_only=True, map_location=DEVICE).values()
        assert again.device == DEVICE
        assert torch.equal(again, saved["rows"])


def test_in_inference_mode_tensors_move_too():
    """There torch hands on `to` as it was called."""
    with Pretend() as counted, torch.inference_mode():
        here = torch.zeros(3)
        moved = [here.to(DEVICE), torch.as_tensor(here.numpy(), device=DEVICE), here.to(there(1)), there(3).half()]
        assert [tensor.device for tensor in moved] == [DEVICE] * 4
        moved[0].add_(1)
        assert here.sum() == 0
        counted.clear()
        assert torch.equal(moved[0].cpu(), torch.ones(3))
        assert moved[0].to(DEVICE) is moved[0]
        assert counted.copies == {"to host": 1}
