#!/usr/bin/env bash
# open_clip: how pictures are normalised belongs to the pretrained tag, and weights in a file lose it without a word.
#
# Surprising: ViT-L-14 is one architecture with twelve tags; eleven were trained with OpenAI's mean and deviation and
# laion2b_s32b_b82k with 0.5 and 0.5. The name of the model does not say so, a file of weights neither, and
# create_model_and_transforms("ViT-L-14", pretrained="file") gives OpenAI's for every file: white is 2.0 where those
# weights expect 1.0. All keys fit, and nothing is warned of. ViT-H-14 is like that in how it resizes (dfn5b).
#
# Here: methods/backbone/origin.py looks for what says it (the tag whose file it is, a configuration beside the file,
# marks of OpenAI's own files), and refuses a file of which nobody can say it and whose model's tags disagree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q open_clip_torch==3.3.0 torch==2.14.1 torchvision==0.29.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys
from collections import defaultdict
from pathlib import Path

import open_clip
import torch

MODEL = "ViT-L-14"
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

print(f"open_clip {open_clip.__version__}")
tags = defaultdict(list)
for tag in open_clip.list_pretrained_tags_by_model(MODEL):
    asked = open_clip.get_pretrained_cfg(MODEL, tag)
    tags[tuple(asked["mean"]), tuple(asked["std"])].append(tag)
for (mean, std), names in tags.items():
    print(f"{MODEL}: mean {mean}, std {std}: {', '.join(names)}")

# No weights are needed: open_clip settles the transform before it reads them, and here it is told not to read them.
weights = Path("laion2b_s32b_b82k.safetensors")
weights.touch()
model, _, transform = open_clip.create_model_and_transforms(
    MODEL, pretrained=str(weights), load_weights=False, device="meta"
)
normalise = transform.transforms[-1]
print(f"pretrained={weights}: {normalise}")
white = torch.ones(3, 1, 1)
print(f"white as the file is read: {[round(value, 2) for value in normalise(white).flatten().tolist()]}")
print("white as it was trained:   [1.0, 1.0, 1.0]")
same = tags.get(((0.5,) * 3, (0.5,) * 3)) == ["laion2b_s32b_b82k"] and len(tags) == 2 and len(tags[OPENAI]) == 11
same = same and (tuple(normalise.mean), tuple(normalise.std)) == OPENAI
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
