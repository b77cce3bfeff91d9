"""DFSP: the official implementation's numbers. `pytest -s` prints the largest differences.

The golden files were made by running Forest-art/DFSP at commit 4f935ea1 on a random CLIP, fp32, CPU, dropout 0; the
images of all but one are those of csp.npz. In the released code every image of a batch gets the same fused text, so one
copy of it is kept.
"""

from __future__ import annotations

import pytest
import torch
from golden_files import check_gradients, parameters

from methods.backbone import Backbone, build_clip
from methods.base import Batch
from methods.dfsp import DFSP, DFSPConfig
from methods.parts.prompts import SoftPrompt
from methods.parts.scoring import unit

LOGITS, FEATURES, LOSSES = 2e-4, 5e-5, 2e-5
VARIANTS = {
    "dfsp_bifusion": "bif",
    "dfsp_bifusion_257": "bif",
    "dfsp_img2txt": "i2t",
    "dfsp_txt2img": "t2i",
    "dfsp_onlyspm": "none",
}
# The official name of a module on the left, ours on the right.
NAMES = {
    "soft_att_obj": "table.weight",
    "soft_prompt": "prompt.context",
    "fusion.txt2img_transform_layer1": "fusion.to_image.channels",
    "fusion.txt2img_transform_layer2": "fusion.to_image.tokens",
    "fusion.img2txt_transform_layer1": "fusion.to_text.channels",
    "fusion.img2txt_transform_layer2": "fusion.to_text.tokens",
    "fusion.crossblock_img": "fusion.to_image.cross",
    "fusion.crossblock_txt": "fusion.to_text.cross",
    "fusion.resblocks_img.0": "fusion.image_blocks.0",
    "fusion.resblocks_txt.0": "fusion.text_blocks.0",
    "fusion.txt_fine_tune": "fusion.to_text.composer",
}
IN_A_BLOCK = {
    "attn": "attention",
    "ln_x": "ln_query",
    "ln_1": "ln_query",
    "ln_y": "ln_memory",
    "ln_2": "ln_mlp",
    "mlp.c_fc": "mlp.0",
    "mlp.c_proj": "mlp.3",
}


def our_name(official: str) -> str:
    """Return our name of a parameter of the released code."""
    start = next(name for name in sorted(NAMES, key=len, reverse=True) if official.startswith(name))
    rest = official.removeprefix(start).lstrip(".")
    for theirs, ours in IN_A_BLOCK.items():
        if rest.startswith(f"{theirs}."):
            rest = f"{ours}{rest.removeprefix(theirs)}"
    return f"{NAMES[start]}.{rest}".rstrip(".")


def with_patches(backbone: Backbone, arrays: dict[str, torch.Tensor]) -> Backbone:
    """Return the golden CLIP with the file's own patches, of which there are 256."""
    config = {
        "embed_dim": backbone.embed_dim,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 2, "width": backbone.vision_width, "layers": 24},
        "text_cfg": {"width": backbone.text_width, "heads": 2, "layers": len(backbone.clip.transformer.resblocks)},
    }
    clip = build_clip(config, "golden257")
    own = {key.removeprefix("clip/"): value.float() for key, value in arrays.items() if key.startswith("clip/")}
    clip.load_state_dict({**backbone.clip.state_dict(), **own})
    return Backbone.from_open_clip(clip, backbone.tokenizer, "golden257")


@pytest.fixture(scope="module")
def loaded(golden, golden_backbone):
    """Return a function: (official numbers, DFSP with the official weights and no dropout, reader of a batch)."""
    kept = {}

    def load(name: str):
        if name not in kept:
            official = golden(name)
            arrays = official.arrays
            backbone = (
                with_patches(golden_backbone, arrays) if "clip/visual.conv1.weight" in arrays else golden_backbone
            )
            config = DFSPConfig(fusion=VARIANTS[name], layout="released", dropout=0.0, fusion_dropout=0.0)
            method = DFSP(backbone, official.vocabulary, config)
            method.load_checkpoint({our_name(key): value for key, value in parameters(official).items()})
            images = arrays.get("input/images", golden("csp").arrays["input/images"]).float()
            kept[name] = official, method, images
        official, method, images = kept[name]

        def batch_of(targets: str, part: slice = slice(None)) -> Batch:
            return Batch(*official.arrays[targets][part].T, images=images[part])

        return official, method.eval(), batch_of

    return load


def test_parity_at_the_start(loaded, golden_backbone, near):
    official, method, _ = loaded("dfsp_onlyspm")
    fresh = DFSP(golden_backbone, official.vocabulary, DFSPConfig())
    near("dfsp_onlyspm initial text table", fresh.table.weight, official.arrays["init/soft_att_obj"], 1e-7)
    near("dfsp_onlyspm initial text context", fresh.prompt.context, official.arrays["init/soft_prompt"], 1e-7)
    vectors = method.prompt(method.table.weight, method.table.pair_rows(official.candidates))
    near("dfsp_onlyspm token vectors", vectors, official.arrays["out/eval/token_tensors"], 1e-7)
    assert isinstance(method.prompt, SoftPrompt) and vectors.shape[1] == 8


@pytest.mark.parametrize("name", VARIANTS)
def test_parity_in_evaluation(name, loaded, near):
    official, method, batch_of = loaded(name)
    expected, candidates = official.arrays, official.candidates
    with torch.no_grad():
        batch = method.encode(batch_of("input/eval_targets"))
        near(f"{name} image", batch.features["image"], expected["out/eval/image"], FEATURES)
        text = method.text(candidates, method.table.weight, primitives=True)
        near(f"{name} text", text["own"], expected["out/eval/text_raw"], FEATURES)
        if method.fuses:
            near(
                f"{name} fused image",
                method.fused_image(batch.features, text),
                expected["out/eval/image_fused"],
                FEATURES,
            )
        if method.composes:
            _, words = method.fuse(batch.features, text)
            assert len(words) == 1
            composed = method.composed_text(words, text["rows"])[0]
            near(f"{name} fused text", composed, expected["out/eval/text_fused"], FEATURES)
        elif method.fuses:
            mixed = unit(method.mixed(text["own"], expected["out/eval/text_fused"]))
            near(f"{name} fused, mixed text", text["text"], mixed, FEATURES)
        logits = method.branch_logits(batch.features, text)
        for key, branch in {"": "pair", "_soft_prompt": "soft_prompt", "_att": "state", "_obj": "object"}.items():
            near(f"{name} logits {branch}", logits[branch], expected[f"out/eval/logits{key}"], LOGITS)
        prepared = method.prepare(candidates)
        scores = torch.cat([method.score(batch, prepared, slice(at, at + 5)) for at in range(0, 22, 5)], dim=1)
        near(f"{name} scores in chunks", scores, expected["out/eval/logits"], LOGITS)
        first = method.encode(batch_of("input/eval_targets", slice(3)))
        scores = method.score(first, prepared, slice(None))
        near(f"{name} scores of the first 3", scores, expected["out/eval_first3/scores"], LOGITS)
        loss = method.validation_losses(batch, prepared).total
        near(f"{name} validation loss", loss, expected["loss/eval/total"], LOSSES)


@pytest.mark.parametrize("name", VARIANTS)
def test_parity_in_training(name, loaded, near):
    official, method, batch_of = loaded(name)
    expected, candidates, batch = official.arrays, official.train_candidates, batch_of("input/targets")
    method.train().zero_grad()
    with torch.no_grad():
        features = method.image_features(batch.images)
        text = method.text(candidates, method.table(), primitives=True)
        near(f"{name} train text", text["own"], expected["out/train/text_raw"], FEATURES)
        if method.fuses:
            fused = method.fused_image(features, text)
            near(f"{name} train fused image", fused, expected["out/train/image_fused"], FEATURES)
        if method.composes:
            _, words = method.fuse(features, text)
            assert len(words) == len(batch)
            composed = method.composed_text(words, text["rows"])
            of_each = expected["out/train/text_fused"].expand_as(composed)
            near(f"{name} train fused text", composed, of_each, FEATURES)
        logits = method.branch_logits(features, text)
    for key, branch in {"": "pair", "_soft_prompt": "soft_prompt", "_att": "state", "_obj": "object"}.items():
        near(f"{name} train logits {branch}", logits[branch], expected[f"out/train/logits{key}"], LOGITS)
    losses = method.training_loss(batch, candidates)
    for key, term in {"logits": "pair", "soft_prompt": "soft_prompt", "att": "state", "obj": "object"}.items():
        near(f"{name} loss {term}", losses.terms[term], expected[f"loss/train/{key}"], LOSSES)
    near(f"{name} loss", losses.total, expected["loss/train/total"], LOSSES)
    losses.total.backward()
    gradients = {
        official_name: method.get_parameter(our_name(official_name)).grad for official_name in parameters(official)
    }
    assert len(gradients) == len(method.trained())
    check_gradients(official, gradients, near)
