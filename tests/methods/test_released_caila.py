"""Checkpoints of CAILA's released code, made from the list of its tensors and read without running code from them."""

from __future__ import annotations

import copy
import json

import caila_golden
import numpy as np
import pytest
import torch

from errors import UserError
from methods.caila import CAILA
from methods.released import hugging_face
from methods.released.names import FORMS
from methods.released.reading import check_method, fit, read_checkpoint
from methods.released.writing import released_tensors, write_released

FORM = FORMS["caila"]


@pytest.fixture(scope="module")
def official(golden):
    found = golden("caila_large")
    found.arrays["input/images"] = golden("csp").arrays["input/images"]
    return found


@pytest.fixture(scope="module")
def net(official, golden_backbone) -> dict[str, torch.Tensor]:
    """The state dict that the released class saves for this CLIP: every tensor of its list, of the listed shape."""
    clip = {f"clip_model.{name}": tensor for name, _, tensor in hugging_face.named(golden_backbone.clip.state_dict())}
    own, made = caila_golden.parameters(official), {}
    for name, shape, kind, _, _ in official.meta["checkpoint_tensors"]:
        if name.endswith("position_ids"):
            made[name] = torch.arange(shape[1])[None]
        else:
            made[name] = (own[name] if name in own else clip[name]).clone()
        assert list(made[name].shape) == shape and str(made[name].dtype) == f"torch.{kind}", name
    return made


def save(path, net):
    """As the released training script does: beside the weights an epoch, and an AUC of numpy."""
    torch.save({"net": net, "epoch": 12, "AUC": np.float64(0.234)}, path)
    return path


def imported(path, backbone, vocabulary):
    checkpoint = read_checkpoint(path)
    form = check_method(checkpoint, "caila")
    found = form.inferred(checkpoint.shapes)
    method = CAILA(copy.deepcopy(backbone), vocabulary, CAILA.Config(**form.forward, **found)).eval()
    fitted = fit(checkpoint, form, method)
    method.load_checkpoint(fitted.weights)
    return method, fitted, found


@torch.no_grad()
def test_a_released_file_gives_the_golden_scores_and_comes_back_bit_for_bit(
    net, official, golden_backbone, near, tmp_path
):
    method, fitted, found = imported(save(tmp_path / "ckpt_best_auc.t7", net), golden_backbone, official.vocabulary)
    assert found == {
        "text_adapters": True,
        "vision_adapters": True,
        "reduction": 4,
        "adapter_start": 0,
        "adapter_end": None,
        "mixture_layers": 12,
    }
    assert len(fitted.weights) == 672 and fitted.unused == FORM.unused
    assert fitted.clip + len(fitted.weights) + len(fitted.unused) == len(net)
    batch = caila_golden.batch_of(official, official.arrays["input/images"], False)
    method.config = method.config.model_copy(update={"score": "cosine"})
    scores = method.score(method.encode(batch), method.prepare(official.candidates), slice(None))
    near("caila_large scores of a file", scores, official.arrays["out/eval/scores"], 2e-6)
    tensors, zeros = released_tensors(method, "mit_states")
    assert set(tensors) == set(net) and not zeros
    write_released(tmp_path / "back.t7", tensors, FORM.inside)
    after = read_checkpoint(tmp_path / "back.t7").tensors
    assert all(torch.equal(after[name].nan_to_num(), value.nan_to_num()) for name, value in net.items())


def test_settings_follow_from_names_and_shapes():
    def shapes(text=True, vision=range(6), mixed=(4, 5)):
        names = [f"text_model.encoder.layers.0.adapter1.{mode}" for mode in ("pair", "attr", "obj") if text]
        names += [
            f"vision_model.encoder.layers.{block}.adapter1.{mode}" for block in vision for mode in ("attr", "obj")
        ]
        names += [f"vision_model.encoder.layers.{block}.adapter1.mixture" for block in mixed]
        down = {f"clip_model.{name}.down_sampler.weight": (16, 64) for name in names}
        return {**down, **{f"clip_model.vision_model.encoder.layers.{n}.layer_norm1.bias": (64,) for n in range(6)}}

    assert FORM.inferred(shapes())["mixture_layers"] == 2
    assert FORM.inferred(shapes(text=False))["text_adapters"] is False
    assert FORM.inferred(shapes(mixed=()))["mixture_layers"] == 0
    part = FORM.inferred(shapes(vision=range(1, 5), mixed=(3, 4)))
    assert (part["adapter_start"], part["adapter_end"], part["mixture_layers"]) == (1, 5, 3)
    assert FORM.inferred(shapes(vision=(), mixed=())) == {
        "text_adapters": True, "vision_adapters": False, "reduction": 4,
    }  # fmt: skip


def test_another_backbone_and_strange_tensors_are_refused(net, official, golden_backbone, tmp_path):
    name = "clip_model.vision_model.encoder.layers.7.self_attn.k_proj.weight"
    norm = "clip_model.vision_model.encoder.layers.7.layer_norm1.bias"
    changed = {**net, name: net[name] + 0.5}
    for tensors, words in (
        (changed, f"1 have other values, most {name}, by 0.5"),
        ({**net, "clip_model.my_own": torch.ones(2)}, "1 unknown to the released code, such as clip_model.my_own"),
        ({key: value for key, value in net.items() if key != norm}, f"1 missing, such as {norm}"),
        ({key: value for key, value in net.items() if "logit_scale" not in key}, "are not those of any released code"),
    ):
        with pytest.raises(UserError) as caught:
            imported(save(tmp_path / "x.t7", tensors), golden_backbone, official.vocabulary)
        assert words in str(caught.value)


def test_nothing_but_tensors_and_a_number_of_numpy_is_read(net, tmp_path):
    small = {"attr_logit_scale": torch.tensor(1.0)}
    for extra in (np.float64(0.2), 0.2):
        torch.save({"net": small, "epoch": 1, "AUC": extra}, tmp_path / "x.t7")
        assert set(read_checkpoint(tmp_path / "x.t7").tensors) == set(small)
    torch.save({"net": small, "AUC": np.random.RandomState(0)}, tmp_path / "x.t7")
    with pytest.raises(UserError, match="could run code"):
        read_checkpoint(tmp_path / "x.t7")
    # The name of that function before numpy 2, which the public files hold.
    content = tmp_path / "y.t7"
    torch.save({"net": small, "AUC": np.float64(0.2)}, content)
    old = old_name(content.read_bytes())
    (tmp_path / "old.t7").write_bytes(old)
    assert set(read_checkpoint(tmp_path / "old.t7").tensors) == set(small)


def old_name(file: bytes) -> bytes:
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as archive, zipfile.ZipFile(made, "w") as new:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(name, data)
    return made.getvalue()


def test_a_run_with_concatenation_is_not_exported(golden_backbone, official):
    method = CAILA(copy.deepcopy(golden_backbone), official.vocabulary, CAILA.Config(combination="concat"))
    with pytest.raises(UserError, match="combination='concat'"):
        released_tensors(method, "mit_states")
    assert json.loads(json.dumps(FORM.beyond)) == {"combination": "concat"}
