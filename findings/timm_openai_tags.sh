#!/usr/bin/env bash
# timm: the tag "openai" of a CLIP tower brings OpenAI's weights, but neither their activation nor, for ViT-B, their crop.
#
# Surprising: vit_base_patch32_clip_224.openai and vit_base_patch32_clip_quickgelu_224.openai are one file of weights.
# The first computes GELU where these weights were trained with QuickGELU; all keys fit, nothing is warned of (a note in
# the configuration says so). The second is there for the original results, and its features are not those either when
# images are made by timm's own configuration: for ViT-B it resizes to 248 pixels and cuts 224 out, 82 % of a square
# picture, where OpenAI's resizes to 224 and keeps all of it. For ViT-L it keeps all, as OpenAI's does. States are small
# and often at the rim; a paper whose features come from timm sees less of them with ViT-B than with ViT-L.
#
# Here: methods/backbone takes open_clip's definitions with QuickGELU for OpenAI's weights, and the resizing, mean and
# deviation that belong to the weights (methods/backbone/origin.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q timm==1.0.31 open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import sys

logging.disable(logging.WARNING)

import open_clip
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

same = True
print(f"timm {timm.__version__}, open_clip {open_clip.__version__}")
for size, original in (("base_patch32", "ViT-B-32"), ("large_patch14", "ViT-L-14")):
    with torch.device("meta"):
        models = [timm.create_model(f"vit_{size}_clip{kind}_224.openai") for kind in ("", "_quickgelu")]
    clip, _, transform = open_clip.create_model_and_transforms(f"{original}-quickgelu", device="meta")
    tag = open_clip.get_pretrained_cfg(original, "openai")
    sources = {model.pretrained_cfg["hf_hub_id"] for model in models}
    acts = [type(model.blocks[0].mlp.act).__name__ for model in models]
    sizes = [create_transform(**resolve_model_data_config(model)).transforms[0].size for model in models]
    own = type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__, transform.transforms[0].size
    print(f"{original}: weights {tag['hf_hub']}; in open_clip {own[0]}, resized to {own[1]}")
    for model, act, pixels in zip(models, acts, sizes, strict=True):
        seen = (224 / pixels) ** 2
        print(f"  timm's {model.pretrained_cfg['architecture']}: {act}, resized to {pixels}, {100 * seen:.0f} % seen")
    pixels = 248 if original == "ViT-B-32" else 224
    same = same and sources == {tag["hf_hub"].rstrip("/")} and tag["quick_gelu"] and acts == ["GELU", "QuickGELU"] and sizes == [pixels] * 2
    same = same and own == ("QuickGELU", 224)
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
