"""Checkpoints of the released codes: the golden numbers come out of such files, and what does not fit is named.

A file is made as the released training scripts make it: CSP and CoOp save a table as a parameter, the others the state
dict of the whole model, CLIP in it once by itself and its text side again, cut to eight positions.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import branch_golden
import golden_files
import pytest
import torch
from torch import Tensor, nn

from errors import UserError
from methods.base import Batch
from methods.released.names import FORMS
from methods.released.reading import check_labels, check_method, fit, read_checkpoint, settings_of, variant_of
from methods.released.writing import released_tensors, write_released
from registry import METHODS

LOGITS = 2e-4
HEADS = {"stage_1_heads": 12, "stage_2_heads": 12}  # of the golden run; a file does not tell
UNUSED = {
    "dfsp": {
        "fusion.img2txt_transform_layer1.weight": (128, 64),
        "fusion.crossblock_txt.ln_x.bias": (128,),
        "fusion.txt_fine_tune.bias": (128,),
        "fusion.crossblock_img.ln_y.bias": (64,),
    },
    "msci": {
        "cmt.0.cross_attn.q_proj.weight": (192, 192),
        "patch_norm.bias": (192,),
        "fusion_module.attention_gate.0.weight": (192, 384),
        "concat_projection_low.0.weight": (192, 192),
        "concat_projection_high.0.weight": (192, 192),
    },
}
"""Shapes of some tensors that are saved, whether or not the variant reads them."""
FILES = {
    "csp": ("csp", "soft_embeddings.pt"),
    "coop": ("coop", "soft_embeddings_epoch_20.pt"),
    "dfsp_txt2img": ("dfsp", "txt2img_best.pt"),
    "dfsp_img2txt": ("dfsp", "img2txt_epoch_3.pt"),
    "dfsp_bifusion": ("dfsp", "final_model_BiFusion.pt"),
    "dfsp_onlyspm": ("dfsp", "OnlySPM_best.pt"),
    "troika_mitstates": ("troika", "val_best.pt"),
    "troika_cgqa": ("troika", "epoch_4.pt"),
    "msci_l3h3": ("msci", "val_best.pt"),
    "msci_l1h1": ("msci", "val_best.pt"),
}


def clip_twice(backbone) -> dict[str, Tensor]:
    """CLIP as the released models hold it."""
    own = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    own["positional_embedding"] = own["positional_embedding"][:8]
    text = [name for name in own if not name.startswith(("visual.", "logit_scale"))]
    return {f"clip.{name}": own[name] for name in own} | {f"text_encoder.{name}": own[name] for name in text}


@pytest.fixture
def saved(golden, golden_backbone, tmp_path):
    """Return a function from a golden file's name to (its numbers, the file that the released code would save)."""

    def save(name: str) -> tuple[SimpleNamespace, Path]:
        method, file = FILES[name]
        if method in ("troika", "msci"):
            official = branch_golden.read(golden, name)
            tensors = {**official.parameters, **clip_twice(golden_backbone)}
        else:
            official = golden(name)
            tensors = golden_files.parameters(official)
            if method == "dfsp":
                tensors |= clip_twice(golden_backbone)
        if method in ("csp", "coop"):
            tensors = {"soft_embeddings": nn.Parameter(tensors["soft_embeddings"])}
        unused = UNUSED.get(method, {})
        tensors |= {key: torch.full(shape, 0.02) for key, shape in unused.items() if key not in tensors}
        torch.save(tensors, tmp_path / file)
        return official, tmp_path / file

    return save


def imported(file: Path, method: str, backbone, vocabulary, **given):
    """What an import does: settings from the shapes, a fresh method, the file's weights in it."""
    checkpoint = read_checkpoint(file)
    form = check_method(checkpoint, method)
    check_labels(checkpoint, form, len(vocabulary.states), len(vocabulary.objects), "golden")
    settings = {**form.forward, **variant_of(method, file), **settings_of(checkpoint, form), **given}
    method_class = METHODS.get(method)
    built = method_class(backbone, vocabulary, method_class.Config(**settings)).eval()
    fitted = fit(checkpoint, form, built)
    built.load_checkpoint(fitted.weights)
    return built, fitted, settings


@pytest.mark.parametrize("name", FILES)
def test_a_released_file_gives_the_golden_scores(name, saved, golden, golden_backbone, near):
    official, file = saved(name)
    given = {"inference": "logit_product"} if name.startswith(("troika", "msci")) else {}
    given |= HEADS if name.startswith("msci") else {}
    method, fitted, settings = imported(file, FILES[name][0], golden_backbone, official.vocabulary, **given)
    images = golden("csp").arrays["input/images"].float()
    batch = method.encode(Batch(*official.arrays["input/eval_targets"].T, images=images))
    with torch.no_grad():
        scores = method.score(batch, method.prepare(official.candidates), slice(None))
    if name.startswith(("troika", "msci")):
        branch_golden.check_output(near, official, "out/eval/scores", scores, LOGITS)
    else:
        key = "out/eval/scores" if "out/eval/scores" in official.arrays else "out/eval/logits"
        near(f"{name} scores of a file", scores, official.arrays[key], LOGITS)
    asked = official.meta["hyper_parameters"]
    for ours, theirs in {"traction_layers": "cmt_layers", "n_low": "selected_low_layers", "depth": "SA_K"}.items():
        if ours in settings and theirs in asked and name != "dfsp_onlyspm":
            assert settings[ours] == asked[theirs]
    stored = (
        set(golden_files.parameters(official)) if FILES[name][0] == "dfsp" else set(getattr(official, "parameters", ()))
    )
    assert set(fitted.unused) == set(UNUSED.get(FILES[name][0], ())) - stored
    whole = len(golden_backbone.clip.state_dict())
    assert fitted.clip == 0 if name in ("csp", "coop") else fitted.clip > whole


@pytest.mark.parametrize("name, count", {"csp": 1, "dfsp_txt2img": 64, "troika_cgqa": 235, "msci_l1h1": 276}.items())
def test_there_and_back_is_equal_bit_for_bit(name, count, saved, golden_backbone, tmp_path):
    """count: of the released model's own tensors, so that its strict `load_state_dict` takes what is written."""
    official, file = saved(name)
    given = HEADS if name.startswith("msci") else {}
    method, _, _ = imported(file, FILES[name][0], golden_backbone, official.vocabulary, **given)
    tensors, zeros = released_tensors(method, "ut_zappos")
    assert len([key for key in tensors if not key.startswith(("clip.", "text_encoder."))]) == count
    write_released(tmp_path / f"back-{file.name}", tensors)
    before, after = (read_checkpoint(tmp_path / n).tensors for n in (file.name, f"back-{file.name}"))
    assert set(before) <= set(after)
    unused = set(UNUSED.get(FILES[name][0], ())) & set(zeros)
    for key in set(before) - unused:
        assert torch.equal(before[key].nan_to_num(), after[key].nan_to_num()), key  # golden token rows may be NaN
    again, _, _ = imported(
        tmp_path / f"back-{file.name}", FILES[name][0], golden_backbone, official.vocabulary, **given
    )
    assert all(torch.equal(value, again.checkpoint()[key]) for key, value in method.checkpoint().items())


def refusal(file: Path, method: str, backbone, vocabulary, **given) -> str:
    with pytest.raises(UserError) as caught:
        imported(file, method, backbone, vocabulary, **given)
    assert all((caught.value.asked, caught.value.there, caught.value.next_step))
    return str(caught.value)


def test_another_method_is_named(saved, golden_backbone):
    for name, asked, likely in (("csp", "coop", "csp"), ("coop", "csp", "coop"), ("msci_l3h3", "troika", "msci")):
        official, file = saved(name)
        said = refusal(file, asked, golden_backbone, official.vocabulary)
        assert f"is not of {asked}." in said and f"Pass --method {likely}." in said
    with pytest.raises(UserError, match="csp, coop, dfsp, troika, msci, caila"):
        imported(file, "refiner_style", golden_backbone, official.vocabulary)


def test_another_label_space_is_named(saved, golden_backbone):
    official, file = saved("troika_cgqa")
    fewer = type(official.vocabulary)(official.vocabulary.states[1:], official.vocabulary.objects)
    assert "has 11 rows, and golden has 4 states + 6 objects = 10" in refusal(file, "troika", golden_backbone, fewer)


def test_another_backbone_is_named_with_the_difference(saved, golden_backbone, backbone):
    official, file = saved("dfsp_txt2img")
    assert "have 128 numbers, the backbone's 48" in refusal(file, "dfsp", backbone, official.vocabulary)
    tensors = torch.load(file, weights_only=True)
    tensors["clip.visual.proj"][0, 0] += 0.5
    torch.save(tensors, file)
    said = refusal(file, "dfsp", golden_backbone, official.vocabulary)
    assert "1 have other values, most clip.visual.proj, by 0.5" in said
    del tensors["clip.visual.proj"]
    torch.save({**tensors, "clip.visual.projection": torch.ones(2)}, file)
    assert "another name or shape, such as clip.visual.projection" in refusal(
        file, "dfsp", golden_backbone, official.vocabulary
    )


def test_half_precision_is_compared_in_half_precision(saved, golden_backbone):
    official, file = saved("dfsp_txt2img")
    tensors = torch.load(file, weights_only=True)
    torch.save({k: v.half() if k.startswith("clip.visual.trans") else v for k, v in tensors.items()}, file)
    assert imported(file, "dfsp", golden_backbone, official.vocabulary)[1].clip > 0


def test_files_that_cannot_be_read(saved, golden_backbone, tmp_path):
    official, file = saved("csp")
    whole = file.read_bytes()
    cut, other, script, code = (tmp_path / name for name in ("cut.pt", "other.pt", "script.pt", "code.pt"))
    cut.write_bytes(whole[: len(whole) // 2])
    torch.save(["a list"], other)
    torch.jit.script(nn.Linear(2, 2)).save(str(script))
    torch.save({"config": SimpleNamespace(lr=1)}, code)
    for place, words in (
        (cut, "cut short"),
        (other, "no table of tensors by name but a list"),
        (script, "TorchScript"),
        (code, "could run code"),
        (tmp_path / "none.pt", "No such file"),
    ):
        assert words in refusal(place, "csp", golden_backbone, official.vocabulary)


TABLES = {
    "a number": (lambda table: torch.tensor(3.0), "has the shape ()"),
    "a vector": (lambda table: table[0], "has the shape (128,)"),
    "a cube": (lambda table: table[..., None], "and has the shape (11, 128, 1)"),
    "sparse": (lambda table: table.to_sparse(), "1 tensor is sparse, such as soft_embeddings"),
    "whole numbers": (lambda table: table.long(), "soft_embeddings is of type int64"),
    "complex": (lambda table: table.to(torch.complex64), "soft_embeddings is of type complex64"),
    "not a number": (lambda table: table.index_fill(0, torch.tensor([1]), torch.nan), "has 128 numbers that are NaN"),
    "infinite": (lambda table: table / 0, "numbers that are NaN or infinite"),
}


@pytest.mark.parametrize("case", TABLES)
def test_what_are_no_weights_is_refused(case, saved, golden_backbone):
    official, file = saved("csp")
    change, words = TABLES[case]
    table = torch.load(file, weights_only=True)["soft_embeddings"].detach()
    torch.save({"soft_embeddings": change(table)}, file)
    assert words in refusal(file, "csp", golden_backbone, official.vocabulary)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("troika_cgqa", "additional_visual_params.0.down_proj.weight"),
        ("troika_cgqa", "soft_prompt_att"),
        ("msci_l3h3", "concat_projection_low.0.weight"),
        ("dfsp_txt2img", "fusion.txt2img_transform_layer2.weight"),
    ],
)
def test_names_with_other_shapes_are_refused(name, tensor, saved, golden_backbone):
    official, file = saved(name)
    tensors = torch.load(file, weights_only=True)
    torch.save(tensors | {tensor: torch.tensor(1.0)}, file)
    assert refusal(file, FILES[name][0], golden_backbone, official.vocabulary)


def test_an_empty_file_of_tensors_is_refused(saved, golden_backbone):
    official, file = saved("csp")
    torch.save({}, file)
    assert "It holds no tensor." in refusal(file, "csp", golden_backbone, official.vocabulary)


def test_tensors_that_no_code_saves_are_refused(saved, golden_backbone):
    official, file = saved("troika_cgqa")
    tensors = torch.load(file, weights_only=True)
    torch.save({**tensors, "my_own.weight": torch.ones(2)}, file)
    assert "1 unknown to the released code, such as my_own.weight" in refusal(
        file, "troika", golden_backbone, official.vocabulary
    )
    del tensors["patch_norm.bias"]
    torch.save(tensors, file)
    assert "1 missing, such as patch_norm.bias" in refusal(file, "troika", golden_backbone, official.vocabulary)


def test_a_switch_that_the_released_code_lacks_is_not_exported(golden_backbone, golden):
    method_class = METHODS.get("csp")
    method = method_class(golden_backbone, golden("csp").vocabulary, method_class.Config(learn_context=True))
    with pytest.raises(UserError, match="learn_context is True"):
        released_tensors(method, "mit_states")
    for form in FORMS.values():  # a renamed setting would let a form pass that does not fit
        known = METHODS.get(form.method).Config.model_fields
        assert {*form.fixed, *form.forward, *form.unsaid} <= set(known)
